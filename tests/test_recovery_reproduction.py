"""``vsae reproduce recovery``: scores against planted truth, jobs that are kept, rules, one run."""

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from iterative_pairs import slab_pair
from torch import Generator
from tqdm import tqdm

from toys.copula import CopulaCase, LatentCorrelation
from toys.correlation import Independent
from toys.directions import OrthonormalDirections
from toys.magnitudes import PositiveNormal
from toys.recovery_cases import CHOOSING, RECOVERY_CASES, RecoveryCase
from toys.reproduce import recovery, recovery_ablations, recovery_ceiling, recovery_plan
from toys.reproduce.jobs import Found, Job, fetch, fetch_all, tensors_of
from toys.reproduce.quickstart_structure import prior_covariance
from toys.reproduce.recovery_arms import ARMS, fixed_covariance, rates_and_sizes
from toys.reproduce.recovery_bars import cost, ratio, recovered, structure
from toys.reproduce.recovery_bars import families as family_bars
from toys.reproduce.recovery_calibration import calibration
from toys.reproduce.recovery_ceiling import CeilingJob
from toys.reproduce.recovery_data import Draw, Problem, ancestors, exclusions, groups
from toys.reproduce.recovery_findings import on_data_a, on_families
from toys.reproduce.recovery_plan import best, families, plain_slab
from toys.reproduce.recovery_prune import pruned
from toys.reproduce.recovery_results import PRUNED, Results, label
from toys.reproduce.recovery_runs import PLANS, Part, count, jobs, searches
from toys.reproduce.recovery_scores import Codes, by_level, quality, scores
from toys.reproduce.recovery_settings import PARTS, Settings, settings
from toys.reproduce.recovery_story_plan import best_rates
from toys.reproduce.recovery_structure import (
    STRUCTURES,
    above_chance,
    coupled,
    parents_of_latents,
)
from toys.reproduce.recovery_synthetic import FieldJob, RecipeJob
from toys.reproduce.recovery_truth import Directions, Subspaces
from toys.synth import DATA_A
from toys.synth_subspaces import SubspaceCase
from vsae import (
    metrics,
)
from vsae.normalizers import AffineNormalizer

PARENTS = torch.tensor([-1, -1, 0, 0, 2, -1])


class Normal(AffineNormalizer):
    """Raw units, with the numbers that a normaliser has."""

    def __init__(self, d_model):
        super().__init__(torch.zeros(d_model), 1.0)


# Jobs and their folder


@dataclass(frozen=True, kw_only=True)
class Counted(Job):
    number: int
    calls = []  # not a field

    def compute(self):
        self.calls.append(self.number)
        if self.number < 0:
            raise RuntimeError("interrupted")
        return Found({"square": self.number**2, "seconds": 0.0}, {"atoms": torch.ones(2) * 3})


def test_a_job_is_computed_once_and_found_again(tmp_path):
    Counted.calls.clear()
    first = fetch(Counted(number=3), tmp_path)
    again = fetch(Counted(number=3), tmp_path)
    assert Counted.calls == [3]
    assert (first["cached"], again["cached"]) == (False, True)
    assert {k: v for k, v in first.items() if k != "cached"} == {
        k: v for k, v in again.items() if k != "cached"
    }
    assert torch.equal(tensors_of(again)["atoms"], torch.ones(2) * 3)
    fetch(Counted(number=4), tmp_path)
    assert Counted.calls == [3, 4]


def test_an_interrupted_job_leaves_nothing_to_be_found(tmp_path):
    with pytest.raises(RuntimeError):
        fetch(Counted(number=-1), tmp_path)
    assert not list(tmp_path.glob("*.json"))


def test_every_field_is_part_of_a_jobs_name():
    job = plain_slab("data-a", 1, Settings())
    others = [
        replace(job, latents=511),
        replace(job, recipe=replace(job.recipe, damping=0.31)),
        replace(job, draw=replace(job.draw, generator=2)),
        replace(job, structure="learned"),
    ]
    assert len({job.name, *(other.name for other in others)}) == 5


def test_equal_jobs_of_two_parts_are_one(tmp_path):
    Counted.calls.clear()

    with tqdm(disable=True) as bar:
        rows = fetch_all([Counted(number=n) for n in (5, 6, 5)], tmp_path, 1, bar)
        again = fetch_all([Counted(number=n) for n in (6, 7)], tmp_path, 1, bar)
    assert [rows[Counted(number=n)]["square"] for n in (5, 6)] == [25, 36]
    assert [again[Counted(number=n)]["cached"] for n in (6, 7)] == [True, False]
    assert Counted.calls == [5, 6, 7]


