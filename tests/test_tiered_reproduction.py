"""``vsae reproduce tiered``: the published network and its failures, rules, a smoke run."""

import json
import math

import pytest
import torch
from program_checks import HALF

from priors import SoftmaxWeightsPrior
from toys.reproduce import tiered
from toys.reproduce.tiered_arms import (
    ARMS,
    BASES,
    CHANGED,
    COMPARED,
    LEARNED,
    NARROW,
    PUBLISHED,
    TIERED,
)
from toys.reproduce.tiered_claims import EV, EXACT, ce_score, claims, kl_score, rounded_to_bfloat16
from toys.reproduce.tiered_document import L1, VARIANTS, WRITTEN, Document, first_bad, run_variant
from toys.reproduce.tiered_findings import cause, document, learned, ours, versus
from toys.reproduce.tiered_runs import UNTRAINED, Job, build, coverages, jobs, join
from toys.reproduce.tiered_settings import Settings, settings
from toys.reproduce.tiered_tables import Results, all_tables
from vsae import (
    Autoencoder,
    ClosedFormELBO,
    Curriculum,
    FreeDecoder,
    TieredAutoencoder,
    TieredEncoder,
    TieredPosterior,
    metrics,
)
from vsae.guides import AmortizedGuide
from vsae.normalizers import AffineNormalizer

TINY = Settings(document_steps=20, document_batch=64, document_warmup=10, watched=2, steps=40)
SIZES = (9, 7, 5)


def rows(n=300, norm=300.0):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 64, generator=generator)
    return norm * x / x.norm(dim=-1).mean()


def made(arm, strength=1.0, lr=1e-3):
    job = Job(arm=arm, strength=strength, seed=0, lr=lr)
    return build(job, 64, AffineNormalizer.fit(rows()), TINY)


def test_the_published_network_is_ours_with_its_parts():
    """Loss and gradients of equation 3, written out in plain torch, are those of our programs."""
    torch.manual_seed(0)
    net, x = Document(6, SIZES).double(), torch.randn(40, 6)
    decoder, prior = FreeDecoder(21, 6), SoftmaxWeightsPrior(SIZES, l1=L1)
    norms = list(net.norms)
    encoder = TieredEncoder(6, SIZES, norms=norms)
    with torch.no_grad():
        decoder.W_dec.copy_(torch.cat([d.weight.T for d in net.decoders]))
        prior.logits.copy_(net.logits)
        for mine, theirs in zip(encoder.tiers, net.encoders, strict=True):
            mine.W.copy_(theirs.weight.T)
    model = TieredAutoencoder(decoder, prior, sizes=SIZES, noise=HALF)
    guide = AmortizedGuide(TieredPosterior(encoder, Curriculum.none(3)))
    pair = Autoencoder(model, guide)
    loss = ClosedFormELBO()(pair.model, pair.guide)(x) / 40
    published = net.pieces(x)["loss"]
    torch.testing.assert_close(loss - 6 * math.log(HALF * math.sqrt(2 * math.pi)), published)
    mine = torch.autograd.grad(loss, [encoder.tiers[1].W, decoder.W_dec, prior.logits])
    named = [net.encoders[1].weight, *(d.weight for d in net.decoders), net.logits]
    second, *atoms, logits = torch.autograd.grad(published, named)
    for one, other in zip(mine, (second.T, torch.cat([a.T for a in atoms]), logits), strict=True):
        torch.testing.assert_close(one, other)


def test_a_tied_decoder_is_not_one():
    """E-D2: tier 2's matrix maps back to tier 1's codes."""
    net = Document(64, NARROW)
    h1, h2, _ = net.tiers(rows(5).to(torch.get_default_dtype()))
    assert (h2 @ net.encoders[1].weight).shape == h1.shape
    assert h1.shape[-1] != 64
    assert net.mean([h1, h2, net.tiers(rows(5))[2]]).shape == (5, 64)


@pytest.mark.float32
@pytest.mark.parametrize(
    ("name", "where"),
    [
        (WRITTEN, None),
        ("safe_norm", None),
        ("brain", None),
        ("half", "squared error"),
        ("half_normalised", "AdamW's update of encoders.0.weight"),
        ("half_eps", None),
    ],
)
def test_float16_fails_twice_over_and_nothing_else_does(name, where):
    """300² > 65504; and with that mended, AdamW's ε = 10⁻⁸ is 0."""
    row = run_variant(name, rows(), rows(50), TINY, 0)
    assert row.get("failed") == where
    assert row["done"] == (VARIANTS[name].steps(TINY) if where is None else 0)
    assert torch.tensor(1e-8).half() == 0


