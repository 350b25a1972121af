"""Every prior inside somebody else's Pyro program: plates, handlers, Predictive, SVI."""

import copy
from contextlib import ExitStack

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from prior_table import GAUSSIAN
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO
from torch import nn

from priors import (
    BlockDiagonalPrior,
    CholeskyPrior,
    EquicorrelatedPrior,
    Graph,
    GraphLaplacianPrior,
    IsotropicPrior,
    LanczosSpectrum,
    LaplacePrior,
    Omitted,
    Spectrum,
    replicas,
)

PRIORS = pytest.mark.parametrize("draw", GAUSSIAN.values(), ids=GAUSSIAN)
DIM, ROWS = 4, 6


def _laplace(dim, rng, spread):
    return type("Drawn", (), {"prior": LaplacePrior(dim, scale=0.7)})


EVERY = pytest.mark.parametrize("draw", [*GAUSSIAN.values(), _laplace], ids=[*GAUSSIAN, "laplace"])


def _model(prior, rows=ROWS):
    with pyro.plate("rows", rows, dim=-1):
        return pyro.sample("z", prior())


@EVERY
def test_plates_and_handlers(draw):
    prior = draw(DIM, np.random.default_rng(0), 0.4).prior
    with torch.no_grad():
        trace = poutine.trace(_model).get_trace(prior)
    site = trace.nodes["z"]
    z = site["value"]
    assert z.shape == (ROWS, DIM)
    expected = prior().log_prob(z)
    trace.compute_log_prob()
    torch.testing.assert_close(site["log_prob"], expected)
    kept = torch.arange(ROWS) % 2 == 0
    changed = {
        "condition": poutine.condition(_model, {"z": z}),
        "replay": poutine.replay(_model, trace),
        "scale": poutine.scale(poutine.condition(_model, {"z": z}), 3.0),
        "mask": poutine.mask(poutine.condition(_model, {"z": z}), kept),
    }
    factor = {"condition": 1.0, "replay": 1.0, "scale": 3.0, "mask": kept.to(expected.dtype)}
    for name, model in changed.items():
        total = poutine.trace(model).get_trace(prior).log_prob_sum()
        torch.testing.assert_close(total, (factor[name] * expected).sum(), msg=name)


@EVERY
def test_replica_plates(draw):
    rng = np.random.default_rng(0)
    prior = replicas.stack([draw(DIM, rng, 0.4).prior for _ in range(3)])

    def model():
        with pyro.plate("replicas", 3, dim=-2), pyro.plate("rows", ROWS, dim=-1):
            return pyro.sample("z", prior())

    trace = poutine.trace(model).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["z"]["value"].shape == (3, ROWS, DIM)
    assert trace.nodes["z"]["log_prob"].shape == (3, ROWS)


@EVERY
def test_predictive(draw):
    prior = draw(DIM, np.random.default_rng(0), 0.4).prior
    with torch.no_grad():
        drawn = Predictive(lambda: _model(prior), num_samples=5)()["z"]
        together = Predictive(lambda: _model(prior), num_samples=5, parallel=True)()["z"]
    assert drawn.shape == (5, ROWS, DIM)
    assert together.numel() == drawn.numel()


@PRIORS
def test_mean_field_elbo_uses_the_closed_form(draw):
    """Pyro finds the registered KL inside a plate: two evaluations agree though noise differs."""
    prior = draw(DIM, np.random.default_rng(0), 0.4).prior
    mean, scale = torch.randn(ROWS, DIM), torch.rand(ROWS, DIM) + 0.1

    def guide():
        with pyro.plate("rows", ROWS, dim=-1):
            pyro.sample("z", dist.Normal(mean, scale).to_event(1))

    losses = [TraceMeanField_ELBO().loss(lambda: _model(prior), guide) for _ in range(2)]
    assert losses[0] == losses[1]
    sampled = Trace_ELBO(num_particles=4000, vectorize_particles=True, max_plate_nesting=1)
    with torch.no_grad():
        q = dist.Normal(mean, scale).to_event(1)
        z = q.sample((4000,))
        spread = (q.log_prob(z) - prior().log_prob(z)).sum(-1).std().item() / 4000**0.5
        estimate = sampled.loss(lambda: _model(prior), guide)
    assert abs(estimate - losses[0]) < 4.5 * spread


