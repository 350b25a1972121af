"""What a training step may cost, in kind and not in time: no K × K, no factorisation, no host."""

from contextlib import contextmanager

import pyro
import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from priors import (
    BlockDiagonalPrior,
    CholeskyPrior,
    EquicorrelatedPrior,
    Graph,
    GraphLaplacianPrior,
    IsotropicPrior,
    LanczosSpectrum,
    LaplacePrior,
    ProductPrior,
)
from priors.replicas import stack
from vsae import ClosedFormELBO, LearnedNoise, fit
from vsae.presets import l1_autoencoder, variational_autoencoder

K, D, B, R = 2048, 16, 64, 2
NUMBER = 8  # bytes
FACTORISATIONS = ("cholesky", "lu_", "eig", "svd", "qr", "inv", "solve", "det")


def ring(signed=False):
    weights = torch.ones(K)
    weights[::2] = -1.0 if signed else 2.0
    node = torch.arange(K)
    return Graph(torch.stack([node, (node + 1) % K]), weights, K, signed=signed)


def learned_graph():
    return GraphLaplacianPrior(ring(), learnable=True, logdet=LanczosSpectrum())


PRIORS = {
    "isotropic": lambda: IsotropicPrior(K, learnable=True),
    "shifted": lambda: IsotropicPrior(K, loc=nn.Parameter(torch.zeros(K))),
    "equicorrelated": lambda: EquicorrelatedPrior(K, correlation=0.3),
    "blocks": lambda: BlockDiagonalPrior([8] * (K // 8)),
    "blocks of labels": lambda: BlockDiagonalPrior.from_labels([k % 300 for k in range(K)]),
    "graph": lambda: GraphLaplacianPrior(ring()),
    "signed graph": lambda: GraphLaplacianPrior(ring(signed=True)),
    "learned graph": learned_graph,
    "graph and ℓ1": lambda: ProductPrior(GraphLaplacianPrior(ring()), LaplacePrior(K)),
    "cholesky": lambda: CholeskyPrior(K),
    "laplace": lambda: LaplacePrior(K, learnable=True),
}


@contextmanager
def watched():
    """What ran: operators, also those inside operators of our own, and the memory each took."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        seen = Seen(run)
        yield seen
    seen.events = run.events()


class Seen:
    def __init__(self, run):
        self.run, self.events = run, []

    @property
    def reads(self):
        """How often a number was copied to the host; on a CPU Adam reads its own step counter."""
        found = [event for event in self.events if event.name == "aten::_local_scalar_dense"]
        return sum("aten::_fused_adam_" not in _callers(event) for event in found)

    @property
    def largest(self):
        """Bytes of the largest array that one operator made."""
        return max(event.self_cpu_memory_usage for event in self.events)

    @property
    def factorisations(self):
        names = {
            e.name.split("::")[-1].removeprefix("_").removeprefix("linalg_") for e in self.events
        }
        return {name for name in names if name.startswith(FACTORISATIONS)}


def step(prior):
    """One ELBO, forward and backward, after a first that fills what is computed once."""
    autoencoder = variational_autoencoder(D, prior, noise=LearnedNoise(0.5))
    objective, x = ClosedFormELBO()(autoencoder.model, autoencoder.guide), torch.randn(B, D)
    with pyro.validation_enabled(False):  # as in fit: validation looks at numbers
        objective(x).backward()
        with watched() as seen:
            objective(x).backward()
    return seen


def test_the_watch_sees_what_it_is_for():
    with watched() as seen:
        torch.linalg.cholesky(torch.eye(K))[0, 0].item()
    assert seen.largest >= K * K * NUMBER
    assert seen.reads
    assert seen.factorisations


@pytest.mark.parametrize("name", PRIORS)
def test_a_step_neither_factorises_nor_waits_for_the_device(name):
    seen = step(PRIORS[name]())
    assert seen.reads == 0
    assert not seen.factorisations
    if name == "cholesky":
        assert seen.largest == K * K * NUMBER
    else:
        assert seen.largest < K * K * NUMBER


def test_a_step_of_the_loop_reads_the_device_once():
    """The one read is whether everything is finite; the same for a stack."""
    one = l1_autoencoder(D, 32, l1=0.1)
    many = stack([variational_autoencoder(D, CholeskyPrior(32), noise=0.5) for _ in range(R)])
    for autoencoder, shape, seed in ((one, (256, D), 0), (many, (R, 256, D), range(R))):
        steps = iter(fit(autoencoder, torch.randn(shape), steps=3, batch_size=B, seed=seed))
        next(steps)
        with watched() as seen:
            next(steps)
        assert seen.reads == 1


def _callers(event):
    while event is not None:
        yield event.name
        event = event.cpu_parent
