"""One table over all Gaussian priors: density, structure, sampler, gradients, shapes, replicas."""

import copy

import numpy as np
import oracles
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prior_table import GAUSSIAN, PER_ROW
from pyro.distributions.testing import gof
from torch.distributions import kl_divergence

from priors import LaplacePrior, replicas

PRIORS = pytest.mark.parametrize("draw", GAUSSIAN.values(), ids=GAUSSIAN)
SEEDS = st.integers(0, 2**31)


@PRIORS
@PER_ROW
@given(dim=st.integers(1, 9), batch=st.sampled_from([(), (3,), (2, 3)]), seed=SEEDS)
def test_density_is_the_dense_one(draw, dim, batch, seed):
    rng = np.random.default_rng(seed)
    drawn = draw(dim, rng, 0.4)
    precision = drawn.precision(oracles.FLOAT)
    z = rng.normal(size=(*batch, dim))
    prior = drawn.prior()
    expected = oracles.log_density(precision, drawn.loc, z)
    # 1e-11: the dense oracle's determinant at conditions up to 1e5 is the inaccurate side.
    bound = 1e-11 * (dim + np.abs(expected))
    assert (np.abs(prior.log_prob(torch.from_numpy(z)).detach().numpy() - expected) <= bound).all()
    half_logdet = 0.5 * np.linalg.slogdet(precision)[1]
    entropy = 0.5 * dim * (1 + np.log(2 * np.pi)) - half_logdet
    assert abs(prior.entropy().item() - entropy) <= 1e-11 * (dim + abs(half_logdet))


@PRIORS
@PER_ROW
@given(dim=st.integers(1, 9), seed=SEEDS)
def test_structure_is_the_dense_matrix(draw, dim, seed):
    """``quadratic``, ``diagonal`` and ``unwhiten`` are those of the matrix: F with FFᵀ = Λ⁻¹."""
    rng = np.random.default_rng(seed)
    drawn = draw(dim, rng, 0.4)
    precision, structure = drawn.precision(oracles.FLOAT), drawn.prior().precision
    size = np.abs(precision).max()
    z = rng.normal(size=(4, dim))
    quadratic = structure.quadratic(torch.from_numpy(z)).detach().numpy()
    expected = np.einsum("ni,ij,nj->n", z, precision, z)
    assert np.abs(quadratic - expected).max() <= 1e-13 * size * (z**2).sum(-1).max() * dim
    diagonal = structure.diagonal().detach().numpy()
    assert np.abs(diagonal - precision.diagonal()).max() <= 1e-13 * size
    factor = structure.unwhiten(torch.eye(structure.noise_size)).detach().numpy()
    identity = factor.T @ factor @ precision
    bound = 1e-14 * dim * oracles.condition(precision) + 1e-12
    assert np.abs(identity - np.eye(dim)).max() <= bound


@PRIORS
@settings(max_examples=settings().max_examples // 10)  # dearer: six priors, three of them graphs
@given(dim=st.integers(1, 5), seed=SEEDS)
def test_replica_r_is_prior_r(draw, dim, seed):
    """Value, KL, gradients and draws of a stack, to 1e-13; graphs and orders differ by replica."""
    rng = np.random.default_rng(seed)
    alone = [draw(dim, rng, 0.4).prior for _ in range(3)]
    stacked = replicas.stack([copy.deepcopy(prior) for prior in alone])
    z = torch.from_numpy(rng.normal(size=(3, 4, dim)))
    mean, scale = torch.from_numpy(rng.normal(size=(2, 3, 4, dim)))
    found = _value_kl_and_draws(stacked().expand((3, 4)), z, mean, scale.exp())
    gradients = _gradients(found, stacked)
    for r, prior in enumerate(alone):
        expected = _value_kl_and_draws(prior().expand((4,)), z[r], mean[r], scale[r].exp())
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours[r], theirs, rtol=1e-13, atol=1e-13)
        for name, own in _gradients(expected, prior).items():
            torch.testing.assert_close(gradients[name][r, 0], own, rtol=1e-12, atol=1e-12, msg=name)


def _value_kl_and_draws(prior, z, mean, scale):
    """``log_prob``, ``KL`` and the draw that fixed noise makes."""
    kl = kl_divergence(dist.Normal(mean, scale).to_event(1), prior)
    noise = torch.arange(1.0, prior.precision.noise_size + 1).sin()  # edges last, padded in a stack
    draw = prior.precision.unwhiten(noise.expand(*prior.batch_shape, -1))
    return prior.log_prob(z), kl, (prior.loc + draw).sum(-1)


def _gradients(values, prior):
    named = {name: p for name, p in prior.named_parameters() if p.requires_grad}
    if not named:
        return {}
    found = torch.autograd.grad(sum(v.sum() for v in values), list(named.values()))
    return dict(zip(named, found, strict=True))


@PRIORS
def test_draws_have_the_density(draw):
    """Goodness of fit of -2 log p, which is χ² exactly, and z-scores of first and second moments.

    Pyro's own test in several dimensions judges a cell by its centre's density: isotropic draws of
    ``torch.randn`` have a median p of 0.03 there. In one dimension it is exact.
    """
    drawn = draw(3, np.random.default_rng(5), 0.4)
    with torch.no_grad():
        prior = drawn.prior()
        draws = prior.sample((20_000,))
        distance = 2 * (prior.log_normalizer() - prior.log_prob(draws))
    probabilities = dist.Chi2(torch.tensor(3.0)).log_prob(distance).exp()
    assert gof.auto_goodness_of_fit(distance, probabilities) > 1e-4
    covariance = np.linalg.inv(drawn.precision(oracles.FLOAT))
    centred = draws.numpy() - drawn.loc
    deviation = np.sqrt(covariance.diagonal())
    scores = centred.mean(0) / deviation * np.sqrt(len(centred))
    assert np.abs(scores).max() < 4.5
    products = centred[:, :, None] * centred[:, None, :]
    # Var(xᵢxⱼ) = Σᵢᵢ Σⱼⱼ + Σᵢⱼ² for Gaussians.
    spread = np.sqrt(np.outer(deviation**2, deviation**2) + covariance**2)
    scores = (products.mean(0) - covariance) / spread * np.sqrt(len(centred))
    assert np.abs(scores).max() < 4.5


