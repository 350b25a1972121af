"""Absorption and hedging: exact solutions score what is derived, verdicts follow from the rows."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Generator
from torch.nn.functional import normalize
from tqdm import tqdm

from priors.errors import ConfigError
from toys.absorption import absorbed_solution, true_solution
from toys.hedging import principal
from toys.reproduce.jobs import fetch_all
from toys.reproduce.recovery_absorption import (
    AbsorptionCodingJob,
    AbsorptionFieldJob,
    AbsorptionRecipeJob,
    AbsorptionSolutionsJob,
    absorption_jobs,
    absorption_searches,
    as_seen,
    best_absorption_rates,
    shuffled_tree,
    trained,
    true_tree,
)
from toys.reproduce.recovery_absorption_arms import (
    ABSORPTION_ARMS,
    CODING,
    OURS,
    SHUFFLED,
    TREE,
)
from toys.reproduce.recovery_absorption_cases import (
    ABSORBED,
    ABSORPTION_CASES,
    BIASED,
    HEDGED,
    RANDOM,
    Known,
    Where,
)
from toys.reproduce.recovery_absorption_figure import draw_absorption
from toys.reproduce.recovery_absorption_report import (
    ABSORPTION,
    LEAN,
    absorption_findings,
    absorption_numbers,
    absorption_tables,
    models,
)
from toys.reproduce.recovery_absorption_scores import (
    CLOSE,
    NEAR,
    Seen,
    firing_with,
    nats,
    tree_scores,
)
from toys.reproduce.recovery_ceiling import TRUTH
from toys.reproduce.recovery_findings import RULE
from toys.reproduce.recovery_results import Results
from toys.reproduce.recovery_runs import Part
from toys.reproduce.recovery_settings import Settings, settings
from toys.reproduce.recovery_synthetic import L1, SLAB, STILL

TREES = [name for name, case in ABSORPTION_CASES.items() if case.roots]
PAIRS = [name for name, case in ABSORPTION_CASES.items() if not case.roots]
ORTHONORMAL = ("couples", "families")
FALLEN = 0.5**0.5  # the cosine of a child and of what has absorbed an orthogonal parent


def rows_of(case, rows=64, test=8_192, seed=0):
    return Known(Where(case=case, seed=seed, rows=rows, test=test))


def expected(case):
    """Of the law: children's share of their parent, L0 of the true and the absorbed solution."""
    forest = ABSORPTION_CASES[case].case.forest
    rate, children = forest.rate(), forest.children(0)
    below = sum(forest.probability[child] for child in children)
    return below, forest.expected_l0, float(rate[list(forest.children(-1))].sum())


def near(probability, count):
    """Within five deviations of a share of so many."""
    width = 5 * math.sqrt(probability * (1 - probability) / count)
    return pytest.approx(probability, abs=width)


# Exact solutions


@pytest.mark.parametrize("case", TREES)
def test_the_true_solution_absorbs_nothing(case):
    data = rows_of(case)
    row = data.scores(data.solutions()[TRUTH])
    chance = 0 if case in ORTHONORMAL else 0.01  # other trees lie along a parent a little
    assert row["absorption"] == pytest.approx(0, abs=chance + 1e-9)
    assert row["absorption_full"] == pytest.approx(0, abs=1e-9)
    assert row["parent_recall"] == row["parent_precision"] == row["parent_f1"] == 1.0
    assert (row["mcc"], row["f1"], row["ev"]) == pytest.approx((1.0, 1.0, 1.0))
    assert row["child_true"] == pytest.approx(1.0)
    assert (row["true"], row["wrong"], row["lean"]) == (1.0, 0.0, 1.0)
    assert row["l0"] == pytest.approx(expected(case)[1], rel=0.1)


