"""Every Gaussian prior, with random parameters, beside its precision by definition."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from unittest import mock

import numpy as np
import oracles
import torch
from hypothesis import settings
from torch import nn

import priors.block_diagonal
from priors import (
    BlockDiagonalPrior,
    CholeskyPrior,
    EquicorrelatedPrior,
    Graph,
    GraphLaplacianPrior,
    IsotropicPrior,
)
from priors.ard import ARDPrior

# A property runs over all thirteen rows, so a fifth of the profile's examples for each is 1 300.
PER_ROW = settings(max_examples=settings().max_examples // 5)


@dataclass(frozen=True)
class Drawn:
    """A prior, and ``precision(field)``, which knows its parameters and nothing of its code."""

    prior: nn.Module
    precision: Callable

    @property
    def loc(self) -> np.ndarray:
        return self.prior.loc.detach().numpy()


def _isotropic(dim, rng, spread, loc=0.0):
    prior = IsotropicPrior(dim, scale=np.exp(spread * rng.uniform(-1, 1)), learnable=True, loc=loc)
    return Drawn(prior, partial(oracles.isotropic, dim=dim, log_scale=prior.log_scale.item()))


def _equicorrelated(dim, rng, spread, loc=0.0):
    low = -1.0 if dim < 3 else -1 / (dim - 1)
    near = 10 ** rng.uniform(-3 * spread, 0)  # from the bound; 1e-15 at the widest
    rho = float(1 - near if rng.random() < 0.5 else low + near * (1 - low))
    rho = min(max(rho, np.nextafter(low, 1.0)), np.nextafter(1.0, 0.0))
    prior = EquicorrelatedPrior(dim, correlation=rho, loc=loc)
    return Drawn(prior, partial(oracles.equicorrelated, dim=dim, correlation=rho))


def _ard_precision(field, log_scale):
    return field.of(np.eye(len(log_scale))) * field.exp(field.of(-2.0) * field.of(log_scale))


def _ard(dim, rng, spread):
    prior = ARDPrior(dim, loc=-0.3)
    _random_tensors(prior, rng, spread)
    return Drawn(prior, partial(_ard_precision, log_scale=prior.log_scale.detach().numpy()))


def _random_tensors(module, rng, spread):
    for parameter in module.parameters():
        value = spread * rng.uniform(-1, 1, parameter.shape)
        parameter.data = torch.as_tensor(value, dtype=torch.get_default_dtype())


def _cholesky(dim, rng, spread):
    prior = CholeskyPrior(dim, loc=nn.Parameter(torch.zeros(dim)))
    _random_tensors(prior, rng, spread)
    raw = {"strict_lower": prior.strict_lower, "log_diagonal": prior.log_diagonal}
    raw = {name: value.detach().numpy() for name, value in raw.items()}
    return Drawn(prior, partial(oracles.cholesky, **raw))


def _sizes(dim):
    """1, 2, 3, … and what is left."""
    sizes = []
    while sum(sizes) < dim:
        sizes.append(min(len(sizes) + 1, dim - sum(sizes)))
    return sizes


def _block(prior, members, rng, spread):
    _random_tensors(prior, rng, spread)
    found = {}
    for group in prior.groups:
        for b in range(len(group.index)):
            held = tuple(group.index[b][group.valid[b]].tolist())
            found[held] = (group.strict_lower[b].detach(), group.log_diagonal[b].detach())
    factors = [tuple(t.numpy() for t in found[tuple(latents)]) for latents in members]
    return Drawn(prior, partial(oracles.block_diagonal, members=members, factors=factors))


def _consecutive_blocks(dim, rng, spread):
    sizes = _sizes(dim)
    members = [b.tolist() for b in np.split(np.arange(dim), np.cumsum(sizes)[:-1])]
    return _block(BlockDiagonalPrior(sizes), members, rng, spread)


def _equal_blocks(dim, rng, spread):
    size = next(s for s in (3, 2, 1) if dim % s == 0)
    members = np.arange(dim).reshape(-1, size).tolist()
    return _block(BlockDiagonalPrior([size] * (dim // size)), members, rng, spread)


def _labelled_blocks(dim, rng, spread):
    labels = rng.permutation(np.repeat(np.arange(len(_sizes(dim))), _sizes(dim)))
    # Group by size already when small.
    with mock.patch.multiple(priors.block_diagonal, SMALL=0, WASTE=1):
        prior = BlockDiagonalPrior.from_labels(labels.tolist(), loc=0.25)
    members = [np.flatnonzero(labels == label).tolist() for label in np.unique(labels)]
    return _block(prior, members, rng, spread)


def random_graph(dim, rng, decades, *, signed=False):
    """A random forest of edges and a few more: several components, cycles, isolated nodes."""
    low, high = np.triu_indices(dim, 1)
    kept = rng.random(len(low)) < rng.uniform(0, 1)
    weights = 10 ** (decades * rng.uniform(-0.5, 0.5, kept.sum()))
    if signed:
        weights *= rng.choice([-1.0, 1.0], kept.sum())
    edges = torch.from_numpy(np.stack([low[kept], high[kept]]))
    return Graph(edges, torch.from_numpy(weights), dim, signed=signed)


def _graph(dim, rng, spread, *, signed=False, normalized=False, learnable=False, loc=0.0):
    # Eigenvalues are found to within rounding of the largest, so those of a learned prior must not
    # span decades for a relative claim; a factorisation does not mind.
    graph = random_graph(dim, rng, 0.3 if learnable else spread, signed=signed)
    raw = (dim, graph.edges.numpy(), graph.weights.numpy())
    ridge = 10 ** (-1 - 2.6 * spread * rng.uniform(0, 1))  # 1e-14 at the widest
    with mock.patch("priors.laplacian.WIDE", np.inf):
        prior = GraphLaplacianPrior(
            graph.normalized() if normalized else graph,
            ridge=ridge,
            strength=10 ** rng.uniform(-1, 1),
            learnable=learnable,
            loc=loc,
        )
    scalars = (prior.log_ridge.item(), prior.log_strength.item())

    def precision(field):
        return oracles.graph_precision(field, *scalars, *raw, normalized=normalized)

    return Drawn(prior, precision)


GAUSSIAN = {  # a new prior is tested by adding one line here
    "isotropic": _isotropic,
    "isotropic-loc": partial(_isotropic, loc=-0.7),
    "ard": _ard,
    "equicorrelated": _equicorrelated,
    "cholesky": _cholesky,
    "blocks": _consecutive_blocks,
    "blocks-equal": _equal_blocks,
    "blocks-labelled": _labelled_blocks,
    "graph": _graph,
    "graph-signed": partial(_graph, signed=True, loc=0.5),
    "graph-normalized": partial(_graph, normalized=True),
    "graph-learned": partial(_graph, learnable=True),
    "graph-signed-normalized": partial(_graph, signed=True, normalized=True),
}
