"""Slab, flat and indicator priors: what each says of active latents, and of the others."""

import math

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.infer import Predictive, Trace_ELBO, TraceMeanField_ELBO
from torch.distributions import kl_divergence

from priors import (
    BernoulliPrior,
    BlockDiagonalPrior,
    CholeskyPrior,
    EquicorrelatedPrior,
    FlatPrior,
    Graph,
    GraphLaplacianPrior,
    IsotropicPrior,
    LaplacePrior,
    SlabPrior,
    UniformSubsets,
    replicas,
    restrict,
)
from priors.errors import ConfigError

ROWS, WIDTH, DIM = 40, 5, 30


def sparse_codes():
    """Slots of which three in ten are empty."""
    support = UniformSubsets(DIM, WIDTH).expand((ROWS,)).sample()
    return support, torch.randn(ROWS, WIDTH) * (torch.rand(ROWS, WIDTH) < 0.7)


def dense_codes(support, values):
    return torch.zeros(ROWS, DIM).scatter(1, support, values)


def slope(log_prob, parameter):
    (grad,) = torch.autograd.grad(log_prob.sum(), parameter)
    return grad.item()


def test_a_slab_scale_is_that_of_the_active_and_a_dense_one_is_not():
    """dL/db = 0 exactly at the mean |z| over active latents; at Σ|z| / K under the dense prior."""
    support, z = sparse_codes()
    total, active = z.abs().sum().item(), int((z != 0).sum())
    assert active < z.numel()
    for best, wrap in ((total / active, SlabPrior), (total / (ROWS * DIM), lambda prior: prior)):
        for scale, sign in ((best, 0), (best / 1.1, 1), (best * 1.1, -1)):
            laplace = LaplacePrior(DIM, scale=scale, learnable=True)
            found = slope(restrict(wrap(laplace)(), support).log_prob(z), laplace.log_scale)
            # log b passes through exp and log, which costs digits of the number of terms.
            assert np.sign(found) == sign if sign else abs(found) < 1e-10 * ROWS * DIM


def test_a_gaussian_slab_learns_the_root_mean_square():
    support, z = sparse_codes()
    best = (z.square().sum() / (z != 0).sum()).sqrt().item()
    isotropic = IsotropicPrior(DIM, scale=best, learnable=True)
    found = slope(restrict(SlabPrior(isotropic)(), support).log_prob(z), isotropic.log_scale)
    assert abs(found) < 1e-10 * ROWS * WIDTH


@pytest.mark.parametrize(
    ("make", "log_density"),
    [
        (lambda: LaplacePrior(DIM, scale=0.7), lambda a: -abs(a) / 0.7 - math.log(1.4)),
        (
            lambda: IsotropicPrior(DIM, scale=0.7, loc=0.2),
            lambda a: -((a - 0.2) ** 2) / 0.98 - math.log(0.7) - 0.5 * math.log(2 * math.pi),
        ),
    ],
    ids=["laplace", "gaussian"],
)
def test_density_of_the_active(make, log_density):
    prior, (support, z) = make(), sparse_codes()
    slab = SlabPrior(prior)()
    expected = torch.where(z != 0, log_density(z), 0.0).sum(-1)
    torch.testing.assert_close(restrict(slab, support).log_prob(z), expected)
    torch.testing.assert_close(slab.log_prob(dense_codes(support, z)), expected)
    # A constant apart from the dense density, where all rows have as many active.
    z = torch.randn(ROWS, WIDTH)
    apart = restrict(slab, support).log_prob(z) - restrict(prior(), support).log_prob(z)
    inactive = (DIM - WIDTH) * log_density(torch.zeros(()))
    torch.testing.assert_close(apart, (-inactive).expand(ROWS), rtol=1e-10, atol=1e-10)


def test_spike_and_slab_integrates_to_one():
    """Over all supports of two of four latents, each pair of amplitudes on a grid."""
    slab = SlabPrior(LaplacePrior(4, scale=0.5))()
    edges = torch.linspace(-12.0, 12.0, 801)
    grid = (edges[1:] + edges[:-1]) / 2  # mid-points: 0 is none of them
    pairs = torch.cartesian_prod(grid, grid)
    total = 0.0
    for support in torch.combinations(torch.arange(4)):
        density = restrict(slab, support.expand(len(pairs), 2)).log_prob(pairs).exp()
        chance = UniformSubsets(4, 2).log_prob(support).exp()
        total += (density.sum() * 0.03**2 * chance).item()
    # The mid-point rule is right to (h / b)² / 24 per coordinate.
    assert abs(total - 1) < 3 * 0.06**2 / 24