@pytest.mark.parametrize("case", TREES)
def test_the_absorbed_solution_scores_what_children_take(case):
    """Recall 1 - P(a child | parent), absorption the rest, L0 that of the roots, all restored."""
    data = rows_of(case)
    row = data.scores(data.solutions()[ABSORBED])
    below, _, roots = expected(case)
    count = int((data.truth[:, toy_roots(data)] > 0).sum())
    assert row["parent_recall"] == near(1 - below, count)
    assert row["parent_precision"] == 1.0
    assert row["ev"] == pytest.approx(1.0)
    assert row["l0"] == pytest.approx(roots, rel=0.1)
    assert row["child_absorbed"] == pytest.approx(1.0)
    assert (row["true"], row["wrong"], row["lean"]) == (0.0, 1.0, -1.0)
    if case in ORTHONORMAL:
        assert row["absorption"] == pytest.approx(1 - row["parent_recall"])
        assert row["absorption_full"] == pytest.approx(row["absorption"])
        assert row["child_true"] == pytest.approx(FALLEN)
    else:  # what lies along another tree's parent shifts projections a little
        assert row["absorption"] == pytest.approx(1 - row["parent_recall"], abs=0.1)


def toy_roots(data):
    return data.toy.parents < 0


@pytest.mark.parametrize("case", ORTHONORMAL)
def test_codes_of_known_solutions_are_those_of_the_exact_autoencoders(case):
    """Scored as a trained pair is, they get the same numbers."""
    data = rows_of(case)
    exact = {TRUTH: true_solution, ABSORBED: absorbed_solution}
    for name, solution in exact.items():
        seen = data.solutions()[name]
        theirs = as_seen(data, solution(data.toy))
        torch.testing.assert_close(theirs.codes @ theirs.atoms, seen.codes @ seen.atoms)
        assert torch.equal(theirs.fires, seen.fires)
        assert data.scores(theirs) == pytest.approx(data.scores(seen), abs=1e-6)


def test_firings_of_the_absorbed_solution_cost_independent_gates_less():
    """By the entropies of the rates alone: so that such a prior cannot prefer the truth."""
    for case in TREES:
        data = rows_of(case)
        forest, known = ABSORPTION_CASES[case].case.forest, data.solutions()
        rate, alone = forest.rate(), forest.rate()
        for node, parent in enumerate(forest.parents):
            if parent >= 0:
                alone[parent] -= rate[node]
        for name, rates in ((TRUTH, rate), (ABSORBED, alone)):
            entropy = -(rates * rates.log() + (1 - rates) * (1 - rates).log()).sum()
            assert nats(known[name].fires) == pytest.approx(float(entropy), rel=0.05)
        assert nats(known[ABSORBED].fires) < nats(known[TRUTH].fires)
    assert nats(torch.ones(3, 2)) == 0.0


@pytest.mark.parametrize("case", PAIRS)
def test_the_hedged_solution_lies_where_the_moments_say(case):
    data = rows_of(case)
    law = ABSORPTION_CASES[case].case
    for name, moment in ((HEDGED, law.second_moment()), (BIASED, law.covariance())):
        (a, b), (_, c) = moment.tolist()
        angle = math.degrees(math.atan2(2 * b, a - c) / 2)
        row = data.scores(data.solutions()[name])
        own = "angle_hedged" if name == HEDGED else "angle_biased"
        assert row[own] == pytest.approx(0, abs=1e-4)
        assert row["direction"] == pytest.approx(angle, abs=1e-4)
        assert row["angle_first"] == pytest.approx(abs(angle), abs=1e-4)
        assert row["angle_second"] == pytest.approx(90 - abs(angle), abs=1e-4)
        assert (row["true"], row["wrong"], row["lean"]) == (0.0, 1.0, -1.0)
        flipped = data.solutions()[name]
        again = data.scores(Seen(flipped.x, -flipped.atoms, -flipped.codes, flipped.truth))
        assert again == pytest.approx(row, abs=1e-4)