def test_the_first_bad_value_is_named():
    fine, bad = torch.ones(2), torch.tensor([1.0, math.inf])
    assert first_bad({"a": fine, "b": bad, "c": bad}) == "b"
    assert first_bad({"a": fine}) is None


def test_scores_of_the_published_numbers():
    """Worked by hand from D16."""
    assert kl_score() == pytest.approx(1 - 15.375 / 10.0625)
    assert ce_score() == pytest.approx((12.4375 - 18.0) / (12.4375 - 2.9375))
    assert round(kl_score(), 3) == -0.528
    assert round(ce_score(), 3) == -0.586
    assert all(value == torch.tensor(value).bfloat16().item() for value in EXACT)
    assert rounded_to_bfloat16(EV, 3)
    assert torch.tensor(47.26).bfloat16().item() != 47.26  # a number that would not have passed
    said = " ".join(claims())
    assert "worse than the ablation" in said
    assert "-0.528" in said


@pytest.mark.float32
def test_every_arm_is_what_it_says():
    for name, arm in ARMS.items():
        pair = made(name, arm.middle)
        latents = sum(arm.sizes or TINY.sizes)
        assert pair.model.prior().event_shape[0] == latents == len(pair.W_dec), name
        if name == "softmax":
            fixed = made(TIERED, arm.middle)
            total = sum(1 / scale for scale in fixed.model.prior.scales)
            assert pair.model.prior.l1 == pytest.approx(total)
            torch.testing.assert_close(pair.model.prior.weights(), torch.tensor(PUBLISHED))
        if name == "raw":
            normal = made(TIERED, arm.middle)
            scales = (p.model.prior.tier_scales() for p in (normal, pair))
            unit = normal.normalizer.scale
            torch.testing.assert_close(next(scales) / next(scales), unit.expand(3))
    wide = {sum(arm.sizes or TINY.sizes) for arm in COMPARED.values()}
    assert wide == {TINY.latents}


@pytest.mark.float32
def test_an_untrained_model_has_all_its_tiers():
    pair = made(TIERED, lr=None)
    assert not pair.encode(rows())[:, TINY.sizes[0] :].any()
    join(pair, Settings())
    assert (metrics.tier_l0(pair.encode(rows()), TINY.sizes) > 0).all()


def test_coverages_pair_each_tier_with_the_one_below():
    first, second = torch.randn(2, 200, 21).relu()
    found = coverages((first, second), (first, second), SIZES)
    for i, (low, high, end) in enumerate(((0, 9, 16), (9, 16, 21))):
        parts = [h[:, a:b] for h in (first, second) for a, b in ((low, high), (high, end))]
        assert found[i] == pytest.approx(float(metrics.coverage_ratio(*parts)))
    assert coverages((first, second), (first, torch.zeros(200, 21)), SIZES) == [None, None]


def rows_of(chosen, ev=0.0, floor=None, dead=()):
    """Rows as a run has them: EV is 0.5 + 0.01 L0, ours shifted by ``ev``, a little by seed."""
    rows = []
    for job in jobs(chosen, {}):
        row = {"arm": job.arm, "strength": job.strength, "seed": job.seed, "failed": None}
        row |= {"lr": 1e-3, "data": "stories", "objective": 0.0}
        if job.arm in VARIANTS:
            bad = "squared error" if VARIANTS[job.arm].dtype is torch.float16 else None
            row |= {"failed": bad, "done": 0 if bad else 9, "gradient": [1.0, 2.0, None]}
            row |= {"ev_before": -0.9 + 0.2 * job.seed, "ev": 0.7, "l0": 60.0, "lr": None}
            looks = [{"step": 0, "loss": 2.0}, {"step": 2, "loss": 1.0}]
            rows.append(row | {"tier_l0": [20.0, 20.0, 20.0], "weights": [0.3] * 3, "looks": looks})
            continue
        place = sorted(ARMS[job.arm].strengths).index(job.strength)
        l0 = 8.0 + 5.0 * place + 0.1 * job.seed
        shift = (ev if job.arm in (TIERED, LEARNED) else 0.0) + 1e-3 * job.seed * (job.arm == "l1")
        tiers = [0.0 if job.arm in dead else l0 / 4, l0 / 4, l0 / 2]
        scales = [floor or 0.5] * 3
        look = {"step": 0, "l0": tiers, "l1": [3.0, 1.0, 0.0], "learned": scales, "loss": 1.0}
        row |= {"l0": l0, "ev": 0.5 + 0.01 * l0 + shift, "ce_recovered": 0.9, "dead": 1.0}
        row |= {"mse": 1.0, "kl_recovered": 0.9, "tier_l0": tiers, "looks": [look]}
        rows.append(row | {"coverage": [0.5, 0.4], "shuffled": [0.0, 0.0]})
    untrained = [r | {"lr": None} for r in rows if r["arm"] == TIERED][: len(chosen.seeds)]
    return rows[: -len(chosen.seeds)] + untrained