RING = Graph.ring(DIM)
LEARNED = {
    "isotropic": lambda: IsotropicPrior(DIM, learnable=True, loc=nn.Parameter(torch.zeros(DIM))),
    "equicorrelated": lambda: EquicorrelatedPrior(
        DIM, correlation=0.3, loc=nn.Parameter(torch.zeros(DIM))
    ),
    "cholesky": lambda: CholeskyPrior(DIM, loc=nn.Parameter(torch.zeros(DIM))),
    "blocks": lambda: BlockDiagonalPrior([1, 3], loc=nn.Parameter(torch.zeros(DIM))),
    "labels": lambda: BlockDiagonalPrior.from_labels([0, 1, 0, 1]),
    "graph": lambda: GraphLaplacianPrior(RING, learnable=True, loc=nn.Parameter(torch.zeros(DIM))),
    "graph-lanczos": lambda: GraphLaplacianPrior(RING, learnable=True, logdet=LanczosSpectrum()),
    "graph-fixed": lambda: GraphLaplacianPrior(RING, loc=nn.Parameter(torch.zeros(DIM))),
    "laplace": lambda: LaplacePrior(DIM, learnable=True),
}


@pytest.mark.parametrize("elbo", [TraceMeanField_ELBO, Trace_ELBO])
@pytest.mark.parametrize("count", [None, 2])
@pytest.mark.parametrize("make", LEARNED.values(), ids=LEARNED)
def test_every_learnable_parameter_moves_under_svi(make, count, elbo):
    """The user's own program, with Pyro's idiom; fixed quantities and unused halves stay."""
    prior = replicas.stack([make() for _ in range(count)]) if count else make()
    shape = (count, ROWS) if count else (ROWS,)
    x = torch.randn(*shape, DIM)
    before = {name: p.detach().clone() for name, p in prior.named_parameters()}
    wanted = {name for name, p in prior.named_parameters() if p.requires_grad}
    assert wanted

    def model():
        pyro.module("prior", prior)
        with _plates(count):
            z = pyro.sample("z", prior())
            pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)

    def guide():
        loc = pyro.param("loc", torch.randn(*shape, DIM))
        scale = pyro.param("scale", torch.full((*shape, DIM), 0.3), dist.constraints.positive)
        with _plates(count):
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), elbo())
    for _ in range(3):
        assert np.isfinite(svi.step())
    pyro.clear_param_store()
    for name, parameter in prior.named_parameters():
        moved = (parameter.detach() != before[name]).flatten(0, -1)
        assert bool(moved.any()) == (name in wanted), name
        if name.split(".")[-1] in {"loc", "log_scale", "log_ridge", "log_strength"}:
            assert bool(moved.all()) == (name in wanted), name


def _plates(count):
    rows = pyro.plate("rows", ROWS, dim=-1)
    if count is None:
        return rows
    stack = ExitStack()
    stack.enter_context(pyro.plate("replicas", count, dim=-2))
    stack.enter_context(rows)
    return stack


@pytest.mark.parametrize("make", LEARNED.values(), ids=LEARNED)
def test_export_keeps_the_gradient(make):
    """``torch.export`` of a density has the eager gradient: a lost backward pass is silent."""
    prior = make()
    z = torch.randn(3, DIM)
    prior().log_prob(z)  # a constant log-determinant is computed at first use

    class Density(nn.Module):
        def __init__(self):
            super().__init__()
            self.prior = prior

        def forward(self, z):
            with pyro.validation_enabled(False):
                return self.prior().log_prob(z).sum()

    exported = torch.export.export(Density(), (z,), strict=False).module()
    at = z.clone().requires_grad_()
    (eager,) = torch.autograd.grad(prior().log_prob(at).sum(), at)
    (found,) = torch.autograd.grad(exported(at), at)
    torch.testing.assert_close(found, eager)


