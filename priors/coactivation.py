"""A graph over latents from how alike their codes are, over many rows."""

import numpy as np

from priors._latent_pairs import Codes, as_columns, nearest_pairs, unit_columns
from priors.edge_list import Symmetrize
from priors.graph import Graph


def coactivation_graph(codes: Codes, k: int, *, symmetrize: Symmetrize = "max") -> Graph:
    r"""Each latent tied to the ``k`` others whose codes are the most alike, by cosine.

    .. math:: w_{ij} = \frac{\sum_n z_{ni} z_{nj}}{\lVert z_{\cdot i} \rVert\,
        \lVert z_{\cdot j} \rVert}

    Over *rows*, of a run that has been made: latents are alike if they are active together, by as
    much. Only what is active costs anything: about :math:`N L_0^2` products, in blocks, and never
    ``(K, K)`` numbers. A pair whose cosine is not positive is not tied, so that a latent that never
    fires is an isolated node. The graph speaks of the latents of that run: start from its decoder.

    Args:
        codes: ``(N, K)``, dense, in slots (:class:`vsae.SparseCode`), or any scipy sparse matrix.
        k: Neighbours per latent, ``1 <= k < K``; fewer where fewer are alike.
        symmetrize: ``"max"`` ties two latents if either is a neighbour of the other (union),
            ``"min"`` if both are (mutual), ``"mean"`` is the union with one-sided ties halved.

    Raises:
        GraphError: ``graph.codes``, ``graph.neighbours``.

    Example:
        >>> import torch
        >>> codes = torch.tensor([[1.0, 2.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 5.0]])
        >>> graph = coactivation_graph(codes, 1)
        >>> graph.edges.tolist(), graph.num_components
        ([[0], [1]], 2)

    Source:
        Cosine similarity as an affinity: von Luxburg (2007), *A tutorial on spectral clustering*,
        §2.2.
    """
    unit = unit_columns(as_columns(codes))
    source, target, weight = nearest_pairs((unit.T, unit), k)
    return Graph.from_edges(
        np.stack([source, target]), weight, num_nodes=unit.shape[1], symmetrize=symmetrize
    )
