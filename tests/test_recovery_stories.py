"""The stories' part of ``vsae reproduce recovery``: refitting, laws, evidence, stability, bars."""

import math
from dataclasses import replace

import pytest
import torch
from iterative_pairs import slab_pair
from scipy.integrate import quad
from scipy.optimize import nnls
from scipy.stats import norm
from test_recovery_reproduction import Normal
from torch import Generator

from priors import ExponentialPrior
from toys.reproduce.recovery_laws import LAWS, Slab, evidence, moments, posterior_of
from toys.reproduce.recovery_laws import slab_pair as law_pair
from toys.reproduce.recovery_recommended import RECOMMENDED, StoriesRecommendedJob
from toys.reproduce.recovery_refit import refitted
from toys.reproduce.recovery_results import Results
from toys.reproduce.recovery_runs import Part
from toys.reproduce.recovery_settings import Settings
from toys.reproduce.recovery_stories import (
    DATA,
    RANDOM,
    StoriesFieldJob,
    StoriesRecipeJob,
    begin_at,
    data_points,
)
from toys.reproduce.recovery_story_bars import _preferred, story_bars, story_findings
from toys.reproduce.recovery_story_tables import (
    Line,
    common_table,
    curves,
    lengths_table,
    stability_at,
)
from toys.reproduce.recovery_text import Reading, text
from toys.reproduce.tables import Interval, interval
from vsae import FixedNoise, RelaxedFISTAPosterior
from vsae.recipes import RecoveryRecipe, SparseCodingRecipe

TINY = Reading(layer=2, stories=10)


def test_refitting_is_non_negative_least_squares_on_the_support():
    generator = Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(12, 6, generator=generator), dim=-1)
    codes = torch.randn(20, 12, generator=generator).relu()
    x = torch.randn(20, 6, generator=generator)
    found = refitted(x, codes, atoms, 4)
    for row, code, z in zip(x, codes, found, strict=True):
        support = code.topk(4).indices[code.topk(4).values > 0]
        exact, _ = nnls(atoms[support].T.numpy(), row.numpy())
        assert z.count_nonzero() <= len(support)
        torch.testing.assert_close(z[support], torch.from_numpy(exact), atol=2e-3, rtol=0)
    assert not found[codes == 0].any()


def test_refitting_is_what_the_librarys_guide_does():
    pair = slab_pair(torch.randn(12, 6, generator=Generator().manual_seed(0)))
    decoder, noise = pair.model.decoder, FixedNoise(1.0)
    guide = RelaxedFISTAPosterior(
        decoder, ExponentialPrior(12, scale=2.0), noise, k=3, iterations=400
    )
    x = torch.randn(9, 6)
    with torch.no_grad():
        codes = guide.solve(x)
        torch.testing.assert_close(
            refitted(x, codes, decoder.W_dec, 3), guide(x)["z"].mean, atol=1e-3, rtol=0
        )


@pytest.mark.float32
def test_what_is_restored_is_given_to_the_network_in_its_own_order():
    found = text(TINY)
    whole, nothing = found.worth(found.test), found.worth(found.train.mean(0).expand_as(found.test))
    assert whole["ev"] == pytest.approx(1)
    assert whole["ce_recovered"] == pytest.approx(1, abs=1e-6)
    assert nothing["ce_recovered"] == pytest.approx(0, abs=1e-6)
    assert found.worth(found.test.roll(1, 0))["ce_recovered"] < 0.9


def bound(pair, train, test):
    return evidence(pair, posterior_of(pair, train), posterior_of(pair, test))


def test_evidence_is_exact_where_mean_field_is():
    """Orthonormal atoms: the posterior factorises, and at its own noise the bound is tight."""
    torch.manual_seed(0)
    atoms, rate, loc, scale = torch.eye(2), 0.3, 1.0, 0.2
    gates = (torch.rand(20_000, 2) < rate).to(atoms.dtype)
    x = gates * (loc + scale * torch.randn(20_000, 2)) + 0.1 * torch.randn(20_000, 2)
    sigma = 0.1
    for _ in range(8):  # to the noise that is its own best
        pair = slab_pair(atoms, rate=rate, loc=loc, scale=scale, noise=sigma, normalizer=Normal(2))
        sigma = bound(pair, x, x[:10])["sigma"]
    assert sigma == pytest.approx(0.1, rel=0.03)
    rows = x[-40:]
    mass = norm.cdf(loc / scale)

    def density(value):
        def joint(a):
            return norm.pdf(value, a, sigma) * norm.pdf(a, loc, scale) / mass

        return (1 - rate) * norm.pdf(value, 0, sigma) + rate * quad(joint, 0, 4, limit=200)[0]

    exact = sum(math.log(density(float(v))) for v in rows.flatten()) / len(rows)
    assert bound(pair, x, rows)["evidence"] == pytest.approx(exact, abs=2e-3)
    vague = slab_pair(atoms, rate=0.5, loc=loc, scale=1.0, noise=sigma, normalizer=Normal(2))
    assert bound(vague, x, rows)["evidence"] < exact  # another prior, the same bound


