"""Gaussian times Laplace: scores are sums, KLs are right but for the one constant left out."""

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pyro import distributions as dist
from scipy.special import erfc
from torch import nn
from torch.distributions import kl_divergence

from priors import (
    CholeskyPrior,
    EquicorrelatedPrior,
    FlatPrior,
    Graph,
    GraphLaplacianPrior,
    IsotropicPrior,
    LaplacePrior,
    Omitted,
    ProductPrior,
    TieredLaplacePrior,
    restrict,
)
from priors.errors import ConfigError
from priors.replicas import stack, unstack
from vsae import ClosedFormELBO, fit, load, save, topk_autoencoder

K = 6


def product(ridge=0.7, strength=2.0, scale=0.4, loc=0.0):
    gaussian = GraphLaplacianPrior(Graph.ring(K), ridge=ridge, strength=strength, loc=loc)
    return ProductPrior(gaussian, LaplacePrior(K, scale=scale))


def log_density(z, precision, loc, b):
    """Unnormalised, by definition; ``z`` (…, K)."""
    gap, dim = z - loc, len(precision)
    gaussian = 0.5 * (np.linalg.slogdet(precision)[1] - dim * math.log(2 * math.pi))
    gaussian = gaussian - 0.5 * ((gap @ precision) * gap).sum(-1)
    return gaussian - np.abs(z).sum(-1) / b - dim * math.log(2 * b)


def ring_precision(ridge, strength):
    shifted = np.roll(np.eye(K), 1, axis=1)
    return ridge * np.eye(K) + strength * (2 * np.eye(K) - shifted - shifted.T)


leggauss = functools.cache(np.polynomial.legendre.leggauss)


def integral(function, dim, half=14.0, points=160):
    """Over a cube, Gauss-Legendre on every orthant, so that no kink is inside a piece."""
    node, weight = leggauss(points)
    node, weight = half * (node + 1) / 2, half * weight / 2
    axis, mass = np.concatenate([-node, node]), np.concatenate([weight, weight])
    grid = np.stack(np.meshgrid(*[axis] * dim, indexing="ij"), -1)
    volume = np.prod(np.stack(np.meshgrid(*[mass] * dim, indexing="ij")), 0)
    return (function(grid) * volume).sum()


@given(seed=st.integers(0, 2**32 - 1))
def test_the_score_is_the_sum_of_both(seed):
    rng = np.random.default_rng(seed)
    ridge, strength, b = np.exp(rng.uniform(-2, 2, 3))
    loc, z = rng.standard_normal(K), rng.standard_normal((5, K))
    prior = product(ridge, strength, b, torch.from_numpy(loc))
    ours = prior().log_prob(torch.from_numpy(z))
    oracle = log_density(z, ring_precision(ridge, strength), loc, b)
    np.testing.assert_allclose(ours.numpy(), oracle, rtol=1e-10, atol=1e-10)


@given(m=st.floats(-3, 3), s=st.floats(0.2, 3), b=st.floats(0.2, 3))
def test_one_latent_has_the_known_normaliser(m, s, b):
    """∫N(z; m, s²) e^(-|z|/b)/2b: two half-normals. Then p integrates to one, KLs are whole."""
    prior = ProductPrior(IsotropicPrior(1, scale=s, loc=m), LaplacePrior(1, scale=b))
    halves = [
        math.exp(s * s / (2 * b * b) - sign * m / b) * erfc((s / b - sign * m / s) / math.sqrt(2))
        for sign in (1, -1)
    ]
    log_z = math.log(sum(halves) / (4 * b))
    assert log_z <= -math.log(2 * b) + 1e-12
    p = prior()

    def density(z):
        return p.log_prob(torch.from_numpy(z)).exp().numpy() / math.exp(log_z)

    assert integral(density, 1, half=40.0, points=800) == pytest.approx(1.0, rel=1e-9)
    q = dist.Normal(torch.tensor([0.3]), torch.tensor([0.8])).to_event(1)

    def cost(z):
        value = torch.from_numpy(z)
        return (q.log_prob(value).exp() * (q.log_prob(value) - p.log_prob(value))).numpy()

    whole = integral(cost, 1, half=12.0, points=400) + log_z
    assert kl_divergence(q, p).item() + log_z == pytest.approx(whole, rel=1e-9, abs=1e-9)
    assert whole > -1e-9


