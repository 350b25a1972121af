"""``vsae reproduce part4``: the arms are what they say, verdicts follow their rules, runs go on."""

import json
import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from priors.graph import Graph
from toys.reproduce import part4
from toys.reproduce.part4_arms import ARMS, EVERY, RIDGE, gaussian, mixed
from toys.reproduce.part4_compare import (
    Claim,
    against_null,
    called,
    chosen,
    judged,
    mean,
    missed,
    paired,
    value,
)
from toys.reproduce.part4_neighbours import Neighbourhoods, principal_components
from toys.reproduce.part4_pareto import pareto_findings
from toys.reproduce.part4_plans import PLANS
from toys.reproduce.part4_scores import cut, roughness, sparsity
from toys.reproduce.part4_sentences import ROW_ARMS, Scaled, row_roughness
from toys.reproduce.part4_settings import PARTS, settings
from toys.reproduce.part4_tokens import renamed
from toys.reproduce.part4_tokens_tables import TABLE_2, TABLE_3
from toys.reproduce.part4_training import Training
from toys.reproduce.tables import Interval

REAL = ("tokens", "sentences", "pareto")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def dense_laplacian(graph, *, normalized):
    """From the edge list, in numpy."""
    n = graph.num_nodes
    weights = np.zeros((n, n))
    for (a, b), w in zip(graph.edges.mT.tolist(), graph.weights.tolist(), strict=True):
        weights[a, b] = weights[b, a] = w
    degree = weights.sum(1)
    laplacian = np.diag(degree) - weights
    if normalized:
        root = np.sqrt(np.where(degree > 0, degree, 1.0))
        laplacian = laplacian / root[:, None] / root
    return laplacian


@pytest.fixture
def graph():
    return Graph.from_edges(
        [[0, 1, 2, 0], [1, 2, 3, 3]], [1.0, 2.0, 0.5, 3.0], num_nodes=6, symmetrize="max"
    )


# The run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The real parts of a smoke run, and what it answers."""
    out = tmp_path_factory.mktemp("part4")
    asked = [word for part in REAL for word in ("--part", part)]
    command = [*asked, "--smoke", "--json", "--threads", "1", "--out", str(out)]
    assert part4.main(command) == 0
    return out, command


def test_a_run_writes_everything(run, capsys):
    out, command = run
    part4.main(command)  # again: everything is there
    result = json.loads(capsys.readouterr().out)
    assert result["ok"]
    assert result["failed"] == []
    assert result["models"]["found"] == result["models"]["all"] > 20
    assert {"tokens_table2", "tokens_table3", "sentences_arms", "pareto"} <= set(result["tables"])
    for stem in result["tables"]:
        assert (out / "tables" / f"{stem}.csv").is_file()
    assert len(result["figures"]) == 5
    assert all((out / "figures" / path.split("/")[-1]).stat().st_size for path in result["figures"])
    report = (out / "part4.md").read_text()
    for part in REAL:
        assert f"## {PLANS[part].question}" in report
        assert f"### Findings: {part}" in report
        assert "\n## Findings\n" in (out / f"{part}.md").read_text()
        assert result["findings"][part]
    assert "nan" not in report.lower().replace("nano", "")


def test_equal_jobs_of_two_parts_are_one():
    chosen_ = settings(smoke=False, seeds=None)
    tokens, pareto = (set(PLANS[part].jobs(chosen_)) for part in ("tokens", "pareto"))
    shared = tokens & pareto
    assert {(job.arm, job.target) for job in shared} == {
        (arm, target) for arm in ("l1", "graph", "isotropic", "mixed") for target in (16, 40)
    }


def test_every_part_has_a_plan_and_jobs():
    assert set(PLANS) == set(PARTS)
    for plan in PLANS.values():
        jobs = list(plan.jobs(settings(smoke=True, seeds=2)))
        assert jobs
        assert len({job.name for job in jobs}) == len(set(jobs))
        assert plan.how(settings(smoke=True, seeds=2))