# Scores against planted truth


def test_groups_and_relations_of_a_forest():
    assert {n: g.nonzero().flatten().tolist() for n, g in groups(PARENTS).items()} == {
        "untied": [1, 5],
        "root": [0],
        "depth 1": [2, 3],
        "depth 2": [4],
    }
    assert ancestors(PARENTS).triu().nonzero().tolist() == [[0, 2], [0, 3], [0, 4], [2, 4]]
    assert exclusions(PARENTS).triu().nonzero().tolist() == [[2, 3], [3, 4]]


@pytest.mark.float32
def test_relations_are_those_of_the_codes():
    """Of Data A: excluding pairs never fire together, a feature's ancestors always do."""
    toy = DATA_A.build(Generator().manual_seed(1))
    fires = (toy.sample(20_000, Generator().manual_seed(2)).codes > 0).float()
    together = fires.mT @ fires
    assert together[exclusions(toy.parents)].max() == 0
    child = (toy.parents >= 0).nonzero().flatten()
    both = together[child, toy.parents[child]]
    assert torch.equal(both, together[child, child])
    weights = torch.from_numpy(coupled(fires).adjacency().toarray())
    found = metrics.edge_recovery(weights.clamp(min=0), ancestors(toy.parents))
    assert found.precision > 0.9
    assert above_chance(found.__dict__)
    renamed = torch.randperm(512, generator=Generator().manual_seed(3))
    lost = metrics.edge_recovery(weights[renamed][:, renamed], ancestors(toy.parents))
    assert not above_chance(lost.__dict__)


def test_the_truth_scores_one_and_random_atoms_what_chance_says():
    problem = Problem(Draw(case="copula-pairs", generator=1, rows=500, test=2000))
    truth = problem.truth
    found = quality(truth, truth.dictionary, truth.strengths)
    assert found["mcc"] == pytest.approx(1)
    assert found["share"] == found["f1"] == found["precision"] == found["recall"] == 1
    assert found["l0"] == pytest.approx(problem.l0)
    random = torch.randn(64, 32, generator=Generator().manual_seed(9))
    assert truth.mcc(random) == pytest.approx(truth.chance(64, 32), abs=0.03)


def test_the_truth_is_the_ceiling_of_what_drops_firings():
    """By hand: its smallest firings dropped, and its features of most energy alone."""
    draw = Draw(case="tree-2-exclusive", generator=1, rows=300, test=1500)
    row = CeilingJob(draw=draw, keep=10).compute().row
    problem = Problem(draw)
    codes = problem.truth.strengths
    assert row["mcc"] == pytest.approx(1)
    assert row["f1"] == row["share"] == 1
    assert row["l0"] == pytest.approx(problem.l0)
    power = [(float((column**2).mean()), k) for k, column in enumerate(codes.mT)]
    kept = [k for _, k in sorted(power)[-10:]]
    few = row["pruned"]
    assert few["l0"] == pytest.approx(float((codes[:, kept] > 0).sum(1).double().mean()))
    assert few["f1"] == 1
    assert few["latents"] == 10
    assert few["share"] == pytest.approx(10 / codes.shape[1])
    assert "f1_silenced" not in row  # fewer than 5 fire


def test_silencing_the_most_frequent_features_costs_the_least_of_a_mean_over_latents(monkeypatch):
    monkeypatch.setattr(recovery_ceiling, "TRIMMED", 1.0)
    draw = Draw(case="tree-2-exclusive", generator=1, rows=300, test=1500)
    row, truth = CeilingJob(draw=draw, keep=10).compute().row, Problem(draw).truth
    fires = truth.strengths > 0
    left = fires.clone()
    for k in fires.sum(0).argsort(descending=True).tolist():
        if int(left.sum()) - int(fires[:, k].sum()) < len(fires):
            break
        left[:, k] = False
    found = truth.classification(truth.dictionary, left.double()).f1
    assert row["f1_silenced"] == pytest.approx(found, abs=0.02)  # the last is silenced in part