def test_empty_slots_send_no_gradient():
    support, z = sparse_codes()
    z.requires_grad_()
    prior = IsotropicPrior(DIM, loc=torch.nn.Parameter(torch.randn(DIM)))
    restrict(SlabPrior(prior)(), support).log_prob(z).sum().backward()
    assert ((z.grad != 0) == (z != 0)).all()
    touched = torch.zeros(DIM, dtype=torch.bool)
    touched[support[z != 0]] = True
    assert ((prior.loc.grad != 0) == touched).all()


def test_positive_slab_is_not_asked_about_zero():
    class Positive(torch.nn.Module):
        dim = 4

        def forward(self):
            return dist.Gamma(torch.full((4,), 2.0), torch.full((4,), 3.0)).to_event(1)

    slab = SlabPrior(Positive())()
    z = torch.tensor([[0.5, 0.0]], requires_grad=True)
    log_prob = restrict(slab, torch.tensor([[2, 1]])).log_prob(z)
    torch.testing.assert_close(log_prob, torch.tensor([math.log(9 * 0.5) - 1.5]))
    (grad,) = torch.autograd.grad(log_prob.sum(), z)
    torch.testing.assert_close(grad, torch.tensor([[1 / 0.5 - 3, 0.0]]))
    with pytest.raises(ValueError, match="support"):
        slab.log_prob(torch.tensor([0.5, -1.0, 0.0, 0.0]))


EITHER = pytest.mark.parametrize(
    "make",
    [lambda: LaplacePrior(DIM, scale=0.7), lambda: IsotropicPrior(DIM, loc=0.3)],
    ids=["laplace", "gaussian"],
)


@EITHER
def test_kl_from_a_gaussian_is_that_of_the_slots(make):
    prior = make()
    support, _ = sparse_codes()
    mean, scale = torch.randn(ROWS, WIDTH), torch.rand(ROWS, WIDTH) + 0.1
    posterior = dist.Normal(mean, scale).to_event(1)
    slab = restrict(SlabPrior(prior)(), support)
    kl = kl_divergence(posterior, slab)
    one = dist.Laplace(0.0, 0.7) if isinstance(prior, LaplacePrior) else dist.Normal(0.3, 1.0)
    torch.testing.assert_close(kl, kl_divergence(posterior.base_dist, one).sum(-1))
    draws = posterior.sample((20_000,))  # a second opinion, and every slot is active
    gap = posterior.log_prob(draws) - slab.log_prob(draws)
    assert ((gap.mean(0) - kl).abs() < 5 * gap.std(0) / 20_000**0.5).all()
    for point in (dist.Delta(mean, event_dim=1), dist.Delta(mean).to_event(1)):
        torch.testing.assert_close(kl_divergence(point, slab), -slab.log_prob(mean))
    kl_dense = kl_divergence(dist.Normal(torch.zeros(DIM), 0.5).to_event(1), SlabPrior(prior)())
    per_latent = kl_divergence(dist.Normal(torch.tensor(0.0), 0.5), one)
    torch.testing.assert_close(kl_dense, DIM * per_latent)


@EITHER
def test_slab_in_a_program(make):
    prior = make()
    support, z = sparse_codes()
    slab_prior = SlabPrior(prior)

    def model():
        with pyro.plate("rows", ROWS):
            return pyro.sample("z", restrict(slab_prior(), support))

    def guide():
        with pyro.plate("rows", ROWS):
            pyro.sample("z", dist.Delta(z, event_dim=1))

    expected = -restrict(slab_prior(), support).log_prob(z).sum()
    for elbo in (Trace_ELBO(), TraceMeanField_ELBO()):
        torch.testing.assert_close(elbo.differentiable_loss(model, guide), expected)
        halved = [poutine.scale(f, scale=0.5) for f in (model, guide)]
        torch.testing.assert_close(elbo.differentiable_loss(*halved), expected / 2)
    with torch.no_grad():
        draws = Predictive(model, num_samples=500)()["z"]
    assert draws.shape == (500, ROWS, WIDTH)
    loc, std = (0.0, 0.7 * 2**0.5) if isinstance(prior, LaplacePrior) else (0.3, 1.0)
    count = draws.numel()
    assert abs(draws.mean() - loc) < 5 * std / count**0.5
    assert abs(draws.square().mean() - loc**2 - std**2) < 5 * draws.square().std() / count**0.5
    assert slab_prior().rsample().shape == (DIM,)
    assert slab_prior.dim == DIM