def test_more_seeds_are_more_jobs_and_keep_the_first():
    one, two = (set(PLANS["tokens"].jobs(settings(smoke=True, seeds=n))) for n in (1, 2))
    assert one < two


def test_an_unknown_part_is_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        part4.main(["--part", "nothing"])
    assert caught.value.code == 2
    assert "nothing" in capsys.readouterr().err


# Arms


def test_precisions_have_a_diagonal_of_one_with_and_without_couplings(graph):
    z = torch.randn(5, 6, generator=generator(), dtype=torch.float64)
    plain, tied = gaussian(6, None)(), gaussian(6, graph)()
    assert_allclose(plain.quadratic(z), z.square().sum(-1), rtol=1e-6)
    dense = RIDGE * np.eye(6) + (1 - RIDGE) * dense_laplacian(graph, normalized=True)
    assert_allclose(dense.diagonal()[:4], 1.0)
    assert_allclose(tied.quadratic(z), np.einsum("bi,ij,bj->b", z, dense, z), rtol=1e-6)


@pytest.mark.parametrize("tied", [False, True])
def test_two_penalties_are_the_graph_times_omega_and_l1(graph, tied):
    z, ratio = torch.randn(5, 6, generator=generator(), dtype=torch.float64), 0.3
    dense = np.eye(6)
    if tied:
        dense = RIDGE * np.eye(6) + (1 - RIDGE) * dense_laplacian(graph, normalized=True)
    penalty = 0.5 * ratio * np.einsum("bi,ij,bj->b", z, dense, z) + z.abs().sum(-1).numpy()
    scores = -mixed(6, graph if tied else None, ratio)().log_prob(z)
    assert_allclose(scores - scores[0], penalty - penalty[0], rtol=1e-5)


def test_arms_differ_in_what_they_say():
    assert [name for name, arm in EVERY.items() if arm.shuffled] == [
        "shuffled",
        "mixed-shuffled",
        "v-shuffled",
    ]
    assert [name for name, arm in ARMS.items() if not arm.start] == ["none", "topk"]
    assert [name for name, arm in ROW_ARMS.items() if arm.shuffled] == [
        n for n in ROW_ARMS if "shuffled" in n
    ]
    assert ROW_ARMS["smooth"].smooth(0.1) == 1
    assert ROW_ARMS["mixed"].smooth(0.1) == 0.1
    assert ROW_ARMS["l1-edges"].smooth(0.1) == 0


def test_the_control_ties_other_latents_and_leaves_isolated_ones_alone():
    points = torch.randn(60, 3, generator=generator())
    knn = Graph.knn(points, 4)
    graph = Graph(knn.edges, knn.weights, 80)  # 20 latents that are dead
    other = renamed(graph, generator(1))
    assert other.degree[60:].abs().max() == 0
    assert_allclose(other.degree.sort().values, graph.degree.sort().values)
    assert other.num_components == graph.num_components
    same = {tuple(sorted(e)) for e in graph.edges.mT.tolist()} & {
        tuple(sorted(e)) for e in other.edges.mT.tolist()
    }
    expected = graph.num_edges**2 / math.comb(60, 2)
    assert len(same) < expected + 5 * math.sqrt(expected)
    assert renamed(graph, generator(1)) == other


def test_a_scaled_schedule_follows():
    beta = Training().beta(16.0, 2.0)
    scaled = Scaled(beta, 0.5)
    assert scaled(0) == pytest.approx(1.0)
    beta.log_beta.fill_(math.log(6.0))
    assert scaled(1) == pytest.approx(3.0)


# Measures


def test_cut_keeps_the_greatest():
    codes = torch.rand(7, 9, generator=generator()).relu()
    short = cut(codes, 3)
    for full, kept in zip(codes.numpy(), short.numpy(), strict=True):
        assert sorted(kept[kept > 0]) == sorted(full)[-3:]
    assert torch.equal(cut(codes, 20), codes)


