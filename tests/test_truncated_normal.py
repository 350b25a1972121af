"""Amplitudes: truncated normals against high precision and quadrature, and their conjugacy."""

import math

import mpmath
import numpy as np
import pyro
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pyro import distributions as dist
from scipy import stats
from torch.distributions import kl_divergence

from priors import (
    ExponentialPrior,
    HalfNormalPrior,
    TruncatedNormal,
    TruncatedNormalPrior,
    replicas,
)
from priors._tail import log_ndtr, positive_part
from priors.errors import ConfigError
from priors.half_line import HalfLine, half_line, log_integral

RATIOS = (-60.0, -17.0, -5.1, -4.9, -2.6, -2.4, -0.5, 0.0, 0.7, 3.0, 8.0, 60.0)
NODES, WEIGHTS = np.polynomial.legendre.leggauss(30)


def grid(loc, scale, panels=60):
    """Nodes and weights of Gauss and Legendre where a normal on a > 0 is, to e^-60 of its top."""
    ratio = loc / scale
    width = scale * min(1.0, 1 / max(-ratio, 1e-9))
    low, high = max(0.0, loc - 11 * scale), max(0.0, loc) + min(60 * width, 11 * scale)
    edges = np.linspace(low, high, panels + 1)
    half = np.diff(edges)[:, None] / 2
    a = (edges[:-1, None] + half + half * NODES).ravel()
    return torch.from_numpy(a), torch.from_numpy((half * WEIGHTS).ravel())


def by_quadrature(loc, scale):
    """Nodes, the density at them times their weight, and its logarithm: normalised numerically."""
    a, weight = grid(loc, scale)
    top = max(loc, 0.0)
    exponent = -((a - top) * (a + top - 2 * loc)) / (2 * scale**2)  # 0 at the mode
    log_total = (exponent.exp() * weight).sum().log()
    return a, (exponent - log_total).exp() * weight, exponent - log_total


def exactly(x):
    """log Φ(x), φ/Φ, and mean and variance of Normal(x, 1) given that it is positive."""
    with mpmath.workdps(60):
        x = mpmath.mpf(x)
        tail = mpmath.erfc(abs(x) / mpmath.sqrt(2)) / 2
        log_cdf = mpmath.log(tail) if x < 0 else mpmath.log1p(-tail)
        rate = mpmath.exp(-x * x / 2 - log_cdf) / mpmath.sqrt(2 * mpmath.pi)
        return [float(v) for v in (log_cdf, rate, x + rate, 1 - x * rate - rate * rate)]


