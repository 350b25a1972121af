"""Known structure is told to the latents that stand for it, and to others as a control."""

from dataclasses import replace

import pytest
import torch
from torch import Generator

from priors import BernoulliPrior, SpikeSlabPrior, TreeGatesPrior, TruncatedNormalPrior
from toys.recovery_cases import RECOVERY_CASES
from toys.reproduce.recovery_data import Draw, Problem
from toys.reproduce.recovery_findings import RULE
from toys.reproduce.recovery_gates import (
    EARLY,
    FROM_L1,
    FROM_SLAB,
    GIVEN,
    EarlyGatesJob,
    LateGatesJob,
    gates_jobs,
    on_pairs,
    related,
    structure_found,
    tell,
    true,
    true_shuffled,
)
from toys.reproduce.recovery_gates_report import (
    draw_gates,
    gates_findings,
    gates_tables,
)
from toys.reproduce.recovery_results import Results
from toys.reproduce.recovery_runs import Part
from toys.reproduce.recovery_scores import plain, scores
from toys.reproduce.recovery_settings import Settings
from vsae import (
    AmortizedGuide,
    Autoencoder,
    FittedSpikeSlabPrior,
    FixedNoise,
    LinearDecoder,
    MeanFieldPosterior,
    RecoveryRecipe,
    SparseAutoencoder,
)

SHORT = RecoveryRecipe(l1_rows=512, slab_rows=512, final_rows=256, batch_size=128, moves=2)


def problem_of(case, rows=2_000):
    return Problem(Draw(case=case, generator=0, rows=rows, test=4_000))


def pair_of(found, order):
    """Its atoms are features in another order."""
    atoms = found.toy.dictionary[order]
    decoder = LinearDecoder(*atoms.shape)
    with torch.no_grad():
        decoder.W_dec.copy_(atoms)
        decoder.b_dec.copy_(-found.normalizer.mean / found.normalizer.scale)
    size = 1 / float(found.normalizer.scale)
    slab = TruncatedNormalPrior(len(atoms), loc=size, scale=0.25 * size)
    prior = FittedSpikeSlabPrior(SpikeSlabPrior(BernoulliPrior(len(atoms), rate=0.05), slab))
    noise = FixedNoise(0.05 * size)  # the copulas' own
    guide = MeanFieldPosterior(decoder, prior, noise, iterations=20)
    model = SparseAutoencoder(decoder, prior, noise=noise)
    return Autoencoder(model, AmortizedGuide(guide), found.normalizer)


def told(found, order, structure=true):
    gates = structure(found, SHORT)(pair_of(found, order))
    return torch.from_numpy(gates.couplings.adjacency().toarray())


@pytest.mark.parametrize(("case", "sign"), [("copula-blocks", 1.0), ("copula-pairs", -1.0)])
def test_couplings_are_those_of_the_features_that_latents_stand_for(case, sign):
    found = problem_of(case)
    order = torch.randperm(64, generator=Generator().manual_seed(2))
    couplings = told(found, order)
    plainly = told(found, torch.arange(64))
    torch.testing.assert_close(couplings, plainly[order][:, order])
    kind = {1.0: "together", -1.0: "exclusive"}[sign]
    tied = related(found)[kind]
    assert torch.equal(plainly * sign > 0, tied)  # all of them, of the right sign
    assert not bool((plainly * sign < 0).any())
    fires = found.codes > 0
    i, j = tied.nonzero()[0].tolist()
    both = float((fires[:, i] & fires[:, j]).sum())
    alone = float(fires[:, i].sum()) * float(fires[:, j].sum()) / len(fires)
    lift = torch.tensor((both + 0.5) / (alone + 0.5)).log().clamp(-3, 3)
    assert float(plainly[i, j]) == pytest.approx(0.7 * float(lift), rel=1e-6)


def test_latents_that_stand_for_nothing_are_told_nothing():
    found = problem_of("copula-blocks")
    pair = pair_of(found, torch.arange(64))
    with torch.no_grad():  # between all features
        pair.model.decoder.W_dec[0] = torch.nn.functional.normalize(
            found.toy.dictionary[20:].sum(0), dim=-1
        )
    adjacency = torch.from_numpy(
        on_pairs(found, pair, torch.arange(64)).couplings.adjacency().toarray()
    )
    assert not adjacency[0].any()
    assert adjacency[1].any()


def test_the_control_has_as_much_structure_of_other_latents():
    found, order = problem_of("copula-blocks"), torch.arange(64)
    right, wrong = told(found, order), told(found, order, true_shuffled)
    torch.testing.assert_close(right.flatten().sort().values, wrong.flatten().sort().values)
    hits = ((right != 0) & (wrong != 0)).sum() / (right != 0).sum()
    assert float(hits) < 0.3
    trees = problem_of("tree-2-exclusive")
    pair = pair_of(trees, torch.arange(len(trees.toy.dictionary)))
    right, wrong = (s(trees, SHORT)(pair) for s in (true, true_shuffled))
    assert isinstance(right, TreeGatesPrior)
    torch.testing.assert_close(right.parents, trees.parents)
    assert (wrong.parents >= 0).sum() == (right.parents >= 0).sum()
    assert float((wrong.parents == right.parents).double().mean()) < 0.6