@pytest.mark.float32
@pytest.mark.parametrize("law", LAWS)
def test_a_law_begins_at_the_moments_of_the_code(law):
    found = text(TINY)
    recipe = RecoveryRecipe(l1_rows=512, slab_rows=0)
    pair = next(recipe.phases(found.train, latents=32)).autoencoder
    rate, first, second = moments(pair, found.train)
    slab = Slab(law=law, noise=0.2, shape=1.0, rows=256, batch=64, lr=0.01)
    made = law_pair(pair, (rate, first, second), slab)
    prior = made.model.prior()
    torch.testing.assert_close(prior.gates.mean, rate)
    if law == "exponential":
        torch.testing.assert_close(prior.slab.mean, first)
    if law == "half-normal":
        torch.testing.assert_close(prior.slab.variance + prior.slab.mean**2, second)
    assert made.model.decoder is not pair.model.decoder
    assert torch.equal(made.W_dec, pair.W_dec)


@pytest.mark.float32
def test_all_arms_of_a_seed_start_at_the_same_data_points():
    found = text(TINY)
    field = StoriesFieldJob(
        reading=TINY,
        arm="matryoshka",
        k=3,
        start=DATA,
        latents=64,
        lr=1e-3,
        seen=64,
        batch=64,
        seed=4,
    )
    ours = RecoveryRecipe(l1_rows=256).l1_phase(found.train, latents=64, seed=4).autoencoder
    pair = field.build(found)
    torch.testing.assert_close(pair.W_dec, ours.W_dec)
    encoder = pair.guide.posterior.encoder
    torch.testing.assert_close(encoder.W_enc, ours.W_dec)
    assert not torch.allclose(data_points(found, 64, 5), ours.W_dec)
    begin_at(ours, torch.eye(64))
    assert torch.equal(ours.W_dec, torch.eye(64))


# Verdicts


def made_up(*, ours=0.97, again=0.7, nats=()):
    """BatchTopK explains 0.9 at every L0; ours ``ours``; evidence of laws higher by so much."""
    chosen, rows = Settings(), []
    for layer in chosen.layers:
        for seed in chosen.readers:
            base = {"layer": layer, "seed": seed, "failed": None, "dead": 0.0, "law": None}
            base |= {"tensor": "atoms", "file": "", "cached": True, "seconds": 1.0}
            base |= {"length": 1.0, "seen": 1000}
            spots = [
                {"how": "as it is", "l0": l0, "ev": 0.9, "ce_recovered": 0.9, "k": None}
                for l0 in (6.0, 24.0)
            ]
            for start in (DATA, RANDOM):
                lower = [spot | {"ev": 0.9 if start == DATA else 0.8} for spot in spots]
                for k, spot in zip(chosen.field_ks, lower, strict=True):
                    row = {"arm": "batch_topk", "start": start, "strength": float(k)}
                    rows.append(base | row | {"points": [spot]})
            for k, spot in zip(chosen.recommended_ks, spots, strict=True):
                row = {"arm": RECOMMENDED, "start": DATA, "strength": float(k)}
                own = spot | {"ev": ours, "ce_recovered": 0.95}
                rows.append(base | row | {"points": [own]})
                rows.append(base | row | {"points": [own | {"ev": 0.99}], "length": 3.0})
            slabs = [
                base
                | {"arm": "ours-slab", "start": DATA, "strength": noise, "law": law}
                | {"l0": spots[n]["l0"], "ev": ours, "sigma": 0.2}
                | {"evidence": -1.0 + 0.01 * seed + dict(nats).get(law, 0.0)}
                for law in LAWS
                for n, noise in enumerate(chosen.noises)
            ]
            first = {"arm": "ours-l1", "start": DATA, "strength": chosen.end, "slabs": slabs}
            rows.append(base | first | {"points": [spots[0]]})
    results = Results(chosen, {"stories": Part((), {}, rows)})
    stable = [
        {"line": line, "l0": interval([l0, l0]), "best": again, "control": 0.3}
        for line in curves(results)
        if "ours" in line.name
        for l0 in (6.0, 24.0)
    ]
    return results, stable


