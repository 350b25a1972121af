"""A code in slots is only a way of writing a dense code: same density, same gradients."""

from functools import partial

import numpy as np
import pyro
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prior_table import GAUSSIAN, PER_ROW, random_graph
from pyro import distributions as dist
from pyro import poutine
from pyro.infer import Predictive, Trace_ELBO, TraceMeanField_ELBO
from torch import nn
from torch.distributions import kl_divergence

from priors import (
    BernoulliPrior,
    EquicorrelatedPrior,
    FlatPrior,
    GraphLaplacianPrior,
    IsotropicPrior,
    LaplacePrior,
    Omitted,
    UniformSubsets,
    replicas,
    restrict,
)
from priors.errors import ConfigError


class PerLatent(nn.Module):
    """A factorised prior of any family, every parameter learned per latent."""

    def __init__(self, family, dim, rng, **starts):
        super().__init__()
        self.family, self.dim = family, dim
        for name, start in starts.items():
            value = start * np.exp(0.3 * rng.standard_normal(dim))
            self.register_parameter(name, nn.Parameter(torch.as_tensor(value)))

    def forward(self):
        return self.family(**dict(self.named_parameters())).to_event(1)


def _mean(dim, rng):
    return nn.Parameter(torch.as_tensor(rng.standard_normal(dim)))


def _graph_mean(dim, rng, normalized=False):
    graph = random_graph(dim, rng, 0.3, signed=True)
    graph = graph.normalized() if normalized else graph
    return GraphLaplacianPrior(graph, ridge=0.4, strength=2.0, learnable=True, loc=_mean(dim, rng))


def _drawn(dim, rng, draw):
    return draw(dim, rng, 0.4).prior


FACTORISED = {
    "laplace": lambda dim, rng: LaplacePrior(dim, scale=0.6, learnable=True),
    "laplace per latent": lambda dim, rng: PerLatent(dist.Laplace, dim, rng, loc=0.3, scale=0.5),
    "normal per latent": lambda dim, rng: PerLatent(dist.Normal, dim, rng, loc=0.3, scale=0.5),
    "student": lambda dim, rng: PerLatent(dist.StudentT, dim, rng, df=3.0, loc=0.1, scale=0.5),
}
COUPLED = {
    **{name: partial(_drawn, draw=draw) for name, draw in GAUSSIAN.items()},
    "isotropic mean": lambda dim, rng: IsotropicPrior(dim, learnable=True, loc=_mean(dim, rng)),
    "equicorrelated mean": lambda dim, rng: EquicorrelatedPrior(
        dim, correlation=0.3, loc=_mean(dim, rng)
    ),
    "graph mean": _graph_mean,
    "normalized graph mean": partial(_graph_mean, normalized=True),
}
PRIORS = {**FACTORISED, **COUPLED}
EVERY = pytest.mark.parametrize("make", PRIORS.values(), ids=PRIORS)


def drawn_codes(rng, dim, *, batch=3):
    """Slots in any order, some of them empty; ``W`` from 1 to ``dim``."""
    width = int(rng.integers(1, dim + 1))
    support = np.stack([rng.permutation(dim)[:width] for _ in range(batch)])
    values = rng.standard_normal((batch, width)) * (rng.random((batch, width)) < 0.8)
    return torch.from_numpy(support), torch.from_numpy(values).requires_grad_()


def written_out(support, values, dim):
    return torch.zeros(*values.shape[:-1], dim).scatter_add(-1, support, values)


def gradients(log_prob, leaves, weights):
    loss = -(weights * log_prob).sum()
    return torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)