def test_lines_are_scored_alike_as_directions_and_as_subspaces():
    toy = SubspaceCase(dimensions=(1,) * 6, rate=0.3, d_model=8).build(Generator().manual_seed(0))
    _, strengths = toy.sample(300, Generator().manual_seed(1))
    atoms = torch.randn(9, 8, generator=Generator().manual_seed(2))
    codes = torch.randn(300, 9, generator=Generator().manual_seed(3)).relu()
    lines, spaces = Directions(toy.dictionary, strengths), Subspaces(toy, strengths)
    one, two = (quality(truth, atoms, codes) for truth in (lines, spaces))
    assert one == pytest.approx(two)
    assert lines.uniqueness(atoms) == spaces.uniqueness(atoms)


def test_an_atom_inside_a_subspace_finds_the_concept():
    toy = SubspaceCase(dimensions=(3, 1), d_model=8).build(Generator().manual_seed(0))
    _, codes = toy.sample(100, Generator().manual_seed(1))
    atom = torch.tensor([1.0, -2.0, 0.5]) @ toy.dictionary[:3]
    assert Subspaces(toy, codes).share(torch.stack([atom, -atom])) == 0.5


def test_levels_find_the_features_that_were_spoiled():
    problem = Problem(Draw(case="tree-2-exclusive", generator=1, rows=300, test=1500))
    atoms = problem.toy.dictionary.clone()
    leaves = problem.groups["depth 2"]
    atoms[leaves] = torch.randn(int(leaves.sum()), 32, generator=Generator().manual_seed(0))
    found = by_level(problem, atoms, problem.truth.strengths)
    assert found["root"]["share"] == found["depth 1"]["share"] == found["root"]["f1"] == 1
    assert found["depth 2"]["share"] < 0.05
    assert sum(level["features"] for level in found.values()) == len(atoms)


def test_trimming_keeps_the_surest():
    values = torch.tensor([[3.0, 0.0, 1.0], [0.0, 2.0, 4.0]])
    confidence = torch.tensor([[0.1, 9.0, 0.3], [9.0, 0.2, 0.4]])  # of zeros it does not count
    codes = Codes(values, torch.where(values != 0, confidence, -1.0))
    assert codes.trimmed(1.0).tolist() == [[0, 0, 1.0], [0, 0, 4.0]]
    assert torch.equal(codes.trimmed(2.0), values)
    assert codes.trimmed(2.5) is None


def test_where_mean_field_is_exact_it_is_calibrated(monkeypatch):
    """Orthonormal atoms and the law of the data: intervals cover as often as they say."""
    case = CopulaCase(
        dependence=LatentCorrelation(structure=Independent(size=16)),
        rate=0.2,
        magnitude=PositiveNormal(loc=1.0, scale=0.25),
        directions=OrthonormalDirections(),
        d_model=16,
        noise=0.05,
    )
    monkeypatch.setitem(RECOVERY_CASES, "exact", RecoveryCase(family="copula", case=case))
    problem = Problem(Draw(case="exact", generator=1, rows=2000, test=4000))
    pair = slab_pair(problem.toy.dictionary, rate=0.2, normalizer=Normal(16))
    assert scores(problem, pair)["f1"] > 0.999
    said = calibration(problem, pair)
    assert said["matched"] == 16
    assert said["reliability"]["error"] < 2 * said["reliability"]["error_bound"]
    held = said["intervals"]
    for level, low, high in zip(held["levels"], held["lower"], held["upper"], strict=True):
        assert low - 0.01 < level < high + 0.01
    sure = slab_pair(problem.toy.dictionary, rate=0.2, scale=0.02, normalizer=Normal(16))
    assert calibration(problem, sure)["intervals"]["coverage"][2] < 0.5  # surer than sizes are


def test_a_true_dictionary_infers_the_truth():
    """In superposition, too: above the bar of trained ones."""
    problem = Problem(Draw(case="copula-independent", generator=1, rows=2000, test=2000))
    pair = slab_pair(problem.toy.dictionary, normalizer=Normal(32))
    found = scores(problem, pair)
    assert found["f1"] > 0.95
    assert found["share"] == found["uniqueness"] == 1
    assert found["f1_trimmed"] is None  # fewer than 5 fire
    assert found["ev"] > 0.95


