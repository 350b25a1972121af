"""``vsae reproduce dead``: its rules against numbers known, its arms, one smoke run."""

import json

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from toys.reproduce import dead
from toys.reproduce.collapse import Problem
from toys.reproduce.dead_arms import ALIGNED, ARMS, RANDOM
from toys.reproduce.dead_runs import DATA, FREE, SHRUNK, Job, build, jobs, run, score, train
from toys.reproduce.dead_settings import Settings, settings
from toys.reproduce.dead_tables import Results, _multiple, all_tables, findings
from vsae import topk_autoencoder
from vsae.autoencoder import Autoencoder

TINY = Settings(
    seeds=(0, 1), latents=48, k=3, steps=6, batch=20, after=30, resample_at=(2,), resample_rows=150
)


def small(seed=0, d=5):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(400, d, generator=generator)
    return Problem("copula", x[:300], x[300:])


def pair_of(name, found, seed=0) -> Autoencoder:
    return build(next(arm for arm in ARMS if arm.name == name), found, TINY, seed)


def test_arms_of_a_seed_differ_in_their_encoder_and_remedy_alone():
    found = small()
    first = pair_of(ALIGNED, found)
    assert torch.equal(first.W_enc.mT, first.W_dec)
    for arm in ARMS:
        pair = build(arm, found, TINY, 0)
        assert torch.equal(pair.W_dec, first.W_dec), arm.name
        assert pair.model.prior().event_shape[0] == TINY.latents
    random = pair_of(RANDOM, found)
    cosines = (random.W_enc.mT * random.W_dec).sum(-1)
    torch.testing.assert_close(random.W_enc.norm(dim=0), torch.ones(TINY.latents))
    assert cosines.abs().max() < 1 - 1e-6
    assert not torch.equal(pair_of(ALIGNED, found, 1).W_dec, first.W_dec)


def test_every_arm_trains_and_only_resampled_ones_are_resampled(monkeypatch):
    found, called = small(), []
    monkeypatch.setattr("toys.reproduce.dead_runs.resample", lambda *a, **k: called.append(k))
    for arm in ARMS:
        pair, before = build(arm, found, TINY, 0), len(called)
        start = pair.W_dec.detach().clone()
        train(pair, arm, found.train, TINY, 0)
        assert not torch.equal(pair.W_dec, start)
        assert len(called) - before == (arm.resampled is not None)
    assert [k["scale"] for k in called] == [0.2, 1.0]


