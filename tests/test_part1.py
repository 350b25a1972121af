"""Reproduction of part 1: its files and numbers, the rules of its verdicts, its true priors."""

import csv
import json
import math

import numpy as np
import pytest
import scipy.stats
import torch

from toys.reproduce import part1, part1_document, tables
from toys.reproduce.part1_arms import ARMS, alpha, closest, lifted, noise_of
from toys.reproduce.part1_matched import COMMON, error_at, frontier, matched_pair
from toys.reproduce.part1_runs import problem
from toys.reproduce.part1_verdicts import (
    Pair,
    Verdict,
    a25,
    a26,
    below,
    every,
    headline,
    most,
    ordered,
)
from toys.reproduce.tables import Interval, Table, interval, number

HOLDS, FAILS, UNDECIDED = Verdict


def answer(capsys, *arguments) -> dict:
    assert part1.main([*arguments, "--smoke", "--json", "--threads", "1", "--steps", "3"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1  # one object, one line, nothing else
    return json.loads(out, parse_constant=pytest.fail)  # NaN and Infinity are not JSON


def test_smoke_writes_what_it_says(tmp_path, capsys):
    state = torch.get_rng_state()
    result = answer(capsys, "--out", str(tmp_path), "--data", "gaussian")
    assert torch.equal(state, torch.get_rng_state())
    assert result["ok"] is True
    assert set(result["verdicts"]) == {"gaussian"}
    claims = {claim["claim"] for claim in result["verdicts"]["gaussian"]}
    assert {"headline", "A26"} <= claims
    arms = {row["arm"] for row in result["table"]}
    assert arms == set(ARMS)
    assert {row["case"] for row in result["table"]} == set(part1_document.TABLE)
    with (tmp_path / "part1.csv").open(newline="", encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert len(written) == len(result["table"])
    for line, row in zip(written, result["table"], strict=True):
        assert line == {name: "" if value is None else str(value) for name, value in row.items()}
        assert row["kl"] is None if row["arm"] == "l1" else row["kl"] >= 0
    report = (tmp_path / "part1.md").read_text(encoding="utf-8")
    some = next(row for row in result["table"] if row["arm"] == "graph" and row["case"] == "case3")
    shown = Interval(some["mse"], some["mse_ci95"], some["mse_seeds"])
    assert str(shown) in report
    assert json.loads((tmp_path / "run.json").read_text())["settings"] == result["settings"]
    for name in result["figures"]:
        picture = tmp_path / "figures" / name.rsplit("/", 1)[-1]
        assert picture.stat().st_size > 10_000
        assert json.loads(picture.with_suffix(".json").read_text())["data"] == "gaussian"


def test_smoke_of_the_frontier(tmp_path, capsys):
    result = answer(capsys, "--out", str(tmp_path), "--data", "copula", "--frontier")
    assert set(result["verdicts"]) == {"copula K32", "copula KF"}
    assert {row["latents"] for row in result["table"]} == {20, 32}
    swept = {(row["arm"], row["strength"]) for row in result["table"]}
    ends = {(a, s) for a, arm in ARMS.items() if not arm.threshold for s in arm.sweep[::5]}
    assert swept == ends
    assert (tmp_path / "frontier.md").exists()
    assert len(result["figures"]) == 2


def test_one_seed_decides_nothing():
    one = [Pair("case1", ([0.1], [1.0]), ([1.0], [10.0]))]
    assert headline(one).verdict is a26(one).verdict is a25(one, one).verdict is UNDECIDED


@pytest.mark.parametrize("count", [2, 5, 30])
def test_interval_against_scipy(count):
    values = np.random.default_rng(count).normal(3.0, 2.0, count)
    ours = interval(values)
    low, high = scipy.stats.t.interval(
        0.95, count - 1, loc=values.mean(), scale=scipy.stats.sem(values)
    )
    assert (ours.low, ours.high) == pytest.approx((low, high), rel=1e-12)
    assert ours.count == count


def test_interval_of_one_value_is_unbounded():
    one = interval([2.0])
    assert (one.mean, one.half_width, one.low, one.high) == (2.0, None, -math.inf, math.inf)
    assert str(one) == "2"


def test_interval_covers_at_its_level():
    """4 000 samples of 5: the binomial 5-sigma band around 0.95 is ± 0.017."""
    samples = np.random.default_rng(0).normal(size=(4000, 5))
    hits = np.mean([interval(row).low < 0 < interval(row).high for row in samples])
    assert abs(hits - 0.95) < 0.017


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.5, "1234"), (0.5, "0.5"), (99.96, "100"), (0.00012345, "0.000123"), (-0.05, "-0.05")],
)
def test_number(value, text):
    assert number(value) == text