@EVERY
@PER_ROW
@given(seed=st.integers(0, 2**32 - 1), dim=st.integers(1, 7))
def test_same_density_and_gradients(make, seed, dim):
    rng = np.random.default_rng(seed)
    prior = make(dim, rng)
    support, values = drawn_codes(rng, dim)
    leaves = [values, *(p for p in prior.parameters() if p.requires_grad)]
    weights = torch.from_numpy(rng.standard_normal(len(values)))
    ours = restrict(prior(), support).log_prob(values)
    oracle = prior().log_prob(written_out(support, values, dim))
    torch.testing.assert_close(ours, oracle, rtol=1e-10, atol=1e-10)
    for a, b in zip(
        gradients(ours, leaves, weights), gradients(oracle, leaves, weights), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("learnable", [False, True])
def test_indicators(learnable):
    """The KL of a Delta over indicators is λ·L0 plus a constant, and its gradient is λ."""
    rate, dim = 0.02, 50
    prior = BernoulliPrior(dim, rate=rate, learnable=learnable)
    support = torch.stack([torch.randperm(dim)[:9] for _ in range(20)])
    active = (torch.rand(20, 9) < 0.5).double().requires_grad_()
    kl = kl_divergence(dist.Delta(active, event_dim=1), restrict(prior(), support))
    lam = np.log((1 - rate) / rate)
    expected = lam * active.sum(-1) - dim * np.log1p(-rate)
    torch.testing.assert_close(kl, expected, rtol=1e-12, atol=1e-12)
    (slope,) = torch.autograd.grad(kl.sum(), active, retain_graph=True)
    torch.testing.assert_close(slope, torch.full_like(active, lam), rtol=1e-12, atol=0)
    if learnable:  # dKL/dlogit_k = B π - (times k is active)
        (grad,) = torch.autograd.grad(kl.sum(), prior.logits)
        count = written_out(support, active, dim).sum(0)
        torch.testing.assert_close(grad, 20 * rate - count, rtol=1e-10, atol=1e-10)


def test_indicators_refuse_other_values():
    restricted = restrict(BernoulliPrior(4, rate=0.1)(), torch.tensor([[0, 2]]))
    with pytest.raises(ValueError, match="support"):
        restricted.log_prob(torch.tensor([[0.5, 1.0]]))
    # The attribute that torch computes on demand is not a second parameter.
    base = BernoulliPrior(4, rate=0.1)()
    assert base.base_dist.probs.shape == (4,)
    for prior in (base, dist.Bernoulli(probs=torch.full((4,), 0.1)).to_event(1)):
        got = restrict(prior, torch.tensor([[0, 2]])).log_prob(torch.tensor([[1.0, 0.0]]))
        np.testing.assert_allclose(got.item(), np.log(0.1 * 0.9**3), rtol=1e-12)
    draws = restrict(base, torch.tensor([[0, 2]])).sample((10_000,))
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    assert (draws.mean((0, 1)) - 0.1).abs().max() < 5 * (0.1 * 0.9 / 10_000) ** 0.5


@EVERY
def test_empty_slots_are_free_in_any_order(make):
    rng = np.random.default_rng(1)
    prior = make(7, rng)
    support, values = torch.tensor([[5, 2, 1]]), torch.tensor([[0.3, -0.8, 1.1]])
    alone = restrict(prior(), support).log_prob(values)
    order = torch.tensor([2, 0, 1])
    moved = restrict(prior(), support[:, order]).log_prob(values[:, order])
    torch.testing.assert_close(moved, alone, rtol=1e-12, atol=1e-12)
    for other in (0, 5):  # a latent without a slot, and one that has its own
        padded = torch.cat([support, torch.full((1, 1), other)], 1)
        got = restrict(prior(), padded).log_prob(nn.functional.pad(values, (0, 1)))
        torch.testing.assert_close(got, alone, rtol=1e-12, atol=1e-12)


def _expected_log_density(prior, mean, scale, slots):
    """``E log p(z)`` for one row of Gaussian amplitudes, 200 001 points per slot where needed."""
    p, dim = prior(), prior.dim
    if hasattr(p, "precision"):
        unit, loc = np.eye(dim), p.loc.detach().numpy()
        quadratic = p.precision.quadratic
        columns = quadratic(torch.from_numpy(unit)).detach().numpy()
        code = np.zeros(dim)
        code[slots] = mean
        shifted = quadratic(torch.from_numpy(code - loc)).item()
        spread = (columns[slots] * scale**2).sum()
        return p.log_normalizer().item() - 0.5 * (shifted + spread)
    base, total = p.base_dist, 0.0
    zero = base.log_prob(torch.zeros(dim)).detach().numpy()
    for m, s, k in zip(mean, scale, slots, strict=True):
        grid = np.linspace(m - 12 * s, m + 12 * s, 200_001)
        mass = np.exp(-0.5 * ((grid - m) / s) ** 2)
        logs = base.log_prob(torch.from_numpy(np.repeat(grid[:, None], dim, 1)))[:, k]
        total += (mass * logs.detach().numpy()).sum() / mass.sum()
    return total + np.delete(zero, slots).sum()


@pytest.mark.parametrize("name", [name for name in PRIORS if name != "student"])
def test_kl_from_gaussian_amplitudes(name):
    rng = np.random.default_rng(2)
    prior = PRIORS[name](6, rng)
    support = torch.tensor([[4, 1, 3], [0, 5, 2]])
    mean, scale = torch.randn(2, 3), torch.rand(2, 3) + 0.2
    posterior = dist.Normal(mean, scale).to_event(1)
    kl = kl_divergence(posterior, restrict(prior(), support))
    for row in range(2):
        args = (x[row].numpy() for x in (mean, scale, support))
        expected = -posterior.entropy()[row].item() - _expected_log_density(prior, *args)
        # A kink inside a cell of width 1e-4 costs 1e-9 of a mean.
        np.testing.assert_allclose(kl[row].item(), expected, rtol=1e-7)


@EVERY
def test_draws_are_the_priors_own(make):
    rng = np.random.default_rng(3)
    prior = make(5, rng)
    slots = torch.tensor([[4, 0, 2]])
    restricted = restrict(prior(), slots)
    assert restricted.shape() == (1, 3)
    assert restricted.expand((4, 2)).sample((3,)).shape == (3, 4, 2, 3)
    with torch.no_grad():
        ours, oracle = restricted.sample((40_000,)).squeeze(1), prior().sample((40_000,))
    oracle = oracle[:, slots[0]]
    ours, oracle = ours.clamp(-9, 9), oracle.clamp(-9, 9)  # a Student t may have no variance
    for power in (1, 2):
        a, b = ours**power, oracle**power
        error = ((a.var(0) + b.var(0)) / 40_000).sqrt()
        assert ((a.mean(0) - b.mean(0)).abs() < 5 * error).all()
    pair, pair_ = ours[:, 0] * ours[:, 1], oracle[:, 0] * oracle[:, 1]
    error = ((pair.var() + pair_.var()) / 40_000).sqrt()
    assert (pair.mean() - pair_.mean()).abs() < 5 * error
    assert restricted.rsample().requires_grad == any(p.requires_grad for p in prior.parameters())


@pytest.mark.float32
def test_penalty_survives_the_normaliser_in_float32():
    dim, prior = 8192, LaplacePrior(8192, scale=10.0, learnable=True)
    support = UniformSubsets(dim, 32).expand((64,)).sample()
    z = torch.rand(64, 32).requires_grad_()
    log_prob = restrict(prior(), support).log_prob(z)
    assert log_prob.dtype == torch.float64
    empty = restrict(prior(), support).log_prob(torch.zeros(64, 32))
    expected = -z.double().sum(-1) / 10
    # K log 2b is 2.5e4, whose last digit in float32 is 2e-3; the penalty is 1.6.
    torch.testing.assert_close(log_prob - empty, expected, rtol=1e-6, atol=0)
    loss = -log_prob.sum() + torch.zeros(64).sum()
    grads = torch.autograd.grad(loss, [z, prior.log_scale])
    assert [g.dtype for g in grads] == [torch.float32] * 2
    torch.testing.assert_close(grads[0], torch.full((64, 32), 0.1))
    torch.testing.assert_close(grads[1].double(), 64 * dim + expected.sum(), rtol=1e-6, atol=0)


@pytest.mark.float32
@pytest.mark.parametrize("make", COUPLED.values(), ids=COUPLED)
def test_float32_gradients_are_the_dense_ones(make):
    rng = np.random.default_rng(4)
    prior = make(7, rng).float()
    support, values = drawn_codes(rng, 7, batch=5)
    values = values.detach().float().requires_grad_()
    leaves = [values, *(p for p in prior.parameters() if p.requires_grad)]
    ours = restrict(prior(), support).log_prob(values)
    assert ours.dtype == torch.float64
    oracle = prior().log_prob(written_out(support, values, 7))
    torch.testing.assert_close(ours.float(), oracle, rtol=1e-4, atol=1e-4)
    pairs = (gradients(x, leaves, torch.ones(5)) for x in (ours, oracle))
    for a, b in zip(*pairs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_errors():
    support, laplace = torch.tensor([[0, 1]]), LaplacePrior(3)
    mixture = dist.MixtureSameFamily(
        dist.Categorical(torch.ones(3, 2)), dist.Normal(torch.zeros(3, 2), torch.ones(3, 2))
    )
    cases = {
        "restrict.unregistered": [
            (dist.MultivariateNormal(torch.zeros(3), torch.eye(3)), support),
            (mixture.to_event(1), support),
            (laplace().mask(False), support),
        ],
        "restrict.replicas": [
            (replicas.stack([laplace, laplace])(), support),
            (replicas.stack([IsotropicPrior(3), IsotropicPrior(3)])(), support),
            (laplace().expand((2,)), support),
            (replicas.stack([FlatPrior(3), FlatPrior(3)])(), support),
        ],
        "restrict.event": [(dist.Normal(torch.zeros(3, 2), 1.0).to_event(2), support)],
        "restrict.support": [
            (laplace(), support.double()),
            (laplace(), support.int()),
            (laplace(), torch.tensor(1)),
        ],
    }
    for code, calls in cases.items():
        for call in calls:
            with pytest.raises(ConfigError) as caught:
                restrict(*call)
            assert caught.value.code == code
    with pytest.raises(ConfigError, match=r"MultivariateNormal.*restrict\.register"):
        restrict(*cases["restrict.unregistered"][0])


@pytest.mark.parametrize("family", [dist.StudentT, dist.Gumbel])
def test_a_posterior_without_a_closed_form_is_refused(family):
    starts = [torch.ones(1, 2)] * len(family.arg_constraints)
    for prior in (IsotropicPrior(3), LaplacePrior(3)):
        restricted = restrict(prior(), torch.tensor([[0, 1]]))
        with pytest.raises(NotImplementedError):
            kl_divergence(family(*starts).to_event(1), restricted)


@EVERY
def test_a_point_wrapped_as_independent_is_a_point(make):
    prior = make(5, np.random.default_rng(7))
    restricted = restrict(prior(), torch.tensor([[3, 1]]))
    z = torch.randn(1, 2)
    kl = kl_divergence(dist.Delta(z).to_event(1), restricted)
    torch.testing.assert_close(kl, -restricted.log_prob(z), rtol=1e-10, atol=1e-10)


@EVERY
def test_handlers_and_elbos(make):
    rng = np.random.default_rng(5)
    prior = make(6, rng)
    support = torch.tensor([[4, 1], [0, 5], [2, 3]])
    z = torch.randn(3, 2)

    def model():
        with pyro.plate("rows", 3):
            return pyro.sample("z", restrict(prior(), support))

    def guide():
        with pyro.plate("rows", 3):
            pyro.sample("z", dist.Delta(z, event_dim=1))

    expected = -prior().log_prob(written_out(support, z, 6))
    kept = torch.tensor([True, False, True])
    for elbo in (Trace_ELBO(), TraceMeanField_ELBO()):
        for wrap, factor in (
            (poutine.scale(scale=0.5), 0.5 * torch.ones(3)),
            (poutine.mask(mask=kept), kept.double()),
        ):
            loss = elbo.differentiable_loss(wrap(model), wrap(guide))
            torch.testing.assert_close(loss, (factor * expected).sum(), rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        assert Predictive(model, num_samples=4)()["z"].shape == (4, 3, 2)
        assert Predictive(model, num_samples=4, parallel=True)()["z"].shape == (4, 3, 2)
        assert Predictive(model, guide=guide, num_samples=4)()["z"].shape == (4, 3, 2)


class Loss(nn.Module):
    def __init__(self, prior):
        super().__init__()
        self.prior = prior

    def forward(self, support, values):
        return -restrict(self.prior(), support).log_prob(values).sum()


@EVERY
def test_export_keeps_the_gradients(make):
    """Also: nothing reads a number off the device, or tracing would fail."""
    rng = np.random.default_rng(6)
    module = Loss(make(6, rng))
    support, values = drawn_codes(rng, 6)
    oracle = module(support, values)  # a fixed graph's log-determinant is found once, eagerly
    pyro.enable_validation(False)
    exported = torch.export.export(module, (support, values), strict=False).module()
    ours = exported(support, values)
    torch.testing.assert_close(ours, oracle, rtol=1e-12, atol=1e-12)
    names = [name for name, p in module.named_parameters() if p.requires_grad]
    found = dict(exported.named_parameters())
    a = torch.autograd.grad(ours, [values, *(found[name] for name in names)])
    own = dict(module.named_parameters())
    b = torch.autograd.grad(oracle, [values, *(own[name] for name in names)])
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)


def test_nothing_of_the_size_of_a_dense_batch_is_made():
    """Priors with a sparse form never write the codes out."""
    dim, rows = 4096, 64
    graph = random_graph(50, np.random.default_rng(0), 0.3)
    wide = type(graph)(graph.edges, graph.weights, dim)
    priors = [
        LaplacePrior(dim, learnable=True),
        IsotropicPrior(dim, learnable=True),
        EquicorrelatedPrior(dim, correlation=0.1),
        GraphLaplacianPrior(wide, logdet=Omitted()),
    ]
    support = UniformSubsets(dim, 4).expand((rows,)).sample()
    for prior in priors:
        sizes = []

        def pack(tensor, sizes=sizes):
            sizes.append(tensor.numel())
            return tensor

        values = torch.rand(rows, 4).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            restrict(prior(), support).log_prob(values).sum().backward()
        assert max(sizes) <= 3 * dim < dim * rows
