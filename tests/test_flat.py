"""``vsae reproduce flat``: matched L0 without extrapolation, verdicts by rule, arms that train."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch

from toys.reproduce import flat
from toys.reproduce.flat_arms import ARMS, BASE
from toys.reproduce.flat_controls import CONTROLS
from toys.reproduce.flat_data import DATA, problem
from toys.reproduce.flat_figures import spread
from toys.reproduce.flat_findings import findings
from toys.reproduce.flat_matched import OF, Outcome, at_l0, cell_at, contrast, outcome
from toys.reproduce.flat_runs import Job, best, build, jobs, run, searches, strengths
from toys.reproduce.flat_settings import VALIDATION, Settings, settings
from toys.reproduce.flat_tables import Results, all_tables, label
from toys.reproduce.tables import Interval, interval

TINY = replace(settings(smoke=True, seeds=2, steps=5), toy_rows=512, toy_test=256)


def job(arm: str, **changes) -> Job:
    given = {"data": "toy", "arm": arm, "strength": ARMS[arm].middle("toy"), "seed": 0, "lr": 1e-2}
    return Job(**(given | changes))


def sweep(arm: str, seed: int, points: list[tuple[float, float]], metric: str = "ev") -> list[dict]:
    return [
        {"data": "toy", "arm": arm, "seed": seed, "strength": n, "lr": 0.1, "failed": None}
        | {"l0": l0, metric: value}
        for n, (l0, value) in enumerate(points)
    ]


def test_a_metric_between_strengths_is_linear_in_log_l0():
    l0, value = [1.0, 3.0, 9.0, 27.0], [0.2, 0.9, 0.4, 0.5]
    points = list(zip(l0, value, strict=True))
    for at in np.geomspace(1.0, 27.0, 17):
        oracle = np.interp(math.log(at), np.log(l0), value)
        assert at_l0(points[::-1], float(at)) == pytest.approx(oracle, rel=1e-12)


@pytest.mark.parametrize("l0", [0.0, 0.99, 27.01, 1e9])
def test_nothing_is_extrapolated(l0):
    assert at_l0([(1.0, 0.2), (27.0, 0.5)], l0) is None
    assert at_l0([], l0) is None


def test_a_code_of_zeros_is_no_point_and_equal_l0_are_averaged():
    assert at_l0([(0.0, 0.0), (4.0, 1.0)], 2.0) is None
    assert at_l0([(4.0, 1.0), (4.0, 0.5)], 4.0) == 0.75
    assert at_l0([(2.0, 0.0), (4.0, 1.0), (8.0, 0.0)], 4.0) == 1.0  # a worse point stays


def test_a_cell_is_an_interval_over_seeds_or_says_why_not():
    rows = [r for s in (0, 1, 2) for r in sweep("topk", s, [(2.0, 0.1 * s), (8.0, 0.1 * s + 1)])]
    cell = cell_at(rows, (0, 1, 2), "ev", 4.0)
    low, high = scipy.stats.t.interval(0.95, 2, loc=0.6, scale=scipy.stats.sem([0.5, 0.6, 0.7]))
    assert (cell.low, cell.high) == pytest.approx((low, high), rel=1e-9)
    assert cell_at(rows, (0, 1, 2), "ev", 9.0) == "L0 2 to 8"
    later = sweep("topk", 3, [(9.0, 0.1), (12.0, 0.2)])
    assert cell_at([*rows, *later], (0, 3), "ev", 4.0) == "L0 differs by seed"
    assert cell_at(rows, (1, 2), "mcc", 4.0) == "none"
    rows[0]["failed"] = "not finite at step 3"
    assert cell_at(rows, (0, 1, 2), "ev", 4.0) == "not finite"


def test_contrast_is_paired_and_corrected_against_scipy():
    rng = np.random.default_rng(0)
    seeds, shift = range(5), rng.normal(0.1, 0.02, 5)
    base = [r for s in seeds for r in sweep("topk", s, [(2.0, float(s)), (8.0, s + 1.0)])]
    arm = [
        r
        for s in seeds
        for r in sweep("l1", s, [(3.0, s + shift[s] + math.log(1.5, 4)), (8.0, s + shift[s] + 1.0)])
    ]
    found = contrast(arm, base, seeds, "ev", (2.0, 4.0, 6.0, 9.0), comparisons=11)
    assert found.common == (4.0, 6.0)  # both reach these in every seed
    low, high = scipy.stats.t.interval(
        1 - 0.05 / 11, 4, loc=shift.mean(), scale=scipy.stats.sem(shift)
    )
    assert (found.gain.low, found.gain.high) == pytest.approx((low, high), rel=1e-9)
    assert found.outcome is Outcome.BETTER
    assert contrast(base, arm, seeds, "ev", (4.0,), 11).outcome is Outcome.WORSE
    assert contrast(arm, base, seeds, "ev", (2.0, 9.0), 11).outcome is Outcome.APART


def test_fewer_dead_latents_are_better():
    base = [r for s in (0, 1) for r in sweep("topk", s, [(2.0, 50.0 + s), (8.0, 50.0)], "dead")]
    arm = [r for s in (0, 1) for r in sweep("l1", s, [(2.0, 1.0 + s), (8.0, 1.0)], "dead")]
    found = contrast(arm, base, (0, 1), "dead", (4.0,), 1)
    assert found.gain.mean == pytest.approx(49)
    assert found.outcome is Outcome.BETTER


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        (Interval(1.0, 0.9, 3), Outcome.BETTER),
        (Interval(-1.0, 0.9, 3), Outcome.WORSE),
        (Interval(1.0, 1.1, 3), Outcome.UNDECIDED),
        (Interval(1.0, None, 1), Outcome.UNDECIDED),
        (Interval(0.0, 0.0, 3), Outcome.SAME),
    ],
)
def test_outcomes(gain, said):
    assert outcome(gain) is said


@pytest.mark.parametrize("arm", ARMS)
def test_arms_build_train_and_are_measured(arm):
    row = run(job(arm), TINY)
    assert row["failed"] is None
    names = ("objective", "l0", "ev", "mse", "dead", "mcc", "f1")
    assert all(math.isfinite(row[name]) for name in names)
    assert 0 < row["l0"] <= TINY.toy_latents
    assert 0 <= row["f1"] <= 1
    assert 0 < row["mcc"] <= 1
    json.dumps(row, allow_nan=False)


@pytest.mark.parametrize("arm", ["l1", "batch_topk", "variational"])
def test_same_seed_same_row_another_seed_another(arm):
    assert run(job(arm), TINY) == run(job(arm), TINY)
    assert run(job(arm), TINY)["ev"] != run(job(arm, seed=1), TINY)["ev"]


def test_all_arms_of_a_seed_start_from_the_same_atoms_and_units():
    found = problem("toy", TINY, 0)
    pairs = [build(job(arm), found) for arm in ARMS]
    for pair in pairs:
        assert torch.equal(pair.W_dec, pairs[0].W_dec)
        assert pair.W_dec.shape == (TINY.toy_latents, TINY.toy_width)
        assert pair.normalizer is found.size.normalizer


def test_scores_against_numpy():
    found = problem("toy", TINY, 0)
    pair = build(job("topk"), found)
    x, codes = found.test.numpy(), pair.encode(found.test).detach().numpy()
    restored = pair(found.test).detach().numpy()
    row = found.score(pair)
    assert row["l0"] == pytest.approx((codes != 0).sum(1).mean())
    assert row["dead"] == pytest.approx(100 * (~(codes != 0).any(0)).mean())
    ev = 1 - ((x - restored) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()
    assert row["ev"] == pytest.approx(ev, rel=1e-12)
    assert row["mse"] == pytest.approx(((x - restored) ** 2).mean(), rel=1e-12)


def test_the_toy_is_what_the_report_says():
    found = problem("toy", replace(TINY, toy_test=20_000), 0)
    assert tuple(found.toy.dictionary.shape) == (TINY.features, TINY.toy_width)
    # Features in a group correlate at 0.8, so the rate's standard error is below that of 32 alone.
    rate = (found.codes > 0).double().mean().item()
    assert rate == pytest.approx(TINY.firing, abs=5 * (0.05 / (20_000 * 16)) ** 0.5)
    phi = np.corrcoef((found.codes > 0).numpy().T)
    assert phi[0, 1] > 0.3
    assert phi[32, 33] < 0
    assert abs(phi[0, 40]) < 5 / 20_000**0.5


def test_controls_are_chance_and_principal_components():
    found = problem("toy", TINY, 0)
    chance = found.chance()
    draws = [CONTROLS["untrained"].score(found, 4, seed)["mcc"] for seed in range(20)]
    # Both are means of 20 draws of one law; its standard deviation is about 0.007 here.
    assert chance == pytest.approx(np.mean(draws), abs=5 * np.std(draws) * (2 / 20) ** 0.5)
    x, y = found.train.numpy(), found.test.numpy()
    basis = np.linalg.svd(x - x.mean(0), full_matrices=False)[2][:5]
    restored = x.mean(0) + (y - x.mean(0)) @ basis.T @ basis
    ev = 1 - ((y - restored) ** 2).sum() / ((y - y.mean(0)) ** 2).sum()
    assert CONTROLS["pca"].score(found, 5, 0)["ev"] == pytest.approx(ev, rel=1e-9)


def test_learning_rates_are_chosen_by_the_objective_on_a_seed_of_their_own():
    searched = list(searches(TINY))
    assert {j.seed for j in searched} == {VALIDATION}
    assert VALIDATION not in Settings().seeds
    assert {(j.data, j.arm, j.lr) for j in searched} == {
        (data, arm, lr) for data in DATA for arm in ARMS for lr in TINY.rates
    }
    assert not any(j.score for j in searched)
    assert "ev" not in run(replace(searched[0], strength=1.0), TINY)
    rows = [
        {"data": "toy", "arm": "l1", "lr": lr, "objective": objective}
        for lr, objective in ((1.0, None), (0.1, 5.0), (0.01, 4.0), (0.001, 7.0))
    ]
    assert best(rows) == {("toy", "l1"): 0.01}


def test_every_arm_control_strength_and_seed_is_run_once():
    everything = Settings()
    rates = dict.fromkeys(((data, arm) for data in DATA for arm in ARMS), 0.1)
    wanted = list(jobs(everything, rates))
    assert len(set(wanted)) == len(wanted)
    for data in DATA:
        for arm in (*ARMS, *CONTROLS):
            mine = {(j.strength, j.seed) for j in wanted if (j.data, j.arm) == (data, arm)}
            swept = strengths(arm, data, everything)
            assert mine == {(s, seed) for s in swept for seed in everything.seeds}
            assert len(swept) >= 3


def test_a_run_that_diverges_is_reported_and_leaves_a_blank():
    row = run(job("l1", lr=1e300), TINY)
    assert "not finite" in row["failed"]
    assert row["objective"] is None
    assert cell_at([row], (0,), "ev", 4.0) == "not finite"


def test_names_of_lines_are_apart_and_as_near_as_possible():
    wanted = sorted(np.random.default_rng(3).uniform(0, 0.9, 12))
    places = np.array(spread(wanted, 0.04))
    assert (np.diff(places) > 0.04 - 1e-12).all()
    ramp = 0.04 * np.arange(12)
    oracle = scipy.optimize.isotonic_regression(np.array(wanted) - ramp).x + ramp
    np.testing.assert_allclose(places, oracle, atol=1e-12)
    crowded = np.array(spread([0.9, 0.95, 1.0, 3.0], 0.1))
    np.testing.assert_allclose(crowded, [0.7, 0.8, 0.9, 1.0])


def made_up() -> Results:
    """All arms equal but one, which explains 0.1 more with features 0.1 worse."""
    rows = []
    for data, metrics in OF.items():
        for arm in (*ARMS, *CONTROLS):
            for seed in (0, 1, 2):
                for n, l0 in enumerate((1.0, 40.0)):
                    row = sweep(arm, seed, [(l0, 0.0)])[0] | {"data": data, "strength": float(n)}
                    row |= dict.fromkeys((*metrics, "mse"), 0.5 + 0.01 * seed)
                    if arm == "gated":
                        row["ev"] += 0.1 + 0.0001 * seed
                    if arm == "gated" and data == "toy":
                        row["mcc"] -= 0.1 + 0.0001 * seed
                    rows.append(row)
    return Results(Settings(), [], rows, {0: 0.4, 1: 0.4, 2: 0.41})


def test_findings_count_what_the_rows_say():
    said = "\n".join(findings(made_up()))
    others = len(ARMS) - 1
    assert f"better 1 of {others} (Gated +0.1)" in said
    assert f"worse 1 of {others} (Gated −0.1)" in said
    assert f"identical {others - 1} of {others}" in said
    assert f"Highest mean explained variance, copula toy: {label('gated')} at L0 2.5" in said
    assert "0.65" not in said  # no level, only differences


def test_tables_have_a_line_per_arm_and_the_baseline_no_verdict():
    tables = all_tables(made_up())
    for stem in ("ev_toy", "ce_recovered_stories", "mcc_toy"):
        lines = {line["arm"]: line for line in tables[stem].rows}
        assert {label(arm) for arm in ARMS} <= set(lines)
        assert "verdict" not in lines[label(BASE)]
    assert tables["mcc_toy"].rows[-1]["L0 = 4"] == interval([0.4, 0.4, 0.41])


@pytest.mark.float32
def test_smoke_run_writes_everything_it_promises(tmp_path, capsys):
    out, state, threads = tmp_path / "flat", torch.get_rng_state(), torch.get_num_threads()
    assert flat.main(["--smoke", "--threads", "1", "--json", "--out", str(out)]) == 0
    assert torch.equal(state, torch.get_rng_state())
    assert torch.get_num_threads() == threads
    text = capsys.readouterr().out
    assert text.count("\n") == 1  # one object, one line, nothing else
    result = json.loads(text, parse_constant=pytest.fail)
    assert result["ok"] is True
    assert result["failed"] == []
    for stem, records in result["tables"].items():
        with (out / "tables" / f"{stem}.csv").open(newline="", encoding="utf-8") as file:
            assert len(list(csv.DictReader(file))) == len(records)
    report = (out / "flat.md").read_text(encoding="utf-8")
    assert all(f"- {sentence}" in report for sentence in result["findings"])
    points = result["tables"]["points"]
    assert {row["arm"] for row in points} == {label(arm) for arm in (*ARMS, *CONTROLS)}
    for row in points:
        recovered = row["CE recovered (mean ablation = 0)"]
        assert (recovered is None) == (row["data"] == "copula toy")
    for path in result["figures"]:
        picture = out / "figures" / path.rsplit("/", 1)[-1]
        assert picture.stat().st_size > 10_000
        assert json.loads(picture.with_suffix(".json").read_text(encoding="utf-8"))
    run_file = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert run_file["settings"]["seeds"] == [0, 1]
    assert run_file["versions"]["torch"]