def test_roughness_is_the_normalised_form(graph):
    codes = torch.rand(8, 6, generator=generator(), dtype=torch.float64)
    dense = dense_laplacian(graph, normalized=True)
    expected = np.einsum("bi,ij,bj->", codes, dense, codes) / codes.square().sum()
    assert roughness(codes, graph) == pytest.approx(float(expected), rel=1e-9)
    assert roughness(torch.zeros(3, 6), graph) is None


def test_row_roughness_is_the_trace(graph):
    codes = torch.rand(6, 4, generator=generator(), dtype=torch.float64)
    dense = dense_laplacian(graph, normalized=True)
    expected = np.trace(codes.numpy().T @ dense @ codes.numpy()) / codes.square().sum()
    assert row_roughness(codes, graph, 0)["rough"] == pytest.approx(float(expected), rel=1e-9)
    assert row_roughness(torch.zeros(6, 4), graph, 0) == {"rough": None, "rough_shuffled": None}


def test_sparsity_of_codes_that_are_all_dead_has_no_value():
    found = sparsity(torch.zeros(5, 4))
    assert (found["dead"], found["l0"], found["value_over_active"]) == (1.0, 0.0, None)
    assert found["document_dead"] == 100.0


def test_relevance_is_the_nearest_by_cosine():
    points = torch.randn(12, 3, generator=generator(), dtype=torch.float64)
    points[4] = 0.0  # a sentence of which nothing is known
    near = Neighbourhoods.of(points, generator())
    known = [i for i in range(12) if i != 4]
    assert near.known.tolist() == known
    assert near.ks == (10,)
    unit = points[known].numpy() / np.linalg.norm(points[known].numpy(), axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, 0.0)
    assert_allclose(near.relevance.toarray(), np.maximum(cosine, 0.0), atol=1e-12)
    scored = near.score(points, generator(), permutations=4)["10"]
    assert scored["ndcg"]["value"] == pytest.approx(1.0)
    assert scored["ndcg"]["chance"] < 1.0


def test_principal_components_are_those_of_svd():
    fit = torch.randn(50, 5, generator=generator(), dtype=torch.float64) * torch.arange(1.0, 6.0)
    rows = torch.randn(7, 5, generator=generator(1), dtype=torch.float64)
    centred = (fit - fit.mean(0)).numpy()
    _, _, vectors = np.linalg.svd(centred, full_matrices=False)
    expected = (rows - fit.mean(0)).numpy() @ vectors[:2].T
    assert_allclose(abs(principal_components(fit, rows, 2).numpy()), abs(expected), rtol=1e-8)


# Rules


def rows_of(arm, values, *, target=16, l0=16.0, failed=None):
    return [
        {
            "arm": arm,
            "label": arm,
            "target": target,
            "seed": seed,
            "l0": l0,
            "r2": v,
            "cut": {str(target): {"r2": v - 0.01}},
            "failed": failed,
        }
        for seed, v in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        (Interval(0.1, 0.05, 3), "better"),
        (Interval(-0.1, 0.05, 3), "worse"),
        (Interval(0.1, 0.2, 3), "undecided"),
        (Interval(0.1, None, 1), "undecided"),
        (Interval(0.0, 0.0, 3), "the same"),
        (Interval(0.1, 0.1, 3), "undecided"),  # the end is 0
        (None, "not run"),
    ],
)
def test_better_is_an_interval_on_one_side(difference, said):
    assert called(difference) == said


def test_differences_are_paired_by_seed():
    one, other = rows_of("a", [0.9, 0.8, 0.7]), rows_of("b", [0.5, 0.5, 0.5])[1:]
    found = paired(one, other, "r2")
    assert found.count == 2
    assert found.mean == pytest.approx(0.25)
    assert paired(one, [], "r2") is None
    assert paired(one, other, "nothing") is None


def test_failed_runs_are_left_out():
    rows = [*rows_of("a", [0.5]), *rows_of("a", [0.9], failed="not finite")]
    assert len(chosen(rows, arm="a")) == 1
    assert mean(chosen(rows, arm="a"), "r2").mean == 0.5