def test_pruning_keeps_what_carries_most():
    pair = slab_pair(torch.randn(6, 4), rate=0.2)
    prior = pair.model.prior
    with torch.no_grad():
        prior.gates.match(torch.tensor([0.1, 0.3, 0.2, 0.05, 0.3, 0.1]))
        prior.slab.loc.copy_(torch.tensor([1.0, 1.0, 3.0, 1.0, 0.1, 5.0]))
    smaller = pruned(pair, 3)
    assert torch.equal(smaller.W_dec, pair.W_dec[[1, 2, 5]])
    x = torch.randn(7, 4)
    one, two = pruned(pair, 6).posterior(x)["z"], pair.posterior(x)["z"]
    torch.testing.assert_close(one.probability, two.probability)
    torch.testing.assert_close(one.mean, two.mean)


# Structure and priors


def test_true_parents_follow_the_matching():
    features = torch.eye(6)
    order = torch.tensor([4, 2, 0, 5, 1, 3])  # latent k is the feature order[k]
    place = order.argsort()
    expected = torch.full((6,), -1)
    for child, parent in enumerate(PARENTS.tolist()):
        if parent >= 0:
            expected[place[child]] = place[parent]
    assert torch.equal(parents_of_latents(features[order], features, PARENTS), expected)
    lost = features[order].clone()
    lost[place[2]] = torch.ones(6)  # nobody stands for feature 2, the parent of 4
    found = parents_of_latents(lost, features, PARENTS)
    assert found[place[4]] == -1
    assert found[place[3]] == place[0]


@pytest.mark.float32
def test_structures_are_priors_of_as_many_gates():
    problem = Problem(Draw(case="tree-1-exclusive", generator=1, rows=300, test=50))
    recipe = Settings().recipe
    pair = slab_pair(problem.toy.dictionary)
    built = {name: make(problem, recipe) for name, make in STRUCTURES.items()}
    assert built["none"] is None
    gates = {name: make(pair) for name, make in built.items() if make is not None}
    assert {prior().event_shape[0] for prior in gates.values()} == {64}
    assert torch.equal(gates["true"]().parents, problem.toy.parents)
    assert gates["learned"].relabelling is None
    assert sorted(gates["shuffled"].relabelling.tolist()) == list(range(64))


def test_a_fixed_covariance_is_the_one_given():
    root = torch.randn(5, 5)
    covariance = root @ root.mT + torch.eye(5)
    prior = fixed_covariance(covariance, torch.zeros(5))
    torch.testing.assert_close(prior_covariance(prior), covariance)
    assert not any(p.requires_grad for p in prior.parameters())


def test_the_true_covariance_fires_as_the_features_do():
    """Of a copula toy the rectified prior has the true rates, sizes and dependence of signs."""
    problem = Problem(Draw(case="copula-blocks", generator=1, rows=2000, test=50))
    pair = ARMS["true_covariance"].build(problem, 64, 0.3)
    torch.manual_seed(0)
    drawn = pair.model.prior().sample((20_000,)).relu()
    rate, size = rates_and_sizes(problem)
    on = drawn > 0
    assert float(on.double().mean()) == pytest.approx(float(rate.mean()), rel=0.03)
    root = (drawn.square().sum(0) / on.sum(0)).sqrt()
    assert float((root / size).mean()) == pytest.approx(1, abs=0.03)
    block, apart = (float((on[:, 0] & on[:, k]).double().mean()) for k in (1, 5))
    true = (problem.codes > 0).double()
    assert block == pytest.approx(float((true[:, 0] * true[:, 1]).mean()), abs=0.005)
    assert block > 5 * apart


@pytest.mark.float32
@pytest.mark.parametrize("name", [name for name in ARMS if name != "hierarchical"])
def test_arms_are_what_they_say(name):
    problem = Problem(Draw(case="copula-blocks", generator=1, rows=2000, test=50))
    arm = ARMS[name]
    pair = arm.build(problem, 96, arm.strengths[-1])
    assert pair.W_dec.shape == (96, 32)
    assert pair.encode(problem.test).shape == (50, 96)
    assert pair.normalizer is problem.normalizer


# The plan