@pytest.mark.parametrize(
    ("ev", "said"), [(0.05, "better"), (-0.05, "worse"), (-0.001, "undecided")]
)
def test_verdicts_against_flat_arms_follow_from_the_rows(ev, said):
    results = Results(Settings(), [], rows_of(Settings(), ev))
    line = next(s for s in versus(results) if "1 : ½ : ¼ against ℓ1" in s)
    assert f": {said} (" in line


def test_other_findings_follow_from_the_rows():
    chosen = Settings()
    alive, dead = (Results(chosen, [], rows_of(chosen, dead=d)) for d in ((), (TIERED,)))
    assert "active in every tier" in next(ours(alive))
    assert "a tier is dead" in next(ours(dead))
    said = list(ours(alive))
    assert any("25 / 25 / 50 %" in s and ": balanced" in s for s in said)
    assert any(s.startswith("Allocation") and "not balanced" in s for s in ours(dead))
    ended = [next(learned(Results(chosen, [], rows_of(chosen, floor=f)))) for f in (0.155, 0.2)]
    assert "27 of 27 end within 5 %" in ended[0]
    assert "0 of 27" in ended[1]
    said = list(document(alive))
    assert said[0].startswith("Completed 9 of 12")
    assert "all in float16 (after 0 updates: squared error)" in said[1]
    assert any("-0.785 is between these" in s for s in said)
    assert any("300² = 90000 is above its greatest number, 65504" in s for s in said)


def test_the_cause_is_the_format_only_if_nothing_else_fails():
    made = rows_of(Settings())
    for row in made:
        if row["arm"] == "no_norm":
            row["failed"] = "loss"
    assert cause(Results(Settings(), [], made)).startswith("Cause of a failure: not the number")
    for row in made:
        row["failed"] = None
    assert cause(Results(Settings(), [], made)) == "Nothing fails."


def test_tables_have_a_row_for_everything_that_ran():
    chosen = Settings()
    found = all_tables(Results(chosen, [], rows_of(chosen)))
    assert len(found["document"].rows) == len(VARIANTS)
    assert [row["arm"] for row in found["ev"].rows] == [arm.label for arm in COMPARED.values()]
    assert len(found["tiers"].rows) == 2 + len(CHANGED)
    assert len(found["points"].rows) == 3 * len(COMPARED) + len(CHANGED)
    assert len(found["learned"].rows) == 3 * (3 + 1)
    assert len(found["coverage"].rows) == 4 + len(BASES)
    assert Results(chosen, [], rows_of(chosen)).of(UNTRAINED)


def test_the_reported_run_is_as_large_as_the_issue_asks():
    chosen = settings(smoke=False, seeds=None)
    assert chosen.steps >= 5_000
    assert chosen.norm == 300
    assert len(chosen.seeds) >= 3
    assert settings(smoke=False, seeds=5).seeds == (0, 1, 2, 3, 4)


@pytest.mark.float32
def test_smoke_run_writes_everything_it_promises(tmp_path, capsys):
    out, state, threads = tmp_path / "tiered", torch.get_rng_state(), torch.get_num_threads()
    assert tiered.main(["--smoke", "--threads", "1", "--json", "--out", str(out)]) == 0
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    result = json.loads(capsys.readouterr().out)  # one object, nothing else
    assert result["ok"] is True
    text = (out / "tiered.md").read_text(encoding="utf-8")
    assert all(sentence in text for sentence in result["findings"])
    assert len(result["findings"]) > 15
    for stem, records in result["tables"].items():
        lines = (out / "tables" / f"{stem}.csv").read_text(encoding="utf-8").splitlines()
        assert len(lines) == len(records) + 1
        assert (out / "tables" / f"{stem}.md").read_text(encoding="utf-8").startswith("**")
    for name in ("training", "document", "frontier"):
        assert (out / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert json.loads((out / "figures" / f"{name}.json").read_text(encoding="utf-8"))
    written = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert {"settings", "versions", "wall_seconds", "smoke"} <= set(written)