@pytest.mark.parametrize("case", PAIRS)
def test_one_feature_alone_does_not_hedge(case):
    data = rows_of(case)
    row = data.scores(data.solutions()[TRUTH])
    law = ABSORPTION_CASES[case].case
    hedged = [principal(moment)[0] for moment in (law.second_moment(), law.covariance())]
    angles = [math.degrees(math.atan2(abs(w[1]), abs(w[0]))) for w in hedged]
    assert (row["angle_first"], row["direction"]) == pytest.approx((0, 0), abs=1e-4)
    found = (row["angle_hedged"], row["angle_biased"])
    assert found == pytest.approx(tuple(angles), abs=1e-4)
    assert min(angles) > 2 * CLOSE  # so that an atom cannot be near to both
    assert (row["true"], row["wrong"]) == (1.0, 0.0)
    assert row["f1"] == 1.0


@pytest.mark.parametrize("case", ABSORPTION_CASES)
def test_what_has_learned_nothing_ends_in_neither(case):
    data = rows_of(case, test=1_024)
    row = data.scores(data.solutions()[RANDOM])
    assert row["wrong"] == 0.0
    assert row["true"] <= 0.1


@pytest.mark.parametrize("case", TREES)
def test_children_that_never_fire_end_in_neither(case):
    data = rows_of(case, test=1_024)
    for name in (TRUTH, ABSORBED):
        seen = data.solutions()[name]
        codes = seen.codes * (data.toy.parents < 0)
        row = data.scores(Seen(seen.x, seen.atoms, codes, seen.truth))
        assert (row["true"], row["wrong"], row["lean"]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("case", PAIRS)
def test_one_latent_that_never_fires_ends_in_neither(case):
    data = rows_of(case, test=256)
    for seen in data.solutions().values():
        row = data.scores(Seen(seen.x, seen.atoms, torch.zeros_like(seen.codes), seen.truth))
        assert (row["true"], row["wrong"], row["lean"]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("case", TREES)
def test_no_atom_is_near_to_a_child_and_to_what_has_absorbed_its_parent(case):
    """Where the two are farther apart than twice what is near."""
    toy = rows_of(case, test=8).toy
    child = toy.parents >= 0
    whole = normalize(toy.concepts[child], dim=-1)
    between = (toy.dictionary[child] * whole).sum(-1).acos()
    assert between.min() > 2 * math.acos(NEAR)


def test_neither_solution_is_favoured_by_how_latents_are_looked_for():
    """Other names, signs of nothing, sizes of latents: the same scores."""
    data = rows_of("families", test=1_024)
    for name in (TRUTH, ABSORBED):
        seen = data.solutions()[name]
        order, scale = torch.randperm(20), 0.1 + torch.rand(20)
        other = Seen(
            seen.x, (scale[:, None] * seen.atoms)[order], (seen.codes / scale)[:, order], seen.truth
        )
        one, again = (tree_scores(data.toy, s, Generator().manual_seed(1)) for s in (seen, other))
        for key in one:
            if key != "absorption_chance":  # directions are dealt out by number
                assert again[key] == pytest.approx(one[key]), key


def test_a_silent_parent_is_neither_found_nor_absorbed():
    data = rows_of("couples", test=1_024)
    seen = data.solutions()[TRUTH]
    codes = seen.codes * (data.toy.parents >= 0)
    row = data.scores(Seen(seen.x, seen.atoms, codes, seen.truth))
    assert (row["parent_recall"], row["parent_precision"], row["parent_f1"]) == (0.0, 0.0, 0.0)
    assert row["absorption"] == pytest.approx(0)
    assert firing_with(torch.zeros(4, 2), torch.eye(4)[:, :1])[1].tolist() == [0.0]


# Jobs


def any_rates():
    return {
        case: {
            name: (arm.of(own)[0] if arm.chosen else None, 0.01)
            for name, arm in ABSORPTION_ARMS.items()
            if arm.of(own)
        }
        for case, own in ABSORPTION_CASES.items()
    }


def test_settings_are_searched_on_the_choosing_seed_and_reported_on_others():
    chosen = Settings()
    searched, planned = (
        list(absorption_searches(chosen)),
        list(absorption_jobs(chosen, any_rates())),
    )
    assert {job.where.seed for job in searched} == {chosen.choosing}
    assert {job.where.seed for job in planned} == set(chosen.seeds)
    assert chosen.choosing not in chosen.seeds
    assert len(set(searched)) == len(searched)
    assert len({job.name for job in planned}) == len(planned)
    tried = {(job.where.case, job.arm, job.strength, job.lr) for job in searched}
    field = [job for job in planned if isinstance(job, AbsorptionFieldJob)]
    assert {(job.where.case, job.arm, job.strength, job.lr) for job in field} < tried
    assert {job.seen for job in searched} == {job.seen for job in field}


def test_what_is_for_trees_is_run_on_trees_alone():
    planned = list(absorption_jobs(Settings(), any_rates()))
    assert {job.where.case for job in planned} == set(ABSORPTION_CASES)
    field = {(j.where.case, j.arm) for j in planned if isinstance(j, AbsorptionFieldJob)}
    assert {case for case, arm in field if arm in ("matryoshka", "hierarchical")} == set(TREES)
    sparse = {case for case, arm in field if arm in ("topk", "batch_topk")}
    assert sparse == set(TREES)  # one of one latent is none
    assert {j.where.case for j in planned if isinstance(j, AbsorptionCodingJob)} == set(TREES)
    told = [job for job in planned if getattr(job, "tree", "")]
    assert {(job.where.case, job.tree) for job in told} == {
        (case, tree) for case in TREES for tree in ("true", "shuffled")
    }
    assert {job.recipe.moves for job in told} == {0}
    assert sum(isinstance(job, AbsorptionSolutionsJob) for job in planned) == 5 * len(
        ABSORPTION_CASES
    )


def test_arms_of_our_jobs_are_what_the_recipe_is():
    where, own = Where(case="couples", seed=0, rows=1, test=1), Settings().absorption
    still = replace(own.recipe, moves=0)
    names = {
        SLAB: AbsorptionRecipeJob(where=where, recipe=own.recipe),
        STILL: AbsorptionRecipeJob(where=where, recipe=still),
        TREE: AbsorptionRecipeJob(where=where, recipe=still, tree="true"),
        SHUFFLED: AbsorptionRecipeJob(where=where, recipe=still, tree="shuffled"),
        L1: AbsorptionRecipeJob(where=where, recipe=replace(own.recipe, slab_rows=0)),
    }
    assert {name: job.arm for name, job in names.items()} == {name: name for name in names}
    assert set(names) | {CODING} == set(OURS)


def test_the_best_is_chosen_case_by_case_and_k_is_not():
    base = {"failed": None, "f1": 0.0}
    rows = [
        base | {"arm": "l1", "case": case, "strength": strength, "lr": lr, "mcc": mcc}
        for case, strength, lr, mcc in (
            ("couples", 0.3, 0.01, 0.9),
            ("families", 0.3, 0.01, 0.1),
            ("couples", 1.0, 0.01, 0.6),
            ("families", 1.0, 0.02, 0.6),
        )
    ]
    rows += [
        base | {"arm": "topk", "case": "couples", "strength": k, "lr": lr, "mcc": mcc}
        for k, lr, mcc in ((1.0, 0.01, 0.9), (2.0, 0.01, 0.1), (1.0, 0.03, 0.6), (2.0, 0.03, 0.6))
    ]
    failed = {"arm": "topk", "case": "couples", "strength": 1.0, "lr": 0.1, "failed": "not finite"}
    assert best_absorption_rates([*rows, failed]) == {
        "couples": {"l1": (0.3, 0.01), "topk": (None, 0.03)},
        "families": {"l1": (1.0, 0.02)},
    }


def test_the_tree_that_is_told_is_that_of_the_latents():
    """Of the absorbed solution, too, whose atoms are near enough to the children."""
    data = rows_of("families")
    for name in (TRUTH, ABSORBED):
        order = torch.randperm(20)
        pair = {TRUTH: true_solution, ABSORBED: absorbed_solution}[name](data.toy)
        with torch.no_grad():
            pair.W_dec.copy_(pair.W_dec[order].clone())
        parents = data.toy.parents[order]
        place = order.argsort()
        wanted = torch.where(parents < 0, -1, place[parents])
        assert torch.equal(true_tree(data)(pair).parents, wanted)


def test_a_shuffled_tree_keeps_levels_and_changes_children():
    data = rows_of("families")
    pair = true_solution(data.toy)
    shuffled = shuffled_tree(data)(pair).parents
    assert torch.equal(shuffled < 0, data.toy.parents < 0)
    assert not torch.equal(shuffled, data.toy.parents)
    counts = [parents[parents >= 0].bincount() for parents in (shuffled, data.toy.parents)]
    assert torch.equal(*counts)


def test_a_run_in_which_nothing_fires_is_a_failed_row_and_takes_no_other_along():
    def silent(code):
        def raised():
            raise ConfigError("no latent fires", code=code)
            yield

        return trained({"arm": SLAB}, rows_of("couples"), raised())

    assert silent("recipe.silent").row["failed"] == "no latent fires"
    with pytest.raises(ConfigError):
        silent("other")


def test_a_tiny_run_from_the_jobs_to_the_figures(tmp_path):
    chosen = settings(smoke=True, seeds=None)
    planned = list(absorption_jobs(chosen, any_rates()))
    with tqdm(disable=True) as bar:
        found = fetch_all(planned, tmp_path / "jobs", 1, bar)
    rows = [found[job] for job in planned]
    assert all(row["failed"] is None and math.isfinite(row["lean"]) for row in rows)
    kinds = (AbsorptionFieldJob, AbsorptionRecipeJob, AbsorptionCodingJob, AbsorptionSolutionsJob)
    assert {type(job) for job in planned} == set(kinds)
    results = Results(chosen, {"absorption": Part((), {}, rows)})
    rule, lean, *said = absorption_findings(results)
    assert (rule, lean) == (RULE, LEAN)
    assert said
    tables = absorption_tables(results)
    assert [len(tables[name].rows) for name in ("absorption", "hedging")] == [17, 7]
    drawn = draw_absorption(results, tmp_path)
    assert [path.stem for path in drawn] == ["absorption", "hedging"]
    assert all(path.with_suffix(".json").is_file() for path in drawn)


# What is told


def model(arm, seed, strength=None, *, case="families", ends=(0.0, 0.0), f1=0.5, absorbed=0.5):
    numbers = dict.fromkeys(
        ("mcc", "chance", "f1", "l0", "ev", "parent_precision", "parent_recall", "nats"), 0.5
    )
    numbers |= dict.fromkeys(("absorption_chance", "absorption_full", "child_true"), 0.1)
    return numbers | {
        "arm": arm,
        "seed": seed,
        "strength": strength,
        "case": case,
        "failed": None,
        "true": ends[0],
        "wrong": ends[1],
        "lean": ends[0] - ends[1] + 0.001 * seed,
        "parent_f1": f1 + 0.001 * seed * (arm == SLAB),
        "absorption": absorbed + 0.001 * seed * (arm == SLAB),
        "child_absorbed": 0.1,
        "seen": 10,
        "seconds": 1.0,
    }


def made_up():
    """Ours ends in the absorbed solution and has less of parents; told the tree it does not."""
    rows, bad, good = [], (0.2, 0.6), (0.9, 0.1)
    for seed in (1, 2, 3):
        wrong = [model(ABSORBED, seed, ends=(0.0, 1.0), f1=0.3)]
        rows += [
            model(TRUTH, seed, ends=(1.0, 0.0), f1=1.0) | {"models": wrong},
            model(SLAB, seed, ends=bad, f1=0.4, absorbed=0.2),
            model(STILL, seed, ends=bad, f1=0.4),
            model(TREE, seed, ends=good, f1=0.9, absorbed=0.1),
            model(SHUFFLED, seed, ends=(0.2, 0.1), f1=0.2, absorbed=0.4),
            model("topk", seed, 1.0, ends=bad, f1=0.3, absorbed=0.1),
            model("topk", seed, 2.0, ends=(0.5, 0.3 + seed / 10), f1=0.6, absorbed=0.7),
        ]
    rows.append({"arm": SLAB, "seed": 4, "case": "families", "failed": "x", "strength": None})
    return rows


def told(rows):
    return Results(Settings(), {"absorption": Part((), {}, rows)})


def test_findings_follow_from_the_rows():
    rule, lean, exact, ends, *compared = absorption_findings(told(made_up()))
    assert (rule, lean) == (RULE, LEAN)
    assert exact.startswith("Four children each, the absorbed solution against the true one")
    assert ends.startswith("Four children each, where arms end")
    true, wrong, undecided, neither = ends.split(";")
    assert "true tree given (0.9 ± 0 and 0.1 ± 0)" in true
    assert "spike and slab" in wrong
    assert "k = 1" in wrong
    assert "k = 2" in undecided
    assert "shuffled tree" in neither
    assert "truth" not in undecided
    f1, share, told_f1, told_share, against_shuffled, shuffled_share = compared
    assert "F1 of parents: ours, spike and slab 0.402" in f1
    assert "at L0 0.5 ± 0 against TopK + AuxK, k = 2 0.6" in f1
    assert ": worse (-0.198" in f1
    assert "TopK + AuxK, k = 2 0.7" in share
    assert ": better (-0.498" in share
    assert "3 seeds" in f1
    assert "better (0.5 ± 0; 3 seeds)" in told_f1
    assert "no moves 0.4" in told_f1
    assert "better (-0.4 ± 0; 3 seeds)" in told_share
    assert "shuffled tree given 0.2" in against_shuffled
    assert "better (0.7 ± 0; 3 seeds)" in against_shuffled
    assert "better (-0.3 ± 0; 3 seeds)" in shuffled_share


@pytest.mark.parametrize(
    "keep",
    [
        lambda row: False,
        lambda row: row["arm"] not in (SLAB, TREE),
        lambda row: row["arm"] not in (*ABSORPTION_ARMS, STILL, SHUFFLED),
        lambda row: (row["arm"] == SLAB) == (row["seed"] == 1) and row["arm"] != TREE,
    ],
    ids=["nothing", "not ours", "no field", "no seed in common"],
)
def test_what_is_not_there_is_not_compared(keep, tmp_path):
    left = told([row for row in made_up() if keep(row)])
    said = list(absorption_findings(left))
    assert not any("better" in text or "worse" in text for text in said[2:])
    assert len(draw_absorption(left, tmp_path)) == (1 if any(map(keep, made_up())) else 0)


def test_tables_have_exact_solutions_first_and_no_failed_models():
    tables = absorption_tables(told(made_up()))
    lines = [dict(row) for row in tables["absorption"].rows]
    assert [line["arm"] for line in lines] == [
        "exact: the truth",
        "exact: absorbed",
        "ours, spike and slab",
        "ours, no moves",
        "ours, no moves, true tree given",
        "ours, no moves, shuffled tree given",
        "TopK + AuxK, k = 1",
        "TopK + AuxK, k = 2",
    ]
    assert {line["seeds"] for line in lines} == {3}
    assert lines[2]["parents: F1"].mean == pytest.approx(0.402)
    assert not tables["hedging"].rows
    assert [row["seed"] for row in models(told(made_up()), "families")[SLAB, None]] == [1, 2, 3]


def test_the_method_asks_for_numbers_that_the_settings_have():
    numbers = absorption_numbers(Settings()) | {"choosing": 0, "seeds": "1"}
    assert "{" not in ABSORPTION.format(**numbers)
