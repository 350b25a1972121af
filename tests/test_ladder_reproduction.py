"""``vsae reproduce ladder``: toys, scores, rules, and a smoke run."""

import json
import math

import numpy as np
import pytest
import torch

from toys.manifolds import RingsCase
from toys.reproduce import ladder, ladder_scores
from toys.reproduce.flat_matched import Outcome
from toys.reproduce.ladder_arms import ARMS, OF_WORLD, STRUCTURED
from toys.reproduce.ladder_data import ARCS, CHILDREN, CLUSTERS, RINGS, world
from toys.reproduce.ladder_runs import LadderJob, build, toy
from toys.reproduce.ladder_settings import Settings, Sizes, settings
from toys.reproduce.ladder_tables import Results, all_tables
from toys.reproduce.ladder_verdicts import (
    COARSE,
    MATCHED,
    RULES,
    contrasts,
    findings,
    outcome_of,
    verdicts,
)
from toys.reproduce.tables import interval
from vsae.errors import VsaeError

TINY = Sizes(steps=6, batch=32, rows=200, held=200, levels=(12, 4), draws=20)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_rings_lie_on_their_circles():
    toy = RingsCase(rings=4, d_model=10, height=2.0, radius=0.5, rate=0.3, noise=0.0).build(
        generator()
    )
    batch = toy.sample(2000, generator(1))
    for ring in range(4):
        alone = batch.active[:, ring] & (batch.active.sum(1) == 1)
        expected = toy.points(ring, batch.angles[alone, ring])
        torch.testing.assert_close(batch.x[alone], expected)
        frame = torch.cat([toy.centres[ring][None], toy.planes[ring]])
        torch.testing.assert_close(frame @ frame.T, torch.eye(3))
        torch.testing.assert_close(expected.norm(dim=-1), torch.full((len(expected),), 4.25**0.5))
    assert not batch.x[~batch.active.any(1)].any()
    rate = batch.active.double().mean(0)
    assert ((rate - 0.3).abs() < 5 * (0.21 / 2000) ** 0.5).all()


def test_arcs_share_out_each_ring():
    toy = RingsCase(rings=3, d_model=8, rate=0.5).build(generator())
    batch = toy.sample(500, generator(1))
    arcs = toy.arcs(batch, 5).view(500, 3, 5)
    torch.testing.assert_close(arcs.sum(-1), batch.active.long())
    place = np.floor(batch.angles.numpy() / (2 * np.pi / 5)).astype(int)
    on = batch.active.numpy()
    assert (arcs.numpy().argmax(-1)[on] == place[on]).all()


@pytest.mark.parametrize(
    ("code", "given"),
    [
        ("toy.size", {"rings": 0, "d_model": 8}),
        ("toy.size", {"rings": 2, "d_model": 2}),
        ("toy.scale", {"rings": 2, "d_model": 8, "radius": 0.0}),
        ("toy.rate", {"rings": 2, "d_model": 8, "rate": 0.0}),
        ("toy.noise", {"rings": 2, "d_model": 8, "noise": -1.0}),
    ],
)
def test_impossible_rings_are_named(code, given):
    with pytest.raises(VsaeError) as raised:
        RingsCase(**given)
    assert raised.value.code == code


@pytest.mark.float32
@pytest.mark.parametrize("name", OF_WORLD)
def test_worlds_know_their_truth(name):
    found = world(name, 0, 300, 200)
    clusters, fine = (RINGS, ARCS) if name == "rings" else (CLUSTERS, CHILDREN)
    assert found.train.x.shape == (300, sum(found.layers))
    assert found.train.fine.shape == (300, clusters * fine)
    assert found.held.coarse.shape == (200, clusters)
    for part in (found.train, found.held):
        above = part.coarse[:, found.parents]
        assert not (part.fine & ~above).any()  # no fine feature without its cluster
    gap = found.concepts - found.offsets
    scale = gap[0].norm() / found.clusters[0].norm()
    torch.testing.assert_close(gap, scale * found.clusters[found.parents], atol=1e-5, rtol=1e-4)
    again = world(name, 0, 300, 200)
    assert torch.equal(found.train.x, again.train.x)
    assert not torch.equal(found.train.x, world(name, 1, 300, 200).train.x)


def test_recovery_is_one_for_the_truth_and_low_for_chance():
    truth = (torch.rand(2, 400, 6) < 0.2).unbind()
    codes = tuple(t.double()[:, [3, 1, 0, 2, 5, 4]] for t in truth)
    assert ladder_scores.recovery(codes, truth) == 1.0
    half = tuple(torch.cat([c[:, :3], torch.zeros(400, 3)], 1) for c in codes)
    assert ladder_scores.recovery(half, truth) == pytest.approx(0.5)
    noise = tuple((torch.rand(400, 6) < 0.2).double() for _ in truth)
    assert ladder_scores.recovery(noise, truth) < 0.35


