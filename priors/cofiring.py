"""A graph over latents from how much more often than by chance they fire together."""

import numpy as np
from numpy.typing import NDArray

from priors._latent_pairs import Codes, as_columns, nearest_pairs
from priors.edge_list import Symmetrize
from priors.errors import ConfigError
from priors.graph import Graph


def cofiring_graph(
    codes: Codes, k: int, *, significance: float = 5.0, symmetrize: Symmetrize = "max"
) -> Graph:
    r"""Each latent tied to the ``k`` others of greatest normalised pointwise mutual information.

    .. math:: w_{ij} = \frac{\log (n_{ij} N / n_i n_j)}{-\log (n_{ij} / N)} \in (0, 1]

    :math:`n_i` and :math:`n_{ij}` count the rows on which one and both are not zero: amplitudes do
    not matter, and a frequent latent is nobody's neighbour for being frequent. A pair that meets
    less often than by chance is not tied, nor one for which it may be chance, as for
    :class:`vsae.CoFiringGatesPrior`:

    .. math:: 2\Big(n_{ij} \log \frac{n_{ij}}{e_{ij}} - n_{ij} + e_{ij}\Big) > s^2, \qquad
        e_{ij} = n_i n_j / N

    Args:
        codes: ``(N, K)``, dense or any scipy sparse matrix (:meth:`vsae.SparseCode.to_scipy`).
        k: Neighbours per latent, ``1 <= k < K``; fewer where fewer are tied.
        significance: :math:`s`; of frequent pairs, standard deviations under independence.
        symmetrize: As of :func:`priors.coactivation_graph`.

    Raises:
        GraphError: ``graph.codes``, ``graph.neighbours``.
        ConfigError: ``cofiring.significance`` if it is negative.

    Example:
        >>> import torch
        >>> together, apart = torch.tensor([[1.0, 9.0, 0.0]]), torch.tensor([[0.0, 0.0, 1.0]])
        >>> codes = torch.cat([together.expand(99, 3), apart.expand(99, 3)])
        >>> cofiring_graph(codes, 1).edges.tolist()
        [[0], [1]]

    Source:
        Bouma (2009), *Normalized (pointwise) mutual information in collocation extraction*.
    """
    if not significance >= 0:
        raise ConfigError(
            f"significance is a number of standard deviations: got {significance}, expected >= 0.",
            code="cofiring.significance",
        )
    fires = as_columns(codes)
    fires.data = np.ones_like(fires.data)
    rows, count = fires.shape[0], np.diff(fires.indptr).astype(np.float64)

    def weigh(i: NDArray, j: NDArray, both: NDArray) -> NDArray:
        expected = count[i] * count[j] / rows
        lift = np.log(both / expected)
        certain = 2 * (both * lift - both + expected) > significance**2
        rarity = np.where(both < rows, -np.log(both / rows), 1.0)  # of what always fires, lift is 0
        return np.where(certain, lift / rarity, 0.0)

    source, target, weight = nearest_pairs((fires.T, fires), k, weigh)
    return Graph.from_edges(
        np.stack([source, target]), weight, num_nodes=fires.shape[1], symmetrize=symmetrize
    )
