"""``log det(γI + λL)`` from all eigenvalues of ``L``, computed once."""

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from priors.errors import GraphError
from priors.graph import Graph
from priors.log_determinant import AbstractLogDeterminant

MOST_NODES = 8192  # of one component: 0.5 GB and about a minute


class Spectrum(AbstractLogDeterminant):
    r"""The eigenvalues :math:`ν_k` of ``L`` once; then :math:`\sum_k \log(γ + λν_k)`, for free.

    Differentiable in ``γ`` and ``λ``: the choice where they are learned. Components are solved one
    by one, and the null space is exactly zero because the graph says so, not the eigenvalues.

    Raises:
        GraphError: ``graph.too_large`` if a component has more than 8192 nodes.

    Example:
        >>> Spectrum().of(Graph.ring(4)).eigenvalues.round(decimals=6).tolist()
        [0.0, 2.0, 2.0, 4.0]
    """

    def of(self, graph: Graph) -> "Spectrum":
        if self._graph is graph:
            return self
        new = Spectrum()
        new._graph = graph
        new.register_buffer("eigenvalues", torch.from_numpy(eigenvalues(graph)), persistent=False)
        return new

    def forward(self, ridge: Tensor, strength: Tensor) -> Tensor:
        gamma, lam = ridge.double().unsqueeze(-1), strength.double().unsqueeze(-1)
        return (gamma + lam * self.eigenvalues).log().sum(-1)


def eigenvalues(graph: Graph) -> Float64[np.ndarray, " K"]:
    """All eigenvalues of the graph's Laplacian, ascending; as many exact zeros as it has."""
    labels = np.asarray(graph.components)
    sizes = np.bincount(labels)
    if sizes.max() > MOST_NODES:
        raise GraphError(
            f"a component has {sizes.max()} nodes, expected at most {MOST_NODES} for all "
            "eigenvalues. Use logdet=LanczosSpectrum(), or ComponentLU() with a fixed ridge and "
            "strength.",
            code="graph.too_large",
            context={"largest_component": int(sizes.max())},
        )
    null = np.asarray(graph.null_vector)
    laplacian = graph.laplacian()
    nodes = np.argsort(labels, kind="stable")  # component after component
    starts = np.cumsum(sizes) - sizes
    found = np.zeros(graph.num_nodes)
    for size in np.unique(sizes[sizes > 1]):
        first = starts[sizes == size]
        members = nodes[first[:, None] + np.arange(size)]  # (components of this size, size)
        values = np.linalg.eigvalsh(_blocks(laplacian, members)).clip(min=0.0)
        values[null[members[:, 0]] != 0, 0] = 0.0
        found[first[:, None] + np.arange(size)] = values
    return np.sort(found)


def _blocks(laplacian, members: np.ndarray) -> np.ndarray:
    """Dense diagonal blocks of the union matrix, one per row of ``members``."""
    count, size = members.shape
    flat = members.ravel()
    position = np.full(laplacian.shape[0], -1)
    position[flat] = np.tile(np.arange(size), count)
    block = np.full(laplacian.shape[0], -1)
    block[flat] = np.repeat(np.arange(count), size)
    coo = laplacian.tocoo()
    row, col = coo.coords
    inside = block[row] >= 0  # an edge never leaves its component
    dense = np.zeros((count, size, size))
    dense[block[row[inside]], position[row[inside]], position[col[inside]]] = coo.data[inside]
    return dense
