"""Calibration against loops, exact binomial laws, and forecasts known to be right or wrong."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vsae import metrics
from vsae.errors import ConfigError, DataError

seeds = st.integers(0, 2**31)


def rng(seed):
    return torch.Generator().manual_seed(seed)


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("trials", [1, 2, 7, 40])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_binomial_intervals_are_those_of_scipy(trials, level):
    hits = torch.arange(trials + 1)
    lower, upper = metrics.binomial_interval(hits, torch.full_like(hits, trials), level=level)
    for k in range(trials + 1):
        exact = stats.binomtest(k, trials).proportion_ci(level, method="exact")
        assert (lower[k].item(), upper[k].item()) == pytest.approx((exact.low, exact.high))


@pytest.mark.parametrize("trials", [1, 5, 30])
def test_binomial_intervals_cover_at_least_their_level(trials):
    """The exact coverage, summed over all counts, at a thousand probabilities."""
    hits = torch.arange(trials + 1)
    lower, upper = (b.numpy() for b in metrics.binomial_interval(hits, 0 * hits + trials))
    p = np.linspace(0, 1, 1001)[:, None]
    covered = (stats.binom.pmf(hits.numpy(), trials, p) * ((lower <= p) & (p <= upper))).sum(1)
    assert covered.min() >= 0.95 - 1e-12


def test_no_trials_say_nothing():
    bounds = metrics.binomial_interval(torch.tensor(0), torch.tensor(0))
    assert [b.item() for b in bounds] == [0, 1]


@given(seeds, st.integers(1, 6))
def test_reliability_against_loops(seed, bins):
    generator = rng(seed)
    p = torch.rand(4, 5, generator=generator, dtype=torch.float64)
    p = torch.where(p > 0.8, p.round(), p)  # some forecasts are certain
    events = torch.rand(4, 5, generator=generator) < 0.4
    found = metrics.reliability(p, events, bins=bins)
    rows = list(zip(p.flatten().tolist(), events.flatten().tolist(), strict=True))
    rate, error, rel, res = sum(o for _, o in rows) / 20, 0.0, 0.0, 0.0
    for b in range(bins):
        last = b == bins - 1
        here = [r for r in rows if b / bins <= r[0] and (r[0] < (b + 1) / bins or last)]
        assert found.counts[b] == len(here)
        if not here:
            assert found.predicted[b].isnan()
            assert (found.lower[b].item(), found.upper[b].item()) == (0, 1)
            continue
        mean, seen = (sum(r[i] for r in here) / len(here) for i in (0, 1))
        assert found.predicted[b].item() == pytest.approx(mean)
        assert found.observed[b].item() == pytest.approx(seen)
        exact = stats.binomtest(sum(o for _, o in here), len(here)).proportion_ci()
        assert found.lower[b].item() == pytest.approx(exact.low)
        error += len(here) / 20 * abs(mean - seen)
        rel += len(here) / 20 * (mean - seen) ** 2
        res += len(here) / 20 * (seen - rate) ** 2
    got = (found.error, found.reliability, found.resolution, found.base_rate, found.brier)
    brier = sum((q - o) ** 2 for q, o in rows) / 20
    assert got == pytest.approx((error, rel, res, rate, brier), abs=1e-14)
    parts = found.reliability - found.resolution + found.uncertainty + found.within
    assert parts == pytest.approx(brier, abs=1e-14)


CENTRES, ROWS = torch.tensor([0.05, 0.25, 0.55, 0.95]), 500


def forecasts(generator, bend=lambda p: p):
    """Four forecasts, one per bin of ten, 500 of each; events happen with ``bend(forecast)``."""
    p = CENTRES.repeat_interleave(ROWS)
    return p, torch.rand(len(p), generator=generator, dtype=torch.float64) < bend(p)


def test_the_error_of_perfect_forecasts():
    """Its mean is that of four binomial deviations, by their exact law; the bound is above it."""
    k = np.arange(ROWS + 1)
    exact = np.mean(
        [(stats.binom.pmf(k, ROWS, p) * abs(k / ROWS - p)).sum() for p in CENTRES.numpy()]
    )
    runs = [metrics.reliability(*forecasts(rng(s)), bins=10) for s in range(400)]
    errors = np.array([run.error for run in runs])
    assert abs(errors.mean() - exact) < 4.5 * errors.std() / math.sqrt(len(runs))
    assert 0.75 < exact / runs[0].error_bound < 1  # √(2/π) ≈ .80 where the law is near normal
    full = runs[0].counts > 0
    inside = [(r.lower <= r.predicted) & (r.predicted <= r.upper) for r in runs]
    held = int(torch.stack(inside)[:, full].sum())
    assert stats.binomtest(held, 4 * len(runs), 0.95, "less").pvalue > 1e-5


def test_wrong_forecasts_are_found_out():
    """Events rarer than forecast, p²: the error is the mean of p - p², far above its bound."""
    found = metrics.reliability(*forecasts(rng(0), torch.square), bins=10)
    expected = (CENTRES - CENTRES**2).mean().item()
    assert abs(found.error - expected) < 4.5 * 0.5 / math.sqrt(4 * ROWS)
    assert found.error > 4.5 * found.error_bound
    # what calibration would gain of the Brier score is the mean square of the shift
    gain = (CENTRES - CENTRES**2).square().mean().item()
    assert found.reliability == pytest.approx(gain, rel=0.2)


def test_the_base_rate_is_calibrated_and_says_nothing():
    events = torch.rand(1000, generator=rng(0)) < 0.03
    control = metrics.reliability(events.double().mean().expand(1000), events, bins=15)
    assert control.error == pytest.approx(0, abs=1e-12)
    assert control.brier == pytest.approx(control.uncertainty)
    assert (control.skill, control.resolution) == pytest.approx((0, 0), abs=1e-12)
    sure = metrics.reliability(events.double(), events, bins=15)
    assert (sure.error, sure.error_bound, sure.brier, sure.skill) == (0, 0, 0, 1)
    never = metrics.reliability(torch.full((4,), 0.1), torch.zeros(4) > 0, bins=2)
    assert math.isnan(never.skill)


LEVELS = torch.tensor([0.1, 0.5, 0.8, 0.95, 0.99])


def credible(generator, spread):
    """Central intervals of the posterior of a normal mean, its deviation multiplied by spread."""
    truth = normal(generator, 20_000)
    seen = truth + 0.5 * normal(generator, 20_000)
    half = torch.from_numpy(stats.norm.ppf((1 + LEVELS.numpy()) / 2))[:, None]
    half = half * spread * math.sqrt(0.25 / 1.25)
    return metrics.interval_coverage(
        seen / 1.25 - half, seen / 1.25 + half, truth, levels=LEVELS, confidence=1 - 1e-5
    )


@pytest.mark.parametrize("spread", [1.0, 0.6, 1.5])
def test_coverage_of_credible_intervals(spread):
    """Exact posteriors cover as they say; others as the normal law says: all within bounds."""
    found = credible(rng(0), spread)
    expected = torch.from_numpy(2 * stats.norm.cdf(spread * stats.norm.ppf((1 + LEVELS) / 2)) - 1)
    assert ((found.lower <= expected) & (expected <= found.upper)).all()
    if spread != 1:
        assert not ((found.lower <= LEVELS) & (found.upper >= LEVELS)).any()
    assert found.count == 20_000
    half = stats.norm.ppf((1 + LEVELS) / 2)
    torch.testing.assert_close(found.width, torch.from_numpy(2 * half * spread * math.sqrt(0.2)))


def test_ends_belong_to_intervals():
    ends = torch.tensor([[0.0, 1.0, 2.0]])
    truth = torch.tensor([0.0, 1.0, 2.1])
    found = metrics.interval_coverage(ends, ends, truth, levels=LEVELS[:1])
    assert found.coverage.item() == pytest.approx(2 / 3)
    exact = stats.binomtest(2, 3).proportion_ci()
    assert (found.lower.item(), found.upper.item()) == pytest.approx((exact.low, exact.high))


@given(seeds)
def test_ranks_without_ties(seed):
    truth, draws = normal(rng(seed), 2, 3), normal(rng(seed + 1), 7, 2, 3)
    ranks = metrics.sbc_ranks(truth, draws, generator=rng(0))
    for i in range(2):
        for j in range(3):
            line = sorted([*draws[:, i, j].tolist(), truth[i, j].item()])
            assert ranks[i, j] == line.index(truth[i, j].item())


def test_ties_are_broken_evenly():
    """One draw below, four equal, one above: ranks 1 to 5, a fifth each."""
    draws = torch.tensor([-1.0, 0, 0, 0, 0, 2])[:, None].expand(6, 10_000)
    ranks = metrics.sbc_ranks(torch.zeros(10_000), draws, generator=rng(0))
    counts = ranks.bincount(minlength=7).numpy()
    assert counts[[0, 6]].sum() == 0
    assert stats.chisquare(counts[1:6]).pvalue > 1e-4


def rejections(make, runs=300):
    """How often each test rejects at 5 %, over independent simulations."""
    found = [make(rng(seed)) for seed in range(runs)]
    return [sum(p < 0.05 for p in tests) for tests in zip(*found, strict=True)]


def of_normal(generator, spread=1.0, shift=0.0, sets=400, draws=39):
    truth = normal(generator, sets)
    seen = truth + 0.5 * normal(generator, sets)
    posterior = seen / 1.25 + shift + spread * math.sqrt(0.2) * normal(generator, draws, sets)
    return metrics.uniformity(
        metrics.sbc_ranks(truth, posterior, generator=generator), draws, bins=10
    )


def test_exact_normal_posteriors_are_rejected_as_often_as_they_should_be():
    chi2, ks = rejections(lambda g: (lambda u: (u.chi2_p, u.ks_p))(of_normal(g)))
    assert stats.binomtest(chi2, 300, 0.05).pvalue > 1e-4
    assert stats.binomtest(ks, 300, 0.05, "greater").pvalue > 1e-4


def test_wrong_normal_posteriors_are_rejected_and_the_heap_says_why():
    narrow, wide = (of_normal(rng(0), spread=spread, sets=2000) for spread in (0.6, 1.6))
    shifted = of_normal(rng(0), shift=0.2, sets=2000)
    for found in (narrow, wide, shifted):
        assert max(found.chi2_p, found.ks_p) < 1e-6
    assert min(narrow.counts[0], narrow.counts[-1]) > narrow.counts[1:-1].max()
    assert max(wide.counts[0], wide.counts[-1]) < wide.counts[1:-1].min()
    assert shifted.counts[0] > 2 * shifted.counts[-1]


def spike_slab(generator, rate, assumed, sets=2000, draws=39):
    """z = 0, or N(0, 1) at the rate; x = z + N(0, ¼); draws from the exact posterior of a rate."""
    on = torch.rand(sets, generator=generator) < rate
    truth = on * normal(generator, sets)
    x = truth + 0.5 * normal(generator, sets)
    slab, spike = (torch.from_numpy(stats.norm.pdf(x, 0, s)) for s in (math.sqrt(1.25), 0.5))
    gate = assumed * slab / (assumed * slab + (1 - assumed) * spike)
    amplitude = x / 1.25 + math.sqrt(0.2) * normal(generator, draws, sets)
    return truth, (torch.rand(draws, sets, generator=generator) < gate) * amplitude


def test_exact_spike_and_slab_posteriors_are_uniform_and_others_not():
    """The truth is 0 in most sets, as are most draws: without random ties no posterior passes."""

    def of_exact(generator):
        truth, draws = spike_slab(generator, 0.3, 0.3, sets=400)
        found = metrics.uniformity(
            metrics.sbc_ranks(truth, draws, generator=generator), 39, bins=10
        )
        return found.chi2_p, found.ks_p

    chi2, ks = rejections(of_exact)
    assert stats.binomtest(chi2, 300, 0.05).pvalue > 1e-4
    assert stats.binomtest(ks, 300, 0.05, "greater").pvalue > 1e-4

    truth, draws = spike_slab(rng(0), 0.3, 0.3)
    assert metrics.uniformity((draws < truth).sum(0), 39).chi2_p < 1e-10
    truth, draws = spike_slab(rng(0), 0.3, 0.7)
    wrong = metrics.sbc_ranks(truth.abs(), draws.abs(), generator=rng(1))  # magnitudes: one-sided
    assert metrics.uniformity(wrong, 39).chi2_p < 1e-10


@settings(max_examples=100)
@given(seeds, st.integers(4, 30), st.integers(2, 5))
def test_statistics_of_uniformity(seed, draws, bins):
    """Chi-square as in scipy with the bins' own expectations; KS by looking at every rank."""
    ranks = torch.randint(draws + 1, (200,), generator=rng(seed)).square() // draws
    found = metrics.uniformity(ranks, draws, bins=bins)
    place = [r * bins // (draws + 1) for r in range(draws + 1)]
    counts = [sum(place[r] == b for r in ranks.tolist()) for b in range(bins)]
    expected = [200 * place.count(b) / (draws + 1) for b in range(bins)]
    oracle = stats.chisquare(counts, expected)
    assert found.counts.tolist() == counts
    assert (found.chi2, found.chi2_p) == pytest.approx((oracle.statistic, oracle.pvalue))
    ks = max(
        abs((ranks <= r).double().mean().item() - (r + 1) / (draws + 1)) for r in range(draws + 1)
    )
    assert found.ks == pytest.approx(ks, abs=1e-12)
    # ranks are whole parts of continuous values, whose distance is no less
    spread = (ranks + torch.rand(200, generator=rng(seed))) / (draws + 1)
    assert found.ks_p >= stats.kstest(spread.numpy(), "uniform", method="exact").pvalue - 1e-12


@pytest.mark.float32
def test_sums_are_in_float64():
    """The same numbers to the last digits, whatever the default and the data's format."""
    p, events = torch.full((100_000,), 0.1), torch.arange(100_000) % 10 == 0
    found = metrics.reliability(p, events, bins=4)
    assert found.predicted[0].item() == pytest.approx(np.float64(np.float32(0.1)), rel=1e-13)
    assert found.error == pytest.approx(np.float64(np.float32(0.1)) - 0.1, rel=1e-6)
    assert metrics.uniformity(torch.arange(21).repeat(30), 20, bins=7).ks < 1e-15
    ends = torch.tensor([[1.0, 1.0, 0.1]])
    found = metrics.interval_coverage(-ends, ends, torch.full((3,), 0.5), levels=LEVELS[:1])
    assert found.coverage.dtype == found.width.dtype == torch.float64
    assert found.coverage.item() == 2 / 3


HALF, YES = torch.full((4,), 0.5), torch.ones(4) > 0
ENDS = torch.zeros(1, 4)
RANKS = torch.arange(40)
WRONG = {
    "calibration.bins": [
        lambda: metrics.reliability(HALF, YES, bins=0),
        lambda: metrics.uniformity(RANKS, 39, bins=1),
        lambda: metrics.uniformity(RANKS, 39, bins=41),
        lambda: metrics.uniformity(RANKS, 39, bins=9),
    ],
    "calibration.level": [
        lambda: metrics.reliability(HALF, YES, bins=1, level=1.0),
        lambda: metrics.interval_coverage(ENDS, ENDS, HALF, levels=torch.ones(1)),
    ],
    "calibration.range": [
        lambda: metrics.reliability(3 * HALF, YES, bins=1),
        lambda: metrics.reliability(-HALF, YES, bins=1),
        lambda: metrics.uniformity(RANKS, 38),
        lambda: metrics.uniformity(RANKS - 1, 39),
        lambda: metrics.interval_coverage(ENDS + 1, ENDS, HALF, levels=LEVELS[:1]),
        lambda: metrics.interval_coverage(ENDS / 0, ENDS, HALF, levels=LEVELS[:1]),
    ],
    "calibration.shape": [
        lambda: metrics.reliability(HALF[:3], YES, bins=1),
        lambda: metrics.interval_coverage(ENDS, ENDS, HALF, levels=LEVELS[:2]),
        lambda: metrics.interval_coverage(ENDS, ENDS[:, :3], HALF, levels=LEVELS[:1]),
        lambda: metrics.sbc_ranks(HALF, HALF, generator=rng(0)),
        lambda: metrics.sbc_ranks(HALF, ENDS.mT, generator=rng(0)),
    ],
    "data.empty": [
        lambda: metrics.reliability(HALF[:0], YES[:0], bins=1),
        lambda: metrics.uniformity(RANKS[:0], 39),
        lambda: metrics.sbc_ranks(HALF, ENDS[:0], generator=rng(0)),
    ],
    "data.nonfinite": [
        lambda: metrics.reliability(HALF / 0, YES, bins=1),
        lambda: metrics.sbc_ranks(HALF, ENDS / 0, generator=rng(0)),
    ],
}


@pytest.mark.parametrize("code", WRONG)
def test_what_cannot_be_calibrated(code):
    for call in WRONG[code]:
        with pytest.raises((ConfigError, DataError)) as caught:
            call()
        assert caught.value.code == code