def test_a_prior_can_be_a_pyro_module():
    from pyro.nn import PyroModule, PyroSample
    from pyro.nn.module import to_pyro_module_

    prior = PyroModule[IsotropicPrior](3, learnable=True)
    prior.log_scale = PyroSample(dist.Normal(0.0, 1.0))
    with pyro.poutine.trace() as tracer:
        prior()
    assert "log_scale" in tracer.trace.nodes
    for make in (lambda: CholeskyPrior(3), lambda: GraphLaplacianPrior(Graph.ring(3))):
        plain, converted = make(), make()
        to_pyro_module_(converted)
        z = torch.randn(4, 3)
        torch.testing.assert_close(converted().log_prob(z), plain().log_prob(z))
    pyro.clear_param_store()  # PyroModule keeps its parameters there


def test_the_normaliser_follows_whatever_replaces_its_settings():
    graph = Graph.ring(5)
    expected = GraphLaplacianPrior(graph, ridge=10.0)
    replaced, assigned, loaded = (GraphLaplacianPrior(graph, ridge=0.1) for _ in range(3))
    for prior in (replaced, assigned, loaded):
        prior().precision.logdet()
    replaced.log_ridge = torch.tensor(10.0).log()
    assigned.load_state_dict(expected.state_dict(), assign=True)
    loaded.load_state_dict(expected.state_dict())
    z = torch.randn(4, 5)
    for prior in (replaced, assigned, loaded):
        torch.testing.assert_close(prior().log_prob(z), expected().log_prob(z))


def test_a_loaded_mean_counts():
    prior, source = IsotropicPrior(3), IsotropicPrior(3, loc=-5.0)
    prior().log_prob(torch.zeros(3))
    prior.load_state_dict(source.state_dict())
    z = torch.full((3,), -5.0)
    torch.testing.assert_close(prior().log_prob(z), source().log_prob(z))
    copied = copy.deepcopy(prior)
    copied.loc.zero_()
    torch.testing.assert_close(copied().log_prob(z), IsotropicPrior(3)().log_prob(z))
    torch.testing.assert_close(prior().log_prob(z), source().log_prob(z))


@pytest.mark.parametrize("logdet", [None, Spectrum(), Omitted()])
def test_stack_unstack_restack(logdet):
    graphs = [Graph.ring(4), Graph.tree([-1, 0, 1, 1])]
    alone = [GraphLaplacianPrior(g, ridge=0.1 + i, logdet=logdet) for i, g in enumerate(graphs)]
    z = torch.randn(5, 4)
    for prior, back in zip(alone, replicas.unstack(replicas.stack(alone)), strict=True):
        torch.testing.assert_close(back().log_prob(z), prior().log_prob(z))
    again = replicas.stack(replicas.unstack(replicas.stack(alone)))
    both = torch.stack([prior().log_prob(z) for prior in alone])
    torch.testing.assert_close(again().log_prob(z), both)


def test_a_cast_to_double_has_the_graphs_own_weights():
    graph = Graph(torch.tensor([[0, 1], [1, 2]]), torch.tensor([0.1, 0.3]), 3)
    torch.set_default_dtype(torch.float32)
    prior = GraphLaplacianPrior(graph).double()  # log 1 is exact in float32
    z = torch.randn(4, 3, dtype=torch.float64)
    dense = torch.eye(3, dtype=torch.float64) + torch.from_numpy(graph.laplacian().toarray())
    expected = torch.einsum("bi,ij,bj->b", z, dense, z)
    torch.testing.assert_close(prior().quadratic(z), expected, rtol=1e-14, atol=1e-14)


def test_an_empty_batch_has_no_rows():
    """Without torch's validation, whose check of a real vector cannot reshape an empty one."""
    makes = (IsotropicPrior, CholeskyPrior)
    priors = [make(3) for make in makes]
    priors += [GraphLaplacianPrior(Graph.ring(3)), BlockDiagonalPrior([2, 1])]
    with pyro.validation_enabled(False):
        for prior in priors:
            assert prior().log_prob(torch.zeros(0, 3)).shape == (0,)