def test_slab_of_replicas():
    both = [SlabPrior(LaplacePrior(4, scale=s, learnable=True)) for s in (0.5, 2.0)]
    stacked = replicas.stack(both)
    assert stacked().shape() == (2, 1, 4)
    z = torch.randn(2, 7, 4) * (torch.rand(2, 7, 4) < 0.5)
    expected = torch.stack([p().log_prob(row) for p, row in zip(both, z, strict=True)])
    torch.testing.assert_close(stacked().log_prob(z), expected)
    with pytest.raises(ConfigError) as caught:
        restrict(stacked(), torch.tensor([[0, 1]]))
    assert caught.value.code == "restrict.replicas"


@pytest.mark.parametrize(
    "make",
    [
        lambda: CholeskyPrior(4),
        lambda: EquicorrelatedPrior(4, correlation=0.2),
        lambda: BlockDiagonalPrior([2, 2]),
        lambda: GraphLaplacianPrior(Graph.ring(4)),
        lambda: FlatPrior(4),
    ],
    ids=["cholesky", "equicorrelated", "blocks", "graph", "flat"],
)
def test_a_slab_of_coupled_latents_is_refused(make):
    prior = make()
    with pytest.raises(ConfigError) as caught:
        SlabPrior(prior)
    assert caught.value.code == "slab.coupled"


def test_flat_is_drawn_and_never_scored():
    support, z = sparse_codes()
    prior = FlatPrior(DIM)
    z.requires_grad_()

    def model():
        with pyro.plate("rows", ROWS):
            return pyro.sample("z", restrict(prior(), support))

    for fn, value in (
        (prior(), dense_codes(support, z)),
        (prior().expand((ROWS,)), dense_codes(support, z)),
        (restrict(prior(), support), z),
        (restrict(prior(), support).expand((ROWS,)), z),
    ):
        for point in (dist.Delta(value, event_dim=1), dist.Delta(value).to_event(1)):
            kl = kl_divergence(point, fn)
            assert kl.shape == (ROWS,)
            assert (kl == 0).all()
    assert prior().shape() == (DIM,)
    with torch.no_grad():
        draws = Predictive(model, num_samples=500)()["z"]
    assert draws.shape == (500, ROWS, WIDTH)
    assert abs(draws.mean()) < 5 / draws.numel() ** 0.5
    assert abs(draws.square().mean() - 1) < 5 * 2**0.5 / draws.numel() ** 0.5
    assert replicas.stack([FlatPrior(3), FlatPrior(3)])().shape() == (2, 1, 3)
    assert prior.float()().sample().dtype == torch.float32


@pytest.mark.parametrize(
    "posterior",
    [
        dist.Normal(torch.zeros(4), 1.0).to_event(1),
        dist.MultivariateNormal(torch.zeros(4), torch.eye(4)),
        dist.Normal(torch.zeros(4), 1.0).to_event(1).mask(False),
        dist.Laplace(torch.zeros(4), 1.0).to_event(1),
    ],
    ids=["diagonal", "full", "masked", "laplace"],
)
def test_flat_has_no_kl_from_a_density(posterior):
    sparse = restrict(FlatPrior(9)(), torch.tensor([1, 2, 5, 3]))
    for flat in (FlatPrior(4)(), sparse):
        with pytest.raises(ConfigError) as caught:
            kl_divergence(posterior, flat)
        assert caught.value.code == "flat.kl"


def test_indicator_settings():
    prior = BernoulliPrior(5, rate=0.03, learnable=True)
    assert prior.rate == pytest.approx(0.03, rel=1e-14)
    assert [n for n, _ in prior.named_parameters()] == ["logits"]
    assert not list(BernoulliPrior(5, rate=0.03).parameters())
    both = [BernoulliPrior(5, rate=rate) for rate in (0.1, 0.6)]
    assert replicas.stack(both)().shape() == (2, 1, 5)
    assert replicas.stack(both).rate == pytest.approx(0.1)
    for rate in (0.0, 1.0, -0.1, 1.5, math.nan):
        with pytest.raises(ConfigError) as caught:
            BernoulliPrior(5, rate=rate)
        assert caught.value.code == "prior.bad_rate"


def test_straight_through_indicators_get_the_price():
    """A 0/1 made of a soft gate sends λ times the slope of the gate back, validation on."""
    prior = BernoulliPrior(5, rate=0.1)
    score = torch.randn(3, 2, requires_grad=True)
    soft = score.sigmoid()
    active = (score > 0).double() + (soft - soft.detach())
    log_prob = restrict(prior(), torch.tensor([[0, 1], [4, 2], [3, 0]])).log_prob(active)
    (grad,) = torch.autograd.grad(-log_prob.sum(), score)
    torch.testing.assert_close(grad, math.log(9) * soft * (1 - soft))