def test_table_pads_missing_cells_and_keeps_digits(tmp_path):
    third = 1 / 3
    table = Table("T", [{"a": "x|y", "b": interval([third, 1.0])}, {"a": "z", "c": third}])
    table.write(tmp_path, "t")
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["a", "b", "b_ci95", "b_seeds", "c"]
    assert float(rows[1]["c"]) == third
    assert rows[1]["b"] == rows[0]["c"] == ""
    assert "| x\\|y | 0.667 ± 4.2 | – |" in (tmp_path / "t.md").read_text(encoding="utf-8")


def test_logic_of_three_values():
    assert every([HOLDS, HOLDS]) is HOLDS
    assert every([HOLDS, UNDECIDED]) is UNDECIDED
    assert every([UNDECIDED, FAILS]) is FAILS
    assert every([]) is UNDECIDED
    assert most([HOLDS, HOLDS, FAILS]) is HOLDS
    assert most([HOLDS, HOLDS, FAILS, FAILS]) is FAILS
    assert most([HOLDS, UNDECIDED, FAILS]) is UNDECIDED
    assert below(Interval(-1.0, 0.9, 5)) is HOLDS
    assert below(Interval(-1.0, 1.1, 5)) is UNDECIDED
    assert below(Interval(1.0, 0.9, 5)) is FAILS
    assert below(Interval(-1.0, None, 1)) is UNDECIDED


def around(mean: float, spread: float = 0.001) -> list[float]:
    return [mean * (1 + spread * k) for k in (-1.0, 0.5, 1.0, -0.5, 0.0)]


def cases(mse, l0, count=6) -> list[Pair]:
    base = (around(1.0), around(10.0))
    return [Pair(f"case{n}", (around(mse), base[0]), (around(l0), base[1])) for n in range(count)]


def test_headline_needs_error_size_and_sparsity():
    assert headline(cases(0.7, 10.0)).verdict is HOLDS
    assert headline(cases(0.7, 12.0)).verdict is FAILS  # lower error at more latents
    assert headline(cases(0.9, 10.0)).verdict is FAILS  # lower, but by a tenth
    assert headline(cases(1.1, 9.0)).verdict is FAILS
    mixed = cases(0.7, 10.0, 4) + cases(0.9, 10.0, 2)  # lower everywhere, by a fifth in most
    assert headline(mixed).verdict is HOLDS
    noisy = Pair("case7", (around(0.9, 0.5), around(1.0, -0.5)), (around(9.0), around(10.0)))
    assert headline([*mixed, noisy]).verdict is UNDECIDED
    assert headline(mixed).cases[0]["mse_change"] == pytest.approx(-0.3)


def test_headline_at_matched_sparsity_ignores_l0():
    matched = [Pair("case1", (around(0.7), around(1.0)), None)]
    assert headline(matched).verdict is HOLDS
    assert "equal L0" in headline(matched).rule
    empty = Pair("case2", ((), ()), None)  # frontiers that do not overlap
    assert headline([*matched, empty]).verdict is UNDECIDED
    json.dumps(headline([empty]).to_dict(), allow_nan=False)


def test_a26():
    assert a26(cases(0.99, 10.0)).verdict is HOLDS
    assert a26(cases(1.0, 10.0)).verdict is FAILS
    assert a26(cases(0.99, 11.0)).verdict is FAILS


def test_a25_needs_sparser_codes_and_equal_errors_at_equal_sparsity():
    fewer, more = cases(2.0, 5.0), cases(2.0, 11.0)
    assert a25(cases(1.02, 10.0), fewer).verdict is HOLDS
    assert a25(cases(1.2, 10.0), fewer).verdict is FAILS
    assert a25(cases(1.02, 10.0), more).verdict is FAILS
    assert a25(cases(1.2, 12.0), fewer).verdict is UNDECIDED  # L0 differs: the error says nothing