def test_gates_are_exchanged_at_the_same_rates():
    found = problem_of("copula-blocks")
    pair = pair_of(found, torch.arange(64))
    rates = torch.linspace(0.01, 0.2, 64)
    prior = pair.model.prior.prior
    prior.gates.match(rates)
    tell(pair, None)
    assert isinstance(prior.gates, BernoulliPrior)
    tell(pair, true(found, SHORT))
    assert prior.gates.couplings.num_edges == 16 * 6
    torch.testing.assert_close(prior.gates.logits.sigmoid(), rates)


def test_edges_and_blocks_of_true_firings_are_the_true_ones():
    found, order = problem_of("copula-blocks"), torch.randperm(64)
    codes = found.truth.strengths[:, order]
    seen = plain(structure_found(found, pair_of(found, order), codes))
    assert seen["edges"]["together"]["recall"] == 1.0
    assert seen["edges"]["together"]["precision"] == 1.0
    assert seen["edges"]["exclusive"]["recall"] is None  # there are none
    assert seen["blocks"] == 1.0


@pytest.mark.float32
@pytest.mark.parametrize("kind", [EarlyGatesJob, LateGatesJob])
def test_jobs_train_every_structure_from_the_same_start(kind):
    where = Draw(case="copula-blocks", generator=0, rows=2_048, test=256)
    row = kind(draw=where, latents=64, recipe=SHORT).compute().row
    assert row["failed"] is None
    named = {model["structure"]: model for model in row["models"]}
    assert list(named) == list(EARLY if kind is EarlyGatesJob else GIVEN)
    if kind is EarlyGatesJob:  # without structure: the recipe itself, nothing leaks from one to all
        found = Problem(where)
        still = replace(SHORT, moves=0)
        pair = still.train(found.train, latents=64, seed=0, progress=False)
        assert scores(found, pair)["mcc"] == named["none"]["mcc"]
    assert len({named[name]["mcc"] for name in GIVEN}) == len(GIVEN)


def test_the_plan_is_of_known_structure_and_reported_seeds():
    chosen = Settings()
    planned = list(gates_jobs(chosen))
    assert len(planned) == 2 * len(chosen.gated) * len(chosen.seeds)
    assert {job.draw.generator for job in planned} == set(chosen.seeds)
    assert {RECOVERY_CASES[job.draw.case].family for job in planned} == {"copula", "trees"}
    assert {job.start for job in planned} == {FROM_L1, FROM_SLAB}
    for case in chosen.gated:
        assert any(bool(pairs.any()) for pairs in related(problem_of(case, rows=10)).values())


def made_up(gain):
    """True structure gains so much F1 over all else from ℓ1, nothing from the slab."""
    rows = []
    for seed in (1, 2, 3):
        for start, names in ((FROM_L1, EARLY), (FROM_SLAB, GIVEN)):
            models = []
            for name in names:
                better = gain if (name, start) == ("true", FROM_L1) else 0.0
                edges = {k: {"precision": 0.5, "recall": None} for k in ("together", "exclusive")}
                models.append(
                    {"structure": name, "mcc": 0.9, "share": 0.8, "l0": 3.0, "blocks": 0.7}
                    | {"f1": 0.8 + better + 0.001 * seed * (better > 0), "edges": edges}
                )
            rows.append(
                {"case": "copula-blocks", "seed": seed, "start": start, "failed": None}
                | {"models": models, "seconds": 1.0, "arm": "gates"}
            )
    rows.append({"case": "copula-blocks", "seed": 4, "start": FROM_L1, "failed": "not finite"})
    return Results(Settings(), {"gates": Part((), {}, rows)})


def test_findings_are_differences_to_none_and_to_the_control(tmp_path):
    rule, *said = gates_findings(made_up(0.1))
    assert rule == RULE
    assert len(said) == 2 + 2 + 2  # true and learned from ℓ1, true from the slab
    first = [text for text in said if text.startswith("copula-blocks, from ℓ1, true against")]
    assert len(first) == 2
    assert all("f1 better (0.102" in text for text in first)
    assert not any("better" in text for text in said if text not in first)
    (table,) = gates_tables(made_up(0.1)).values()
    lines = [dict(line) for line in table.rows]
    assert len(lines) == len(EARLY) + len(GIVEN)
    assert all(line["seeds"] == 3 for line in lines)
    (line,) = [x for x in lines if (x["structure"], x["told"]) == ("true", FROM_L1)]
    assert line["F1 − none"].mean == pytest.approx(0.102)
    (picture,) = draw_gates(made_up(0.1), tmp_path)
    assert picture.stat().st_size > 1_000


def test_nothing_is_told_where_nothing_ran(tmp_path):
    empty = Results(Settings(), {"gates": Part((), {}, [])})
    assert list(gates_findings(empty)) == [RULE]
    assert not gates_tables(empty)["gates"].rows
    assert draw_gates(empty, tmp_path)