def test_by_chance_perfect_codes_are_no_better_than_their_rates():
    found = world("clusters", 0, 200, 8_000)
    held = found.held
    codes = held.fine.double()
    halves = [
        type(held)(held.x[part], held.fine[part], held.coarse[part], None)
        for part in (slice(4_000), slice(4_000, None))
    ]
    got = ladder_scores.by_chance(
        [codes[:4_000], codes[4_000:]], found.offsets, found, halves, generator()
    )
    rate = float(codes.mean())  # F1 of a detector that fires at random as often as the feature does
    assert ladder_scores.recovery([codes[:4_000], codes[4_000:]], [h.fine for h in halves]) == 1.0
    assert got["fine_f1_chance"] == pytest.approx(rate, abs=0.02)
    assert got["fine_mcc_chance"] < 0.6


def test_directions_take_the_nearer_reading():
    offsets, concepts = torch.eye(3, 6), torch.eye(3, 6) + torch.eye(6)[3:]
    assert ladder_scores.directions(concepts.flip(0), offsets, concepts) == pytest.approx(1.0)
    assert ladder_scores.directions(concepts, offsets) == pytest.approx(0.5**0.5)
    assert ladder_scores.directions(offsets[:2], offsets, concepts) == pytest.approx(2 / 3)


def test_a_latent_goes_with_what_raises_it_most():
    above = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1], [1, 1]])
    codes = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 0], [0, 1, 0]])
    assert ladder_scores.lifted(codes, above).tolist() == [0, 1, -1]


def test_nested_blocks_are_found():
    cluster = torch.randint(4, (600,))
    coarse = torch.nn.functional.one_hot(cluster, 4).double()
    small = torch.randint(2, (600,))
    pair = torch.nn.functional.one_hot(2 * cluster + small, 8).double()
    fine = pair.repeat_interleave(3, 1) * (torch.rand(600, 24) < 0.8)
    found = ladder_scores.nested(fine, coarse, 8, generator(), 50)
    assert found["value"] == 1.0
    assert found["null_high"] < 0.5
    halves = (fine[:300], fine[300:])
    blocks = ladder_scores.blocks(halves, coarse[:300], generator(), 50)
    assert blocks["value"] > blocks["null_high"]
    assert ladder_scores.nested(torch.zeros(600, 24), coarse, 8, generator(), 50) is None


def test_tuning_is_a_mean_on_the_circle():
    found = world("rings", 0, 100, 4000).held
    angles = found.angles[:, 2]
    codes = torch.zeros(4000, 2)
    codes[:, 0] = (torch.cos(angles - 1.0) > 0.8) * found.coarse[:, 2]
    codes[:, 1] = found.coarse[:, 2]
    tuned = ladder_scores.tuning(codes, found)
    assert tuned["ring"].tolist() == [2, 2]
    assert float(tuned["angle"][0]) == pytest.approx(1.0, abs=0.1)
    assert tuned["sharpness"][0] > 0.85
    assert tuned["sharpness"][1] < 0.2


@pytest.mark.float32
@pytest.mark.parametrize("arm", ARMS)
def test_arms_have_as_many_latents_and_begin_at_the_same_rows(arm):
    name = next(w for w in OF_WORLD if arm in OF_WORLD[w])
    job = LadderJob(world=name, arm=arm, seeds=(0,), sizes=TINY)
    pair = build(job, 0, toy(name, 0, TINY))
    atoms = torch.nn.functional.normalize(pair.W_dec.detach(), dim=-1)
    assert len(atoms) == sum(TINY.levels)
    base = "crosscoder" if name == "layers" else "flat"
    flat = build(LadderJob(world=name, arm=base, seeds=(0,), sizes=TINY), 0, toy(name, 0, TINY))
    other = torch.nn.functional.normalize(flat.W_dec.detach(), dim=-1)
    torch.testing.assert_close(atoms[: TINY.levels[0]], other[: TINY.levels[0]])
    if arm in STRUCTURED:
        graph = pair.model.priors[0].gaussian.graph
        assert graph.num_nodes == TINY.levels[0]


@pytest.mark.float32
def test_a_stack_of_seeds_is_each_seed():
    for arm in ("additive-stopped", "flat"):
        both = LadderJob(world="clusters", arm=arm, seeds=(3, 4), sizes=TINY).compute()
        for seed, row in zip((3, 4), both.row["rows"], strict=True):
            alone = LadderJob(world="clusters", arm=arm, seeds=(seed,), sizes=TINY).compute()
            for key, value in alone.row["rows"][0].items():
                if isinstance(value, float) and key != "seconds":
                    assert row[key] == pytest.approx(value, rel=2e-2, abs=2e-2), key