@pytest.mark.parametrize(
    ("changes", "met"),
    [
        ({}, [True, True, True]),
        ({"ours": 0.93}, [False, True, True]),
        ({"again": 0.4}, [True, True, False]),
        ({"ours": 0.9401}, [True, True, True]),
    ],
)
def test_bars_are_met_on_every_layer_or_not(changes, met):
    """0.6 of 0.1 unexplained is 0.06."""
    results, stable = made_up(**changes)
    bars = story_bars(results, stable)
    assert [bar.met for bar in bars] == met
    assert [bar.found.startswith("5 of 5 layers") for bar in bars] == met
    assert bars[0].found.count("random data points 0.3") == 5  # the control, beside the share


@pytest.mark.parametrize(
    ("nats", "said"),
    [
        ({}, "undecided"),
        ({"exponential": 0.5}, "exponential preferred"),
        (
            {"exponential": 0.5, "half-normal": 0.5},
            "undecided between half-normal and exponential; behind: truncated normal",
        ),
        ({"exponential": -0.1, "half-normal": 0.2}, "half-normal preferred"),
    ],
)
def test_laws_are_preferred_where_the_interval_leaves_out_zero(nats, said):
    """The seeds of a law differ by .01, alike: every difference above 0 is decided."""
    sentences = list(story_findings(made_up(nats=nats)[0]))
    assert len(sentences) == 5
    assert all(f": {said} (" in sentence for sentence in sentences)


def test_laws_that_are_not_there_or_run_in_circles_decide_nothing():
    above, open_ = Interval(1.0, 0.1, 3), Interval(1.0, 2.0, 3)
    a, b, c = LAWS
    chain = {(a, b): above, (b, c): above, (a, c): open_}
    assert (
        _preferred(chain | {(y, x): gap.negated() for (x, y), gap in chain.items()}) == "undecided"
    )
    circle = {(a, b): above, (b, c): above, (c, a): above}
    assert _preferred(circle) == "undecided"
    two = {(a, b): above, (b, a): above.negated(), (a, c): None, (c, b): None}
    assert _preferred(two) == f"{a} preferred"
    assert _preferred(dict.fromkeys(two)) == "undecided"


def test_curves_are_compared_where_they_reach():
    results, stable = made_up()
    row = next(r for r in common_table(results).rows if r["arm"] == "ours, recommended")
    assert row["EV, L0 12"].mean == pytest.approx(0.97)
    assert row["EV, L0 6"].mean == pytest.approx(0.97)
    assert row["seeds"] == Settings().story_seeds
    line = Line(1, "ours, recommended", DATA)
    assert stability_at(stable, line, 12.0) == pytest.approx(0.7)
    assert stability_at(stable, line, 40.0) is None


def test_other_lengths_are_compared_apart():
    """They are in their own table, and in no curve."""
    results, _ = made_up()
    longer = [line for line in lengths_table(results, 12.0).rows if "recommended" in line["arm"]]
    assert [line["EV, L0 12"].mean for line in longer] == pytest.approx([0.97, 0.99])
    ours = curves(results)[Line(3, "ours, recommended", DATA)]
    assert {point["ev"] for point in ours} == {0.97}


@pytest.mark.float32
def test_the_recommended_job_is_the_recipe():
    recipe = SparseCodingRecipe(k=3, l1_rows=512, relaxed_rows=256, batch_size=128)
    job = StoriesRecommendedJob(reading=TINY, recipe=recipe, latents=32, seed=1)
    torch.manual_seed(5)
    found = job.compute()
    pair = recipe.train(text(TINY).train, latents=32, seed=1, progress=False)
    assert torch.equal(found.tensors["atoms"], pair.W_dec)
    (spot,) = found.row["points"]
    assert 0 < spot["l0"] <= 3
    assert found.row["seen"] == 768
    assert replace(job, length=2.0).longer().l1_rows == 1024


@pytest.mark.float32
def test_a_job_is_a_pure_function_of_its_fields():
    job = StoriesRecipeJob(
        reading=TINY,
        recipe=RecoveryRecipe(l1_rows=512, slab_rows=0, batch_size=128),
        start=RANDOM,
        latents=32,
        ks=(3,),
        slabs=(Slab(law="exponential", noise=0.3, shape=1.0, rows=256, batch=128, lr=0.01),),
        seed=1,
    )
    torch.manual_seed(5)
    one = job.compute()
    torch.manual_seed(6)
    two = job.compute()
    assert torch.equal(one.tensors["atoms"], two.tensors["atoms"])
    assert one.row["points"] == two.row["points"]
    assert one.row["slabs"][0]["evidence"] == two.row["slabs"][0]["evidence"]
    assert set(one.tensors) == {"atoms", "exponential, 0.3"}
