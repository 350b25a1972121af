"""Connected components, and which of them are balanced: the null space of a Laplacian, exactly."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


@dataclass(frozen=True)
class Components:
    """The connected components of a graph and, for signed weights, their two-colourings.

    A component is *balanced* if its nodes can be coloured ±1 so that every edge's sign is the
    product of its ends' colours; the colouring then spans the component's share of the null space
    of ``|D| - W``. Without negative weights every component is balanced, all of one colour.

    Args:
        labels: Component of each node, numbered by smallest node.
        sizes: Nodes per component.
        balanced: Per component.
        signs: The colouring, +1 at the smallest node of its component; 0 on unbalanced ones.

    Source:
        Harary (1953), On the notion of balance of a signed graph. Hou, Li & Pan (2003), On the
        Laplacian eigenvalues of signed graphs.
    """

    labels: Int64[np.ndarray, " K"]
    sizes: Int64[np.ndarray, " C"]
    balanced: Bool[np.ndarray, " C"]
    signs: Float64[np.ndarray, " K"]


def components(
    low: Int64[np.ndarray, " E"],
    high: Int64[np.ndarray, " E"],
    negative: Bool[np.ndarray, " E"],
    num_nodes: int,
) -> Components:
    """Components and balance of a graph given by each edge's ends and whether it is negative."""
    labels, sizes, first = _connected(low, high, num_nodes)
    if not negative.any():
        return Components(labels, sizes, np.ones(len(sizes), bool), np.ones(num_nodes))
    # The signed double cover: node i as (i, +) and (i, -). Positive edges keep the sheet, negative
    # ones change it; a component is balanced when its two sheets are not connected.
    crossing = np.where(negative, num_nodes, 0)
    cover, _, _ = _connected(
        np.concatenate([low, low + num_nodes]),
        np.concatenate([high + crossing, high + num_nodes - crossing]),
        2 * num_nodes,
    )
    upper, lower = cover[:num_nodes], cover[num_nodes:]
    balanced = upper[first] != lower[first]
    same = upper == upper[first][labels]
    return Components(labels, sizes, balanced, np.where(same, 1.0, -1.0) * balanced[labels])


def _connected(low, high, num_nodes):
    """Labels, sizes and the smallest node of each component, numbered by smallest node."""
    pattern = coo_array((np.ones(len(low)), (low, high)), shape=(num_nodes, num_nodes))
    _, found = connected_components(pattern.tocsr(), directed=False)
    _, first, labels, sizes = np.unique(
        found, return_index=True, return_inverse=True, return_counts=True
    )
    rank = np.argsort(np.argsort(first))
    order = np.argsort(first)
    return rank[labels], sizes[order], first[order]