def test_settings_are_chosen_by_the_truth_and_failures_never_win():
    rows = [
        {"arm": "l1", "strength": s, "lr": lr, "mcc": m, "f1": 0.5, "failed": None}
        for s, lr, m in ((1.0, 0.1, 0.3), (2.0, 0.1, 0.4), (2.0, 0.2, 0.35))
    ]
    rows.append({"arm": "l1", "strength": 9.0, "lr": 0.1, "failed": "loss"})
    rows.append({"arm": "topk", "strength": 1.0, "lr": 0.1, "mcc": 0.1, "f1": 0.1, "failed": None})
    assert best(rows) == {"l1": (2.0, 0.1), "topk": (None, 0.1)}
    again = [row | {"mcc": 0.9} for row in rows[:1]] + rows  # a second case decides otherwise
    assert best(again)["l1"] == (1.0, 0.1)
    stories = [
        {"arm": "matryoshka", "lr": lr, "failed": None, "points": [{"ev": ev}]}
        for lr, ev in ((0.1, 0.5), (0.2, 0.7))
    ]
    assert best_rates([*stories, {"arm": "matryoshka", "lr": 0.3, "failed": "x"}]) == {
        "matryoshka": 0.2
    }


def test_the_reported_run_is_as_large_as_the_issue_asks():
    chosen = Settings()
    assert len(chosen.seeds) >= 5
    assert chosen.choosing in CHOOSING
    assert chosen.choosing not in (*chosen.seeds, *chosen.readers)
    planned = {name: jobs(chosen, name, PLANS[name].anything) for name in PARTS}
    synthetic = [*planned["data-a"], *planned["families"]]
    assert {job.draw.case for job in synthetic} == set(RECOVERY_CASES) - {"data-a-hard"}
    assert {job.draw.generator for job in synthetic} == set(chosen.seeds)
    assert {j.structure for j in planned["data-a"] if isinstance(j, RecipeJob)} == set(STRUCTURES)
    named = {job.arm for job in planned["data-a"] if isinstance(job, FieldJob)}
    assert {"l1", "topk", "batch_topk", "jumprelu", "matryoshka", "hierarchical"} < named
    pilot = {job.latents for job in families(chosen, PLANS["families"].anything)
             if job.draw.case in chosen.pilot}  # fmt: skip
    assert pilot == {32, 64, 128}
    assert set(planned["calibration"]) < set(synthetic)
    for name in PARTS:
        assert count(chosen, name) == len(searches(chosen, name)) + len(planned[name])
        chosen_on = [j.draw.generator for j in searches(chosen, name) if isinstance(j, FieldJob)]
        assert set(chosen_on) <= {chosen.choosing}
    layers = {job.reading.layer for job in planned["stories"]}
    assert layers == {1, 2, 3, 4, 5}
    assert seeds_of_barred(chosen, planned) == {
        "data-a, ours": {1, 2, 3, 4, 5},
        "data-a, structure": {1, 2, 3},
        "data-a, no moves": {1, 2, 3},
        "data-a, field": {1, 2, 3, 4, 5},
        "copulas": {1, 2, 3, 4, 5},
        "stories": {1, 2, 3, 4, 5},
    }


def seeds_of_barred(chosen, planned):
    """The seeds that every comparison with a bar has, of its arms the least."""
    found = {}

    def add(name, arm, seed):
        found.setdefault(name, {}).setdefault(arm, set()).add(seed)

    for job in planned["data-a"]:
        ours = isinstance(job, RecipeJob)
        wide = ours and job.latents == chosen.widths[0]
        if ours and wide and job.structure == "none":
            moved = job.recipe.moves or not job.recipe.slab_rows
            add("data-a, ours" if moved else "data-a, no moves", job.recipe, job.draw.generator)
        elif ours and wide:
            add("data-a, structure", job.structure, job.draw.generator)
        elif isinstance(job, FieldJob):
            arm = (job.arm, job.latents, job.strength)
            add("data-a, field", arm, job.draw.generator)
    for job in planned["families"]:
        case = RECOVERY_CASES[job.draw.case]
        first = job.latents == case.case.features and isinstance(job, RecipeJob)
        if first and case.family == "copula":
            add("copulas", (job.draw.case, job.recipe), job.draw.generator)
    for job in planned["stories"]:
        add("stories", replace(job, seed=0), job.seed)
    return {name: set.intersection(*arms.values()) for name, arms in found.items()}


def test_the_option_lists_the_parts(capsys):
    assert settings(smoke=False, seeds=3).seeds == (1, 2, 3)
    with pytest.raises(SystemExit):
        recovery.main(["--part", "no-such-part"])
    said = capsys.readouterr().err
    assert all(f"'{part}'" in said for part in PARTS)