def rows_of(coarse=0.8, l0=6.0, jitter=0.01):
    """Ladders hold clusters with F1 ``coarse``, flat SAEs with 0.7; a little by seed."""
    rows = []
    for name, arms in OF_WORLD.items():
        for arm in arms:
            for seed in range(3):
                shift = jitter * seed * (arm not in ("flat", "crosscoder"))
                levels = ARMS[arm].levels
                row = {"world": name, "arm": arm, "seed": seed, "ev": 0.8 + shift}
                row |= {"l0": l0 if levels else 6.0, "dead": 0.0, "fine_f1_any": 0.6}
                row |= {"coarse_f1_any": 0.7, "fine_r2": 0.5, "fine_r2_shuffled": 0.0}
                null = {"null_mean": 0.0, "null_low": -0.1, "null_high": 0.1, "draws": 20}
                row |= {"fine_blocks": null | {"value": 0.3}, "fine_coherence": null | {"value": 0}}
                if levels:
                    row |= {"coarse_f1": coarse + shift, "fine_f1": 0.6, "coarse_l0": 2.0}
                    row |= {"nested": null | {"value": 0.05}, "recruited": None}
                rows.append(row)
    return rows


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        ({"coarse": 0.9}, Outcome.BETTER),
        ({"coarse": 0.5}, Outcome.WORSE),
        ({"coarse": 0.701}, Outcome.UNDECIDED),
        ({"coarse": 0.9, "l0": 7.0}, Outcome.APART),
    ],
)
def test_verdicts_follow_from_the_rows(given, outcome):
    decided = verdicts(Results(Settings(), rows_of(**given)))
    found = {v.outcome for v in decided if v.question == COARSE}
    assert found == {outcome}


def test_an_interval_decides_only_at_one_l0():
    gain = interval([0.1, 0.11, 0.12])
    assert outcome_of(gain, MATCHED / 2) == Outcome.BETTER
    assert outcome_of(gain.negated(), MATCHED / 2) == Outcome.WORSE
    assert outcome_of(gain, 2 * MATCHED) == Outcome.APART
    assert outcome_of(interval([0.1]), 0.0) == Outcome.UNDECIDED
    assert outcome_of(None, 0.0) == Outcome.APART


def test_more_contrasts_widen_the_intervals():
    rows = rows_of(coarse=0.9)
    few, many = (
        next(v for v in verdicts(Results(Settings(worlds=worlds), rows)) if v.question == COARSE)
        for worlds in (("clusters",), ("clusters", "rings"))
    )
    assert many.gain.half_width > few.gain.half_width > 0


def test_findings_say_which_arms_show_structure():
    results = Results(Settings(), rows_of())
    said = findings(results, verdicts(results))
    blocks = next(s for s in said if s.startswith("**Blocks** (clusters)"))
    assert "above the null in every seed" in blocks
    assert "not of" not in blocks
    nested = next(s for s in said if s.startswith("**Nestedness** (rings)"))
    assert "of no arm" in nested
    assert not any("flat" in s for s in said if s.startswith("**Nestedness**"))


def test_every_question_has_a_rule_and_tables_every_arm():
    asked = {c.question for c in contrasts(Settings().worlds)}
    assert all(question in RULES for question in asked)
    results = Results(Settings(), rows_of())
    found = all_tables(results, verdicts(results))
    for name, arms in OF_WORLD.items():
        assert len(found[f"recovery_{name}"].rows) == len(found[f"levels_{name}"].rows) == len(arms)
    assert len(found["verdicts"].rows) == len(list(contrasts(Settings().worlds)))


def test_the_reported_run_has_seeds_enough():
    assert settings(smoke=False, seeds=None).seeds == (0, 1, 2, 3, 4)
    assert settings(smoke=True, seeds=2).seeds == (0, 1)


@pytest.mark.float32
def test_smoke_run_writes_everything_it_promises(tmp_path, capsys):
    out, state, threads = tmp_path / "ladder", torch.get_rng_state(), torch.get_num_threads()
    assert ladder.main(["--smoke", "--threads", "1", "--json", "--out", str(out)]) == 0
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    result = json.loads(capsys.readouterr().out)  # one object, nothing else
    assert result["ok"] is True
    text = (out / "ladder.md").read_text(encoding="utf-8")
    assert all(sentence in text for sentence in result["findings"])
    for stem, records in result["tables"].items():
        lines = (out / "tables" / f"{stem}.csv").read_text(encoding="utf-8").splitlines()
        assert len(lines) == len(records) + 1
        assert (out / "tables" / f"{stem}.md").read_text(encoding="utf-8").startswith("**")
    assert len(result["figures"]) == 5
    for path in result["figures"]:
        figure = out / "figures" / path.rsplit("/", 1)[-1]
        assert figure.read_bytes().startswith(b"\x89PNG")
        assert json.loads(figure.with_suffix(".json").read_text(encoding="utf-8"))
    written = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert {"settings", "versions", "wall_seconds", "smoke", "seeds"} <= set(written)
    assert math.isfinite(written["wall_seconds"])
    assert ladder.main(["--smoke", "--threads", "1", "--out", str(out)]) == 0  # from the folder