@PRIORS
@pytest.mark.parametrize("dim", [1, 4])
def test_gradients_are_finite_differences(draw, dim):
    prior = draw(dim, np.random.default_rng(dim), 0.3).prior
    parameters = [p for p in prior.parameters() if p.requires_grad]
    z = torch.randn(2, dim, requires_grad=True)
    scale = torch.rand(2, dim).add(0.1).requires_grad_()
    noise = torch.randn(2, prior().precision.noise_size)

    def value(z, scale, *_):
        p = prior()
        kl = kl_divergence(dist.Normal(z, scale).to_event(1), p)
        return p.log_prob(z), kl, p.precision.unwhiten(noise)

    assert torch.autograd.gradcheck(value, (z, scale, *parameters), eps=1e-6, rtol=1e-6, atol=1e-6)


@PRIORS
def test_second_derivatives_exist(draw):
    """Λ is the Hessian of ½ zᵀΛz; gradients of gradients too."""
    drawn = draw(4, np.random.default_rng(1), 0.3)
    prior = drawn.prior()
    hessian = torch.autograd.functional.hessian(lambda z: prior.quadratic(z) / 2, torch.zeros(4))
    np.testing.assert_allclose(hessian.numpy(), drawn.precision(oracles.FLOAT), atol=1e-12)
    z = torch.randn(2, 4, requires_grad=True)
    assert torch.autograd.gradgradcheck(prior.log_prob, z)


@PRIORS
@pytest.mark.parametrize("count", [None, 1, 3])
def test_shapes(draw, count):
    rng = np.random.default_rng(0)
    made = [draw(4, rng, 0.3).prior for _ in range(count or 1)]
    prior = (replicas.stack(made) if count else made[0])()
    batch = (count, 1) if count else ()
    rows = (count, 5) if count else (5,)
    assert (prior.batch_shape, prior.event_shape) == (batch, (4,))
    assert prior.precision.logdet().dtype == torch.float64
    assert prior.precision.diagonal().shape == (*batch, 4)
    assert prior.precision.logdet().shape == batch
    assert prior.sample((2, 6)).shape == (2, 6, *batch, 4)
    assert prior.log_prob(torch.zeros(4)).shape == batch
    assert prior.log_prob(torch.zeros(*rows, 4)).shape == rows
    assert prior.log_prob(torch.zeros(2, *rows, 4)).shape == (2, *rows)
    wide = prior.expand(rows)
    assert type(wide) is type(prior)  # so that the registered KL still matches inside a plate
    assert wide.batch_shape == rows
    assert wide.sample().shape == (*rows, 4)
    assert wide.log_prob(torch.zeros(4)).shape == rows
    assert wide.expand((7, *rows)).entropy().shape == (7, *rows)
    assert prior.quadratic(torch.zeros(*rows, 4)).shape == rows
    with pytest.raises(ValueError, match="within the support"):
        prior.log_prob(torch.full((4,), torch.nan))


@PRIORS
def test_copies_and_state_are_whole(draw):
    """A deep copy, taken after a draw and a density, and a loaded state are the same prior."""
    rng = np.random.default_rng(3)
    prior = draw(4, rng, 0.4).prior
    z = torch.randn(4)
    expected = prior().log_prob(z)
    prior().sample()
    assert torch.equal(copy.deepcopy(prior)().log_prob(z), expected)
    loaded = copy.deepcopy(prior)
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.add_(0.3)
    if list(loaded.parameters()):
        assert not torch.equal(loaded().log_prob(z), expected)
    loaded.load_state_dict(prior.state_dict())
    assert torch.equal(loaded().log_prob(z), expected)


@PRIORS
def test_dtype_follows_to_and_constants_stay_float64(draw):
    prior = draw(4, np.random.default_rng(3), 0.3).prior
    expected = prior().log_prob(torch.ones(4))
    prior = prior.to(torch.float32)
    found = prior().log_prob(torch.ones(4, dtype=torch.float32))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    assert prior().sample().dtype == torch.float32
    constants = getattr(prior, "log_determinant", torch.nn.Module())
    assert all(b.dtype == torch.float64 for b in constants.buffers())


@pytest.mark.parametrize("count", [None, 3])
def test_laplace_draws_and_replicas(count):
    made = [LaplacePrior(3, scale=0.5 + r, learnable=True) for r in range(count or 1)]
    prior = (replicas.stack(made) if count else made[0])()
    assert prior.batch_shape == ((count, 1) if count else ())
    assert prior.event_shape == (3,)
    z = torch.randn(count or 1, 5, 3)
    found = prior.log_prob(z)
    for r, alone in enumerate(made):
        b = 0.5 + r
        torch.testing.assert_close(found[r], alone().log_prob(z[r]))
        torch.testing.assert_close(found[r], -z[r].abs().sum(-1) / b - 3 * np.log(2 * b))
    draws = made[0]().sample((20_000,)).detach()
    probabilities = made[0]().base_dist.log_prob(draws).exp()[:, 0].detach()
    assert gof.auto_goodness_of_fit(draws[:, 0], probabilities) > 1e-4