PAIR = {
    "graph": lambda: GraphLaplacianPrior(Graph.ring(2), ridge=0.5, strength=1.3),
    "opposed": lambda: EquicorrelatedPrior(2, correlation=-0.6, loc=0.4),
}


@pytest.mark.parametrize("made", PAIR)
@pytest.mark.parametrize("family", ["diagonal", "full", "low rank"])
def test_two_latents_by_integration(made, family):
    """KL plus log Z, both integrated numerically from the definition, is the KL."""
    gaussian, b = PAIR[made](), 0.6
    precision = np.array([[1.8, -1.3], [-1.3, 1.8]])  # 0.5 + 1.3 on the diagonal
    if made == "opposed":
        precision = np.linalg.inv(np.array([[1.0, -0.6], [-0.6, 1.0]]))
    loc = np.full(2, 0.4 if made == "opposed" else 0.0)

    def log_p(z):
        return log_density(z, precision, loc, b)

    log_z = math.log(integral(lambda z: np.exp(log_p(z)), 2))
    mean, width = np.array([0.7, -0.3]), np.array([0.5, 0.9])
    factor = np.array([[0.6], [-0.8]])
    covariance = np.diag(width**2) + (0 if family == "diagonal" else factor @ factor.T)

    def log_q(z):
        gap = z - mean
        half = 0.5 * ((gap @ np.linalg.inv(covariance)) * gap).sum(-1)
        return -half - math.log(2 * math.pi) - 0.5 * np.linalg.slogdet(covariance)[1]

    whole = integral(lambda z: np.exp(log_q(z)) * (log_q(z) - log_p(z)), 2) + log_z
    at, spread, loading = (torch.from_numpy(x) for x in (mean, width, factor))
    q = {
        "diagonal": lambda: dist.Normal(at, spread).to_event(1),
        "full": lambda: dist.MultivariateNormal(at, torch.from_numpy(covariance)),
        "low rank": lambda: dist.LowRankMultivariateNormal(at, loading, spread**2),
    }[family]()
    ours = kl_divergence(q, ProductPrior(gaussian, LaplacePrior(2, scale=b))())
    assert ours.item() + log_z == pytest.approx(whole, rel=1e-8)
    assert whole > 0


def test_a_point_pays_graph_and_l1():
    """Differences of codes, in which the constant is gone: ½ zᵀΛz + ‖z‖₁/b."""
    z = torch.randn(7, K)
    cost = kl_divergence(dist.Delta(z, event_dim=1), product()())
    empty = kl_divergence(dist.Delta(torch.zeros(K), event_dim=1), product()())
    precision = torch.from_numpy(ring_precision(0.7, 2.0))
    expected = 0.5 * ((z @ precision) * z).sum(-1) + z.abs().sum(-1) / 0.4
    torch.testing.assert_close(cost - empty, expected)
    wrapped = dist.Independent(dist.Delta(z), 1)
    torch.testing.assert_close(kl_divergence(wrapped, product()()), cost)


def test_it_says_that_its_normaliser_is_left_out():
    assert not ProductPrior.exact
    assert not product()().exact
    assert not product()().expand((3,)).exact


# In slots.


def written_out(support, values):
    return torch.zeros(*values.shape[:-1], K).scatter_add(-1, support, values)


def test_codes_in_slots_are_dense_codes():
    support = torch.stack([torch.randperm(K)[:3] for _ in range(9)])
    values = torch.randn(9, 3, requires_grad=True)
    p = product(loc=0.3)()
    weights = torch.randn(9)
    ours, dense = restrict(p, support).log_prob(values), p.log_prob(written_out(support, values))
    torch.testing.assert_close(ours, dense)
    (one,) = torch.autograd.grad((weights * ours).sum(), values)
    (other,) = torch.autograd.grad((weights * dense).sum(), values)
    torch.testing.assert_close(one, other)
    assert restrict(p, support).expand((2, 9)).log_prob(values).shape == (2, 9)
    point = kl_divergence(dist.Delta(values, event_dim=1), restrict(p, support))
    torch.testing.assert_close(point, -dense)
    wrapped = kl_divergence(dist.Independent(dist.Delta(values), 1), restrict(p, support))
    torch.testing.assert_close(wrapped, -dense)