@pytest.mark.parametrize(("l0", "late"), [(16.0, False), (17.5, False), (17.7, True), (14.3, True)])
def test_a_target_is_missed_beyond_a_tenth(l0, late):
    assert missed(rows_of("a", [0.5], l0=l0), 16) is late


def test_no_rows_miss_every_target():
    assert missed([], 16)


SUBSTITUTES = Claim(says="{one} for {other}", one="a", other="b", substitutes=True)
BETTER = Claim(says="{one} over {other}", one="a", other="b")


@pytest.mark.parametrize(
    ("claim", "gap", "verdict"),
    [
        (SUBSTITUTES, 0.0, "holds"),
        (SUBSTITUTES, -0.01, "holds"),
        (SUBSTITUTES, -0.05, "fails"),
        (BETTER, 0.05, "holds"),
        (BETTER, -0.05, "fails"),
    ],
)
def test_verdicts_of_claims(claim, gap, verdict):
    other = [0.5, 0.51, 0.52]
    noise = [0.001, -0.001, 0.0]
    one = [o + gap + n for o, n in zip(other, noise, strict=True)]
    rows = [*rows_of("a", one), *rows_of("b", other)]
    (said,) = judged([claim], rows, [16, 40])  # nothing was run at 40
    assert f"**{verdict}**" in said
    assert "missed" not in said


def test_a_comparison_of_which_one_side_missed_its_target_says_so():
    rows = [*rows_of("a", [0.5, 0.6], l0=30.0), *rows_of("b", [0.5, 0.5])]
    (said,) = judged([BETTER], rows, [16])
    assert "The target was missed: L0 a 30" in said


def test_a_tie_is_undecided():
    rows = [*rows_of("a", [0.5, 0.5]), *rows_of("b", [0.5, 0.5])]
    (said,) = judged([BETTER], rows, [16])
    assert "**undecided**" in said


def test_against_a_null():
    scores = {"value": 0.5, "null_interval": [0.2, 0.4]}
    rows = [{"s": scores}, {"s": scores | {"value": 0.3}}, {"s": scores | {"value": 0.1}}]
    assert against_null(rows, "s") == "above chance on 1 of 3 seeds, below on 1"
    assert against_null([{}], "s") == "above chance on 0 of 1 seeds"


def test_values_are_found_by_name_and_place():
    row = {"a": {"b": [1, 2.5]}, "c": None}
    assert value(row, "a", "b", 1) == 2.5
    assert value(row, "a", "b", 5) is None
    assert value(row, "c", "d") is None


def frontier(arm, points, **more):
    return [
        {"arm": arm, "target": t, "l0": l0, "r2": r2, "failed": None, "ratio": 0.1} | more
        for t, l0, r2 in points
    ]


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([(16, 16.0, 0.1), (40, 40.0, 0.2)], "the prior, at every strength"),
        ([(16, 16.0, 0.1), (40, 40.0, 0.69)], "its strength"),
        ([(16, 30.0, 0.9), (40, 80.0, 0.9)], "undecided"),  # denser, and better: says nothing
        ([(16, 30.0, 0.3), (40, 80.0, 0.9)], "the prior, at every strength"),  # denser, and worse
    ],
)
def test_the_isotropic_failure_is_put_down_to_prior_or_strength(points, said):
    rows = [*frontier("l1", [(16, 16.0, 0.6), (40, 40.0, 0.7)]), *frontier("isotropic", points)]
    (found,) = pareto_findings(settings(smoke=False, seeds=None), rows)
    assert f"**{said}**" in found


# Document B


def test_published_tables_contradict_their_captions():
    """ "Dead %" is 100 (1 - mean AF), and batch MSE over neuron MSE is one width in every row."""
    for dead, _, frequency, _, neuron, batch, _ in TABLE_2.values():
        assert dead == pytest.approx(100 * (1 - frequency), abs=0.05)
        assert batch / neuron == pytest.approx(12 * 768, rel=0.01)
    for scores in TABLE_3.values():  # precision grows as k does: chance
        assert scores[5] / scores[3] == pytest.approx(256 / 64, rel=0.07)