# Verdicts


def planted(chosen, *, f1=0.98, l0=7.0, learned=0.01, share=1.0):
    """Rows as a run leaves them, every number set."""
    edges = {"precision": 0.8, "recall": 0.7, "density": 0.01, "z": 50.0}
    inside = {"together": edges, "exclusive": edges, "couplings": 9, "matched": 400}
    inside["parents"] = {"share": 0.5, "chance": 0.1}

    def row(job):
        seed = job.draw.generator
        base = {"case": job.draw.case, "seed": seed, "arm": job.arm, "failed": None}
        base |= {"strength": getattr(job, "strength", None), "latents": job.latents}
        ours = isinstance(job, RecipeJob)
        base |= {"mcc": (0.95 if ours else 0.6) + 1e-4 * seed, "f1": f1 if ours else 0.5}
        base |= {"share": share if ours else 0.4, "l0": l0, "ev": 0.9, "dead": 0.0, "chance": 0.3}
        base |= {"precision": 0.9, "recall": 0.9, "uniqueness": 1.0, "f1_trimmed": 0.93}
        base |= {"true_l0": 6.8, "seen": 1000, "seconds": 2.0, "levels": {}, "cached": False}
        look = {"rows": 10, "seconds": 1.0 if ours else 4.0, "f1": base["f1"], "mcc": base["mcc"]}
        base["curve"] = [look | {"share": 1.0, "l0": 7.0}] if job.watch else []
        if not ours:
            return base
        base |= {"structure": job.structure, "structure_found": inside}
        if job.structure == "learned":
            base["mcc"] += learned
        if job.keep:
            base["pruned"] = base | {"latents": job.keep, "l0": 4.5}
        return base

    parts = {}
    for name in ("data-a", "families"):
        made = jobs(chosen, name, PLANS[name].anything)
        rows = [row(job) for job in made if not isinstance(job, CeilingJob)]
        parts[name] = Part((), PLANS[name].anything, rows)
    return Results(chosen, parts)


def verdicts(**changes):
    rows = planted(Settings(), **changes)
    told = [bar for bars in (recovered, structure, cost, family_bars) for bar in bars(rows)]
    return {bar.name: bar.met for bar in told}


def sentences(**changes):
    rows = planted(Settings(), **changes)
    return "\n".join([*on_data_a(rows), *on_families(rows)])


def test_bars_follow_from_the_rows():
    met = verdicts()
    wide, narrow = Settings().widths
    assert met[f"Data A, {wide} latents"]
    assert not met[f"Data A, {wide} latents, stretch"]
    assert met[f"Data A, {wide} latents, at L0 = 5"]
    assert met[f"Data A, {narrow} latents, pruned"]
    assert met["Learned structure against shuffled"]
    assert met["Learned edges"]
    assert met["Cost"]
    assert met["Copula families, directions"]
    assert met["Copula families, firing"]
    low = verdicts(f1=0.9)
    assert not low[f"Data A, {wide} latents"]
    assert not low["Copula families, firing"]
    assert not verdicts(l0=8.0)[f"Data A, {wide} latents"]
    assert not verdicts(learned=0.004)["Learned structure against shuffled"]
    assert not verdicts(share=0.97)["Copula families, directions"]


def test_the_cost_is_the_time_to_the_others_last_f1():
    ours = {"curve": [{"seconds": 1.0, "f1": 0.3}, {"seconds": 3.0, "f1": 0.6}]}
    theirs = {"curve": [{"seconds": 1.0, "f1": 0.7}, {"seconds": 2.0, "f1": 0.5}]}
    assert ratio(ours, theirs) == 1.5
    assert ratio(ours, {"curve": [{"seconds": 2.0, "f1": 0.9}]}) is None


def test_findings_follow_from_the_rows():
    said = sentences()
    assert "data-a, F1: ours 0.98 ± 0 against ℓ1 SAE 0.5 ± 0: better (0.48 ± 0; 5 seeds)." in said
    assert "learned couplings, against none: mcc better (0.01 ± " in said
    assert "Families, share > 0.9: ours better than the best arm of the field on 25 of 25" in said
    equal = sentences(f1=0.5, learned=0.0)
    assert "data-a, F1: ours 0.5 ± 0 against ℓ1 SAE 0.5 ± 0: identical" in equal
    assert "F1: ours better than the best arm of the field on 0 of 25" in equal