def test_kl_from_gaussian_amplitudes_in_slots():
    """Against the dense cost: latents without a slot are exactly zero and have no entropy."""
    support = torch.tensor([[4, 1, 3], [0, 5, 2]])
    mean, scale = torch.randn(2, 3), torch.rand(2, 3) + 0.2
    q, p, rows = dist.Normal(mean, scale).to_event(1), product(loc=0.2)(), 400_000
    kl = kl_divergence(q, restrict(p, support))
    with torch.no_grad():
        draws = q.sample((rows,))
        costs = q.log_prob(draws) - p.log_prob(written_out(support.expand(rows, 2, 3), draws))
    error = costs.std(0) / rows**0.5
    assert ((kl - costs.mean(0)).abs() < 5 * error).all()


def test_a_topk_pair_trains_under_it_and_is_saved(tmp_path):
    pair = topk_autoencoder(4, K, k=2, prior=product())
    x = torch.randn(64, 4)
    records = fit(pair, x, steps=30, batch_size=32, lr=0.05).run(progress=False)
    assert records[-1]["elbo/loss"] < records[0]["elbo/loss"]
    loaded = load(save(pair, tmp_path / "sae"))
    terms = [ClosedFormELBO().terms(p.model, p.guide, x) for p in (pair.eval(), loaded.eval())]
    torch.testing.assert_close(*terms)


def test_replicas():
    priors = [product(strength=s, scale=b) for s, b in ((1.0, 0.2), (3.0, 0.9))]
    together, z = stack(priors), torch.randn(2, 5, K)
    assert together().batch_shape == (2, 1)
    for r, alone in enumerate(priors):
        expected = alone().log_prob(z[r])
        torch.testing.assert_close(together().expand((2, 5)).log_prob(z)[r], expected)
        torch.testing.assert_close(unstack(together)[r]().log_prob(z[r]), expected)


# What is refused.


def code_of(make, *args, **settings):
    with pytest.raises(ConfigError) as caught:
        make(*args, **settings)
    return caught.value.code


def test_nothing_may_be_learned():
    learned = "product.learned"
    assert code_of(ProductPrior, IsotropicPrior(2, learnable=True), LaplacePrior(2)) == learned
    assert code_of(ProductPrior, IsotropicPrior(2), LaplacePrior(2, learnable=True)) == learned
    mean = nn.Parameter(torch.zeros(2))
    assert code_of(ProductPrior, IsotropicPrior(2, loc=mean), LaplacePrior(2)) == learned
    assert code_of(ProductPrior, CholeskyPrior(2), LaplacePrior(2)) == learned


def test_factors_are_a_gaussian_and_a_laplace_over_the_same_latents():
    factors = "product.factors"
    assert code_of(ProductPrior, IsotropicPrior(2), LaplacePrior(3)) == factors
    assert code_of(ProductPrior, LaplacePrior(2), IsotropicPrior(2)) == factors
    assert code_of(ProductPrior, IsotropicPrior(2), FlatPrior(2)) == factors
    tiers = TieredLaplacePrior((1, 2), scales=(0.5, 1.0), learnable=False)
    assert ProductPrior(IsotropicPrior(3), tiers).dim == 3


def test_there_are_no_draws_and_no_kl_from_others():
    p = product()()
    assert code_of(p.sample) == "product.sample"
    assert code_of(restrict(p, torch.tensor([[0, 1]])).sample) == "product.sample"
    student = dist.StudentT(3.0 * torch.ones(K), 0.0, 1.0).to_event(1)
    for q, prior in ((student, p), (student, restrict(p, torch.arange(K)[None]))):
        with pytest.raises(NotImplementedError):
            kl_divergence(q, prior)


def test_a_normaliser_of_the_gaussian_may_be_omitted_too():
    gaussian = GraphLaplacianPrior(Graph.ring(K), ridge=0.7, strength=2.0, logdet=Omitted())
    one, other = ProductPrior(gaussian, LaplacePrior(K, scale=0.4))(), product()()
    z = torch.randn(9, K)
    gap = one.log_prob(z) - other.log_prob(z)
    torch.testing.assert_close(gap, gap[:1].expand(9))


@pytest.mark.float32
def test_in_float32():
    z, p = torch.randn(5, K), product()()
    oracle = log_density(z.double().numpy(), ring_precision(0.7, 2.0), 0.0, 0.4)
    np.testing.assert_allclose(p.log_prob(z).numpy(), oracle, rtol=1e-5)
    assert restrict(p, torch.arange(K).expand(5, K)).log_prob(z).dtype == torch.float64