def table(low, high, count=300):
    x = torch.linspace(low, high, count, dtype=torch.float64).float().double()  # exact in float32
    return x, torch.tensor([exactly(v) for v in x.tolist()], dtype=torch.float64).unbind(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_ndtr_is_as_accurate_as_it_says(dtype):
    relative, absolute, slope = (
        (4e-7, 2e-7, 1e-5) if dtype == torch.float32 else (1e-15, 1e-15, 1e-12)
    )
    for low, high in ((-40.0, 0.0), (0.0, 40.0)):
        points, (expected, rate, _, _) = table(low, high)
        x = points.to(dtype).requires_grad_()
        found = log_ndtr(x)
        gap = (found.double() - expected).abs()
        assert (gap <= (relative * expected.abs() if low < 0 else absolute)).all()
        (grad,) = torch.autograd.grad(found.sum(), x)
        felt = rate > 1e-30
        torch.testing.assert_close(grad.double()[felt], rate[felt], rtol=slope, atol=0.0)


def test_log_ndtr_slopes_at_zero_exactly():
    """Where half-normals are: φ(0) / Φ(0) = √(2/π)."""
    for dtype in (torch.float32, torch.float64):
        for zero in (0.0, -0.0):
            x = torch.tensor(zero, dtype=dtype, requires_grad=True)
            (grad,) = torch.autograd.grad(log_ndtr(x), x)
            assert grad.item() == pytest.approx(math.sqrt(2 / math.pi), rel=1e-5)


@pytest.mark.parametrize(
    ("dtype", "tolerances"),
    [(torch.float32, (2e-6, 2e-5, 2e-4)), (torch.float64, (1e-14, 1e-11, 1e-11))],
)
def test_moments_are_as_accurate_as_they_say(dtype, tolerances):
    for low, high in ((-40.0, 8.0), (-6.0, -2.0), (-2000.0, -40.0)):
        points, expected = table(low, high)
        x = points.to(dtype)
        for found, right, tolerance in zip(
            positive_part(x, log_ndtr(x)), expected[1:], tolerances, strict=True
        ):
            torch.testing.assert_close(found.double(), right, rtol=tolerance, atol=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_far_in_the_tail_are_numbers(dtype):
    """The branch of a formula that is not taken must not send 0 · inf = NaN."""
    ratio = torch.logspace(-1, 6, 200, dtype=dtype)
    loc = torch.cat([-ratio, torch.zeros(1, dtype=dtype), ratio]).requires_grad_()
    one = torch.ones_like(loc)
    q, p = TruncatedNormal(loc, one), TruncatedNormal(0 * one, one)
    for value in (q.mean, q.variance, q.entropy(), q.log_mass, q.rsample(), kl_divergence(q, p)):
        (grad,) = torch.autograd.grad(value.sum(), loc, retain_graph=True)
        assert value.isfinite().all()
        assert grad.isfinite().all()
    # d mean / d loc = Var / s², which falls as the inverse square.
    (grad,) = torch.autograd.grad(q.mean.sum(), loc)
    torch.testing.assert_close(grad, q.variance.detach(), rtol=2e-4, atol=0.0)


@pytest.mark.parametrize("ratio", RATIOS)
def test_density_and_moments_by_quadrature(ratio):
    scale = 0.37
    loc = ratio * scale
    a, mass, log_density = by_quadrature(loc, scale)
    q = TruncatedNormal(torch.tensor(loc), torch.tensor(scale))
    near = mass > 1e-12
    torch.testing.assert_close(q.log_prob(a)[near], log_density[near], rtol=1e-9, atol=1e-9)
    assert (q.log_prob(a).exp() * grid(loc, scale)[1]).sum().item() == pytest.approx(1, abs=1e-10)
    mean = (a * mass).sum().item()
    assert q.mean.item() == pytest.approx(mean, rel=1e-11)
    variance = ((a - mean) ** 2 * mass).sum().item()
    assert q.variance.item() == pytest.approx(variance, rel=2e-11)
    entropy = -(log_density * mass).sum().item()
    assert q.entropy().item() == pytest.approx(entropy, abs=1e-11)


@pytest.mark.parametrize("ratio", RATIOS)
def test_draws_quantiles_and_probabilities_agree(ratio):
    scale = 0.37
    q = TruncatedNormal(torch.tensor(ratio * scale), torch.tensor(scale))
    # The upper tail of scipy's, mirrored: it is accurate there only.
    known = stats.truncnorm(-np.inf, ratio)
    p = torch.tensor([1e-9, 1e-3, 0.2, 0.5, 0.9, 1 - 1e-6])
    value = q.icdf(p)
    assert (value > 0).all()
    torch.testing.assert_close(q.cdf(value), p, rtol=1e-6, atol=1e-12)
    for share, found in zip(p.tolist()[1:], value.tolist()[1:], strict=True):
        assert found == pytest.approx(scale * (ratio - known.ppf(1 - share)), rel=1e-8)
    assert 0 <= q.icdf(torch.tensor(0.0)) < value[0]
    assert q.icdf(torch.tensor(1.0)) == math.inf
    draws = q.rsample((20_000,))
    assert (draws > 0).all()
    # A level of 1e-5 in each of a dozen cases, at a fixed seed.
    assert stats.kstest(q.cdf(draws).numpy(), "uniform").pvalue > 1e-5


@pytest.mark.float32
@pytest.mark.parametrize("ratio", RATIOS)
def test_single_precision_is_the_same_distribution(ratio):
    """To what it can be: of a ratio α the exponents are α²/2, rounded."""
    single = TruncatedNormal(torch.tensor(ratio), torch.tensor(1.0))
    double = TruncatedNormal(torch.tensor(ratio).double(), torch.tensor(1.0).double())
    assert single.mean.item() == pytest.approx(double.mean.item(), rel=2e-5)
    assert single.variance.item() == pytest.approx(double.variance.item(), rel=2e-4)
    assert single.entropy().item() == pytest.approx(double.entropy().item(), abs=1e-5)
    rounding = 3e-7 * (1 + ratio**2)
    half = [TruncatedNormal(torch.zeros_like(q.loc), 2 * q.scale) for q in (single, double)]
    kl = [kl_divergence(q, p).item() for q, p in zip((single, double), half, strict=True)]
    assert kl[0] == pytest.approx(kl[1], abs=1e-5 + rounding)
    a = double.icdf(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64))
    gap = single.log_prob(a.float()).double() - double.log_prob(a.float().double())
    assert gap.abs().max() < 1e-6 + rounding
    assert single.rsample().dtype == torch.float32


@pytest.mark.parametrize("ratio", RATIOS)
def test_pathwise_gradient(ratio):
    """Of each draw by the implicit function theorem; on average the gradient of the moments."""
    n, scale = 40_000, 0.7
    loc = torch.full((n,), ratio * scale, requires_grad=True)
    spread = torch.full((n,), scale, requires_grad=True)
    a = TruncatedNormal(loc, spread).rsample()
    by_loc, by_scale = torch.autograd.grad(a.sum(), (loc, spread))
    # y = (m - a)/s keeps Φ(y) / Φ(m/s): dy / d(m/s) is the ratio of the two hazards.
    y = ratio - a.detach() / scale
    shares = stats.norm.logpdf(ratio) - stats.norm.logcdf(ratio)
    shares = np.exp(shares - stats.norm.logpdf(y) + stats.norm.logcdf(y))
    torch.testing.assert_close(by_loc, torch.from_numpy(1 - shares), rtol=1e-6, atol=1e-9)
    expected = ratio - y - ratio * torch.from_numpy(1 - shares)
    torch.testing.assert_close(by_scale, expected, rtol=1e-6, atol=1e-7)
    m, s = (torch.tensor(v, requires_grad=True) for v in (ratio * scale, scale))
    q = TruncatedNormal(m, s)
    value = a.detach()
    for moment, draws in ((q.mean, torch.ones(n)), (q.variance + q.mean**2, 2 * value)):
        for found, right in zip(
            (by_loc, by_scale), torch.autograd.grad(moment, (m, s), retain_graph=True), strict=True
        ):
            sampled = draws * found
            assert abs(sampled.mean() - right) < 5 * sampled.std() / n**0.5 + 1e-12


PAIRS = ((0.5, 0.3, 1.0, 0.2), (-3.0, 1.0, 2.0, 0.5), (1.0, 0.1, -4.0, 1.5), (-30.0, 0.9, 0.0, 2.0))


@pytest.mark.parametrize(("loc", "scale", "other", "width"), PAIRS)
def test_kl_by_quadrature_and_by_draws(loc, scale, other, width):
    a, mass, log_density = by_quadrature(loc, scale)
    q = TruncatedNormal(torch.tensor(loc), torch.tensor(scale))
    rate = 1 / width
    total = math.log(0.5 * math.erfc(-other / width / 2**0.5)) + math.log(width)
    log_normal = -0.5 * ((a - other) / width) ** 2 - 0.5 * math.log(2 * math.pi) - total
    log_half = -0.5 * (a / width) ** 2 + 0.5 * math.log(2 / math.pi) - math.log(width)
    for p, log_p in (
        (TruncatedNormal(torch.tensor(other), torch.tensor(width)), log_normal),
        (TruncatedNormal(torch.tensor(0.0), torch.tensor(width)), log_half),
        (dist.Exponential(torch.tensor(rate)), math.log(rate) - rate * a),
    ):
        kl = kl_divergence(q, p).item()
        assert kl == pytest.approx(((log_density - log_p) * mass).sum().item(), rel=1e-9)
        assert kl_divergence(q, q).item() == pytest.approx(0, abs=1e-12)
        draws = q.sample((20_000,))
        gap = q.log_prob(draws) - p.log_prob(draws)
        assert abs(gap.mean() - kl) < 5 * gap.std() / 20_000**0.5


sizes = st.floats(0.01, 100.0)


@given(st.floats(-50.0, 50.0), sizes, st.floats(-50.0, 50.0), sizes)
def test_kl_is_a_divergence_and_knows_no_units(ratio, scale, other, width):
    q = TruncatedNormal(torch.tensor(ratio * scale), torch.tensor(scale))
    p = TruncatedNormal(torch.tensor(other * width), torch.tensor(width))
    kl, unit = kl_divergence(q, p), torch.tensor(1000.0)
    rounding = 1e-11 * (1 + other**2 + ratio**2 + kl.item())
    assert kl > -rounding
    scaled = [TruncatedNormal(d.loc * unit, d.scale * unit) for d in (q, p)]
    torch.testing.assert_close(kl_divergence(*scaled), kl, rtol=0.0, atol=rounding)
    mean, variance = q.mean, q.variance
    assert 0 < variance <= q.scale**2
    assert mean > max(0.0, ratio * scale) * (1 - 1e-12)
    assert variance <= mean**2 * (1 + 1e-10)  # a log-concave density on a half-line


@pytest.mark.parametrize("u", [-3.0, 0.2, 1.1, 6.0])
@pytest.mark.parametrize(
    ("prior", "known"),
    [
        (lambda: TruncatedNormal(0.9, 0.4), stats.truncnorm(-2.25, np.inf, 0.9, 0.4)),
        (lambda: TruncatedNormal(0.0, 2.0), stats.halfnorm(scale=2.0)),
        (lambda: dist.Exponential(1.7), stats.expon(scale=1 / 1.7)),
    ],
    ids=["truncated", "half-normal", "exponential"],
)
def test_conjugacy(prior, known, u):
    """Posterior and evidence of one amplitude seen through normal noise, against quadrature."""
    noise = 0.6
    base = half_line(prior())
    linear, precision = base.linear + u / noise**2, base.precision + noise**-2
    posterior = TruncatedNormal(linear / precision, precision.rsqrt())
    a, weight = grid(posterior.loc.item(), posterior.scale.item())
    likelihood = (u * a - 0.5 * a**2) / noise**2  # over that of a latent that is off
    joint = torch.from_numpy(known.logpdf(a.numpy())) + likelihood
    evidence = (joint.exp() * weight).sum().log()
    mass = log_ndtr(posterior.loc / posterior.scale)
    found = log_integral(linear, precision, mass) - base.log_normaliser
    assert found.item() == pytest.approx(evidence.item(), abs=1e-11)
    density = (joint - evidence).exp()
    torch.testing.assert_close(posterior.log_prob(a).exp(), density, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", [lambda: TruncatedNormal(0.9, 0.4), lambda: dist.Exponential(1.7)])
def test_a_half_line_is_its_density(make):
    prior = make()
    linear, precision, log_normaliser = half_line(prior)
    assert isinstance(half_line(prior), HalfLine)
    a = torch.linspace(0.01, 4.0, 50)
    density = linear * a - 0.5 * precision * a**2 - log_normaliser
    torch.testing.assert_close(density, prior.log_prob(a))


def test_other_amplitudes_are_not_conjugate():
    with pytest.raises(ConfigError) as caught:
        half_line(dist.Gamma(torch.tensor(2.0), torch.tensor(1.0)))
    assert caught.value.code == "amplitude.family"
    assert caught.value.context == {"class": "Gamma"}


def test_as_a_distribution():
    q = TruncatedNormal(torch.zeros(3), torch.tensor([[1.0], [2.0]]))
    assert q.shape() == (2, 3)
    assert q.expand((4, 2, 3)).shape() == (4, 2, 3)
    assert q.rsample((5,)).shape == (5, 2, 3)
    assert q.has_rsample
    for wrong in (-1.0, math.nan):
        for fn in (q, q.expand((4, 2, 3))):
            for read in (fn.log_prob, fn.cdf):
                with pytest.raises(ValueError, match="support"):
                    read(torch.full((2, 3), wrong))
    for loc, scale in ((0.0, 0.0), (0.0, -1.0), (math.nan, 1.0), (0.0, math.nan)):
        with pytest.raises(ValueError, match="constraint"):
            TruncatedNormal(torch.tensor(loc), torch.tensor(scale))
    with pyro.plate("rows", 4):
        assert (pyro.sample("a", TruncatedNormal(1.0, 0.5)) > 0).all()


PRIORS = {
    "truncated": lambda **more: TruncatedNormalPrior(3, loc=1.5, scale=0.5, **more),
    "half-normal": lambda **more: HalfNormalPrior(3, scale=0.5, **more),
    "exponential": lambda **more: ExponentialPrior(3, scale=0.5, **more),
}
EVERY = pytest.mark.parametrize("make", PRIORS.values(), ids=PRIORS)


@EVERY
def test_priors_are_their_density(make):
    prior = make()
    a = torch.tensor([0.1, 1.0, 2.5])
    known = {
        TruncatedNormalPrior: stats.truncnorm(-3.0, np.inf, 1.5, 0.5),
        HalfNormalPrior: stats.halfnorm(scale=0.5),
        ExponentialPrior: stats.expon(scale=0.5),
    }[type(prior)]
    assert prior().log_prob(a).item() == pytest.approx(known.logpdf(a.numpy()).sum(), rel=1e-12)
    assert prior().shape() == (3,)
    assert prior.dim == 3
    assert "dim=3" in repr(prior)
    assert not list(prior.parameters())
    learned = make(learnable=True)
    grads = torch.autograd.grad(learned().log_prob(a), list(learned.parameters()))
    assert all((grad != 0).all() for grad in grads)


@EVERY
def test_priors_of_replicas(make):
    both = [make(learnable=True), make(learnable=True)]
    with torch.no_grad():
        both[1].log_scale += torch.tensor([0.1, -0.2, 0.3])
    a = torch.rand(2, 7, 3)
    expected = torch.stack([p().log_prob(rows) for p, rows in zip(both, a, strict=True)])
    stacked = replicas.stack(both)
    assert stacked().shape() == (2, 1, 3)
    torch.testing.assert_close(stacked().log_prob(a), expected)
    again = replicas.unstack(stacked)[1]
    torch.testing.assert_close(again().log_prob(a[1]), expected[1])


@EVERY
@pytest.mark.parametrize("low", [0.0, 0.5, 6.0])
def test_matched_priors_have_the_moments(make, low):
    """They are the most likely of their family: no slope is left. Amplitudes near zero and far."""
    prior = make(learnable=True)
    a = low + torch.rand(500, 3)
    prior.match(a.mean(0), (a**2).mean(0))
    q = prior()
    if isinstance(prior, TruncatedNormalPrior):
        torch.testing.assert_close(q.mean, a.mean(0), rtol=1e-9, atol=0.0)
        torch.testing.assert_close(q.variance, a.var(0, correction=0), rtol=1e-8, atol=0.0)
    own = [p for p in prior.parameters() if p.requires_grad]
    for slope in torch.autograd.grad(q.log_prob(a).sum(), own):
        assert slope.abs().max() < 1e-7 * a.numel()


@pytest.mark.parametrize("ratio", [-4.9, -3.0, -1.0, 0.0, 0.5, 2.0, 4.5, 5.9, 6.1, 9.0])
def test_a_truncated_normal_is_found_again_from_its_moments(ratio):
    """scipy's moments of a normal that is cut off; 6.1 and more are as if nothing were."""
    scale = 0.7
    law = stats.truncnorm(-ratio, math.inf, loc=ratio * scale, scale=scale)
    mean, variance = (torch.full((2,), float(v)) for v in (law.mean(), law.var()))
    prior = TruncatedNormalPrior(2)
    prior.match(mean, mean**2 + variance)
    torch.testing.assert_close(prior.loc, torch.full((2,), ratio * scale), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(prior.log_scale.exp(), torch.full((2,), scale), rtol=1e-6, atol=0.0)


@pytest.mark.float32
@pytest.mark.parametrize("low", [0.0, 0.5, 6.0])
def test_matched_priors_have_the_moments_in_single_precision(low):
    a = low + torch.rand(500, 3)
    prior = TruncatedNormalPrior(3)
    prior.match(a.mean(0), (a**2).mean(0))
    torch.testing.assert_close(prior().mean, a.mean(0), rtol=2e-5, atol=0.0)
    # of 36 and 36 + 1/12, in single precision
    torch.testing.assert_close(prior().variance, a.var(0, correction=0), rtol=1e-3, atol=0.0)


def test_amplitudes_that_vary_more_than_an_exponentials_keep_their_mean():
    prior = TruncatedNormalPrior(3)
    first = torch.tensor([2.0, 0.5, 1.0])
    prior.match(first, torch.tensor([8.0, 3.0, math.inf]))
    torch.testing.assert_close(prior().mean, first)
    torch.testing.assert_close(prior.loc / prior.log_scale.exp(), torch.full((3,), -5.0))


@pytest.mark.parametrize(
    ("code", "make"),
    [
        ("prior.bad_dim", lambda: TruncatedNormalPrior(0)),
        ("prior.bad_dim", lambda: HalfNormalPrior(-1)),
        ("prior.bad_dim", lambda: ExponentialPrior(True)),
        ("prior.bad_scale", lambda: TruncatedNormalPrior(3, scale=0.0)),
        ("prior.bad_scale", lambda: HalfNormalPrior(3, scale=math.nan)),
        ("prior.bad_scale", lambda: ExponentialPrior(3, scale=-1.0)),
        ("prior.bad_scale", lambda: ExponentialPrior(3, scale=1e-60)),
        ("prior.bad_loc", lambda: TruncatedNormalPrior(3, loc=math.nan)),
        ("prior.bad_loc", lambda: TruncatedNormalPrior(3, loc=math.inf)),
    ],
)
def test_bad_settings(code, make):
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.code == code