def test_pruned_models_are_rows_of_their_own():
    results = planted(Settings())
    kept = results.ours("data-a", Settings().widths[1], arm=PRUNED)
    assert [row["seed"] for row in kept] == list(Settings().seeds)
    assert kept[0]["l0"] == 4.5
    assert label((PRUNED, 256, "none", None)) == "ours, pruned from the wider"


def few_arms(monkeypatch):
    """Fewer arms of the field: the same code, sooner done."""
    monkeypatch.setattr(recovery_plan, "WIDE", ("topk", "batch_topk"))
    monkeypatch.setattr(recovery_plan, "NARROW", ("topk",))
    monkeypatch.setattr(recovery_plan, "FAMILIES", ("batch_topk", "true_covariance"))
    monkeypatch.delitem(recovery_ablations.ABLATIONS, "ours-long-l1")


@pytest.mark.float32
@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_smoke_run_writes_everything_it_promises(tmp_path, capsys, monkeypatch, whole):
    if not whole:
        few_arms(monkeypatch)
    out, state, threads = tmp_path / "recovery", torch.get_rng_state(), torch.get_num_threads()
    call = ["--smoke", "--threads", "1", "--json", "--out", str(out)]
    assert recovery.main(call) == 0
    assert torch.equal(state, torch.get_rng_state())
    assert torch.get_num_threads() == threads
    text = capsys.readouterr().out
    assert text.count("\n") == 1
    result = json.loads(text, parse_constant=pytest.fail)
    assert result["ok"] is True
    assert list(result["parts"]) == list(PARTS)
    assert result["failed"] == []
    for part, told in result["parts"].items():
        assert told["failed"] == []
        report = (out / f"{part}.md").read_text(encoding="utf-8")
        assert all(f"- {sentence}" in report for sentence in told["findings"])
        assert all(f"- **{bar['bar']}** ({bar['rule']}): " in report for bar in told["bars"])
        for stem, records in told["tables"].items():
            path = out / "tables" / part / f"{stem}.csv"
            with path.open(newline="", encoding="utf-8") as file:
                assert len(list(csv.DictReader(file))) == len(records)
        for picture in map(Path, told["figures"]):
            assert picture.parent == out / "figures" / part
            assert picture.stat().st_size > 5_000
            assert json.loads(picture.with_suffix(".json").read_text(encoding="utf-8"))
        made = json.loads((out / "runs" / f"{part}.json").read_text(encoding="utf-8"))
        assert made["part"] == part
        assert made["seeds"]
        assert made["models"]["all"] > made["models"]["found"] == 0
    tables = {stem for told in result["parts"].values() for stem in told["tables"]}
    assert {"data_a", "levels", "structure", "families_f1", "stories", "stability", "laws",
            "calibration", "choices", "cost", "modadd_planarity"} <= tables  # fmt: skip
    drawn = {p: {Path(f).stem for f in told["figures"]} for p, told in result["parts"].items()}
    assert drawn == {
        "data-a": {"features", "efficiency", "structure"},
        "moves": {"moves"},
        "ablations": {"ablations"},
        "families": {"families"},
        "gates": {"gates"},
        "absorption": {"absorption", "hedging"},
        "inference": {"inference"},
        "stories": {"stories_ev", "stories_ce_recovered"},
        "calibration": {"calibration"},
        "words": {"words"},
        "modadd": {"modadd_planes"},
    }
    moved = result["parts"]["moves"]
    assert moved["bars"]
    assert any("Moves between latents, against none: mcc" in said for said in moved["findings"])
    run_file = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert run_file["settings"]["data"] == list(PARTS)
    kept = sorted(path.name for path in (out / "jobs").iterdir())
    assert recovery.main([*call, "--part", "data-a", "--part", "calibration"]) == 0
    again = json.loads(capsys.readouterr().out)
    one, other = again["parts"]["data-a"]["tables"], result["parts"]["data-a"]["tables"]
    assert one["data_a"] == other["data_a"]  # from the folder, seconds too
    assert all(row["of it in this run"] == 0 for row in one["cost"])
    made = json.loads((out / "runs" / "data-a.json").read_text(encoding="utf-8"))
    assert made["models"]["found"] == made["models"]["all"]
    assert sorted(path.name for path in (out / "jobs").iterdir()) == kept