def test_scores_are_what_numpy_says():
    found, pair = small(), topk_autoencoder(5, 48, k=3)
    codes = pair.encode(found.test).detach().numpy()
    x, restored = found.test.numpy(), pair(found.test).detach().numpy()
    got = score(pair, found.test)
    assert got["dead"] == pytest.approx(100 * (codes == 0).all(0).mean())
    assert got["l0"] == pytest.approx((codes != 0).sum(1).mean())
    explained = 1 - ((x - restored) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()
    assert got["ev"] == pytest.approx(explained)


def rows_of(chosen, dead_of):
    """Rows as a run has them, with ``dead_of(arm, seed)`` per cent dead."""
    rows = []
    for job in jobs(chosen):
        row = {"data": job.data, "arm": job.arm, "seed": job.seed, "k": job.k, "alpha": job.alpha}
        if job.k is None:
            row |= {"dead": dead_of(job.arm, job.seed), "ev": 0.5 + 0.1 * job.seed, "l0": 8.0}
        else:
            alive = 5.0 * job.k + job.seed if job.arm == SHRUNK.name else 512.0
            row |= {"alive": alive, "ratio": alive / job.k, "ev": 0.5}
        rows.append(row)
    return rows


def test_verdicts_are_paired_and_need_an_interval_without_zero():
    """Seeds differ by far more than arms; the difference per seed is what counts."""
    shift = {"random encoder + AuxK": -3.0, "random encoder + resampling, norm 0.2": 2.0}
    noise = {0: 0.0, 1: 0.1, 2: -0.1}
    chosen = Settings()

    def dead_of(arm, seed):
        return 20.0 + 15 * seed + shift.get(arm, 0.0) + (noise[seed] if arm != RANDOM else 0.0)

    results = Results(chosen, rows_of(chosen, dead_of))
    arm = next(a for a in ARMS if a.name == "random encoder + AuxK")
    change = results.change("copula", arm, "dead")
    expected = -3.0 + np.array([0.0, 0.1, -0.1])
    assert change.mean == pytest.approx(expected.mean())
    assert change.half_width == pytest.approx(4.302653 * expected.std(ddof=1) / 3**0.5, rel=1e-6)
    said = {s.split("**")[1]: s for s in findings(results) if s.startswith("**")}
    assert "fewer dead" in said["random encoder + AuxK"]
    assert "more dead" in said["random encoder + resampling, norm 0.2"]
    assert "undecided" in said["random encoder + resampling, norm 1"]
    assert "5.25 (k = 4)" in said["Collapse, copula"]
    assert said["Collapse, copula"].endswith("a factor 1.04: a fixed multiple.")


@pytest.mark.parametrize(
    ("ratios", "said"),
    [
        ([6.0, 8.9], ": a fixed"),
        ([6.0, 9.1, 7.0], ": not a fixed"),
        ([6.0], "nothing"),
        ([], "nothing"),
    ],
)
def test_a_multiple_is_fixed_within_half(ratios, said):
    assert said in _multiple(ratios)


def test_tables_have_a_row_for_everything_that_ran():
    chosen = Settings()
    found = all_tables(Results(chosen, rows_of(chosen, lambda arm, seed: 1.0 + seed)))
    assert set(found) == {"remedies_copula", "remedies_stories260K", "collapse", "alpha"}
    assert [row["arm"] for row in found["remedies_copula"].rows] == [arm.name for arm in ARMS]
    assert len(found["collapse"].rows) == len(DATA) * len(chosen.ks)
    assert len(found["alpha"].rows) == len(DATA) * (1 + len(chosen.alphas))


def test_the_reported_run_has_as_many_models_as_it_says():
    chosen = settings(smoke=False, seeds=None)
    collapse = 2 * len(chosen.ks) + len(chosen.alphas)
    assert len(list(jobs(chosen))) == len(DATA) * 3 * (len(ARMS) + collapse)
    assert chosen.test >= 20_000
    assert settings(smoke=False, seeds=5).seeds == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("p", [0.001, 0.02, 0.3])
def test_the_explanation_is_the_minimum_it_claims(p):
    a, c, alpha = 1.7, 0.1, 0.3
    found = minimize_scalar(lambda m: p * (a - m) ** 2 + 0.5 * alpha * c * m**2).x
    assert found == pytest.approx(a * p / (p + alpha * c / 2), rel=1e-6)


@pytest.mark.float32
def test_a_job_of_the_collapse_counts_living_latents(monkeypatch):
    monkeypatch.setattr("toys.reproduce.dead_runs.problem", lambda *_: small(d=64))
    chosen = Settings(collapse_latents=32, collapse_steps=3)
    row = run(Job(data="copula", arm=FREE.name, seed=0, k=4, alpha=0.3), chosen)
    assert 4 <= row["alive"] <= 32
    assert row["ratio"] == pytest.approx(row["alive"] / 4)


@pytest.mark.float32
def test_smoke_run_writes_everything_it_promises(tmp_path, capsys):
    out, state, threads = tmp_path / "dead", torch.get_rng_state(), torch.get_num_threads()
    assert dead.main(["--smoke", "--threads", "1", "--json", "--out", str(out)]) == 0
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    result = json.loads(capsys.readouterr().out)  # one object, nothing else
    assert result["ok"] is True
    text = (out / "dead.md").read_text(encoding="utf-8")
    for sentence in result["findings"]:
        assert sentence in text
    for stem, records in result["tables"].items():
        lines = (out / "tables" / f"{stem}.csv").read_text(encoding="utf-8").splitlines()
        assert len(lines) == len(records) + 1
    (figure,) = result["figures"]
    assert (out / "figures" / "dead.png").read_bytes().startswith(b"\x89PNG")
    assert figure.endswith("dead.png")
    written = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert {"settings", "versions", "wall_seconds", "smoke"} <= set(written)
    assert written["settings"]["seeds"] == [0]