def test_ordered():
    better = {"case3": (around(0.9), around(0.8)), "case4": (around(0.9), around(0.8))}
    up, down = (ordered("r", "s", "mcc", better, higher=higher) for higher in (True, False))
    assert (up.verdict, down.verdict) == (HOLDS, FAILS)
    worse = better | {"case5": (around(0.8), around(0.9))}
    assert ordered("r", "s", "mcc", worse, higher=True).verdict is FAILS
    single = {"case3": ([0.9], [0.8])}
    assert ordered("r", "s", "mcc", single, higher=True).verdict is UNDECIDED
    assert up.cases[0]["mcc_difference"] == pytest.approx(0.1)
    assert (up.rule, down.rule) == ("higher MCC in every case", "lower MCC in every case")


def test_error_at_is_interpolation_in_logarithms():
    l0, mse = [1.0, 3.0, 9.0, 27.0], [2.0, 0.9, 0.4, 0.01]
    points = list(zip(l0, mse, strict=True))
    for at in np.geomspace(1.0, 27.0, 17)[1:-1]:
        oracle = math.exp(np.interp(math.log(at), np.log(l0), np.log(mse)))
        assert error_at(points[::-1], float(at)) == pytest.approx(oracle, rel=1e-12)
    assert error_at(points, 0.9) is None
    assert error_at(points, 27.1) is None
    assert error_at([*points, (5.0, 5.0), (0.0, 3.0)], 5.0) == error_at(points, 5.0)
    assert frontier([(2.0, 1.0), (2.0, 0.5)]) == [(2.0, 0.5)]


def test_matched_pair_uses_only_what_every_seed_reaches():
    def sweep(factor: float, top: float) -> list[dict]:
        return [
            {"seed": seed, "l0": l0, "mse": factor * 8 / l0}
            for seed in (0, 1)
            for l0 in (0.9, top - seed)
        ]

    pair = matched_pair("case1", sweep(0.5, 10.0), sweep(1.0, 7.0), [0, 1])
    used = [l0 for l0 in COMMON if 0.9 <= l0 <= 6.0]  # seed 1 of the baseline ends at 6
    expected = math.exp(np.mean([math.log(8 / l0) for l0 in used]))
    assert pair.mse[1] == pytest.approx([expected] * 2)
    assert pair.mse[0] == pytest.approx([expected / 2] * 2)
    assert matched_pair("case1", sweep(0.5, 10.0), [], [0, 1]).mse == ((), ())


@pytest.mark.parametrize("case", ["case3", "case4"])
def test_graph_prior_is_exact_where_the_truth_is_a_laplacian(case):
    toy = problem("gaussian", case, 0).toy
    ridge, strength = closest(toy.graph, toy.correlation)
    precision = ridge * np.eye(20) + strength * toy.graph.laplacian().toarray()
    # BFGS stops at a gradient of 1e-5 of a smooth convex function, hence not to rounding.
    np.testing.assert_allclose(np.linalg.inv(precision), toy.correlation.numpy(), atol=1e-4)


@pytest.mark.parametrize("case", ["case3", "case5", "case6"])
def test_closest_beats_its_neighbours(case):
    toy = problem("gaussian", case, 1).toy
    graph = lifted(toy.graph, 32)
    covariance = torch.block_diag(toy.correlation, torch.eye(12)).numpy()

    def divergence(ridge: float, strength: float) -> float:
        precision = ridge * np.eye(32) + strength * graph.laplacian().toarray()
        return np.trace(precision @ covariance) - np.linalg.slogdet(precision)[1]

    ridge, strength = closest(graph, toy.correlation)
    best = divergence(ridge, strength)
    for a, b in [(0.9, 1.0), (1.1, 1.0), (1.0, 0.9), (1.0, 1.1), (0.9, 1.1), (1.1, 0.9)]:
        assert best < divergence(a * ridge, b * strength)


def test_shuffled_control_differs_from_the_graph_in_its_edges_only():
    toy = problem("copula", "case5", 0).toy
    generator = torch.Generator().manual_seed(3)
    true, shuffled = (ARMS[name].prior(toy, 32, generator) for name in ("graph", "shuffled"))
    assert not torch.equal(true.graph.edges, shuffled.graph.edges)
    assert true.graph.num_edges == shuffled.graph.num_edges
    one, two = true().precision, shuffled().precision
    assert one.logdet().item() == pytest.approx(two.logdet().item(), rel=1e-12)


def test_map_from_beta_to_alpha():
    assert alpha(1.0) == pytest.approx(0.02)
    assert noise_of(alpha(4.0)) == pytest.approx(0.2)


def test_tables_need_no_rounding_to_be_json():
    assert tables.Table("T", [{"a": 0.1, "b": None}]).records() == [{"a": 0.1, "b": None}]
