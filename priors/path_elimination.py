"""Nodes with at most two neighbours eliminated from a Laplacian, by additions only."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64


@dataclass(frozen=True)
class Core:
    """What remains of ``Laplacian + diag(surplus)`` and the pivots of what does not.

    Args:
        pivots: Of the eliminated nodes, in their order.
        eliminated: Those nodes.
        remaining: The others; each has at least three neighbours.
        edges: Among the remaining.
        weights: Of these edges, all positive.
        surplus: What each remaining node's diagonal exceeds its weights by; indexed by node.
    """

    pivots: Float64[np.ndarray, " P"]
    eliminated: Int64[np.ndarray, " P"]
    remaining: Int64[np.ndarray, " C"]
    edges: Int64[np.ndarray, "2 E"]
    weights: Float64[np.ndarray, " E"]
    surplus: Float64[np.ndarray, " K"]


def eliminate_paths(
    edges: Int64[np.ndarray, "2 E"],
    weights: Float64[np.ndarray, " E"],
    surplus: Float64[np.ndarray, " K"],
) -> Core:
    """Eliminate nodes of degree 0, 1 and 2 for as long as there are any.

    A pivot is a node's surplus plus its weights; its neighbours take over its surplus in
    proportion, and two neighbours are tied by the product of their weights over the pivot. Every
    number stays a sum of positive ones, so each is relatively exact however small the surplus.
    """
    excess = surplus.tolist()
    near: list[dict[int, float]] = [{} for _ in excess]
    for low, high, weight in zip(*edges.tolist(), weights.tolist(), strict=True):
        near[low][high] = near[high][low] = weight
    queue = [node for node, ties in enumerate(near) if len(ties) <= 2]
    gone, order, pivots = [False] * len(near), [], []
    while queue:
        node = queue.pop()
        if gone[node]:
            continue
        gone[node], ties = True, near[node]
        pivot = excess[node] + sum(ties.values())
        order.append(node)
        pivots.append(pivot)
        for other, weight in ties.items():
            excess[other] += weight * excess[node] / pivot
            del near[other][node]
        if len(ties) == 2:
            (one, a), (two, b) = ties.items()
            near[one][two] = near[two][one] = near[one].get(two, 0.0) + a * b / pivot
        queue += [other for other in ties if len(near[other]) <= 2]
    return _core(near, gone, order, pivots, excess)


def _core(near, gone, order, pivots, excess) -> Core:
    pairs = [
        (low, high, weight)
        for low, ties in enumerate(near)
        if not gone[low]
        for high, weight in ties.items()
        if low < high
    ]
    return Core(
        pivots=np.array(pivots, dtype=np.float64),
        eliminated=np.array(order, dtype=np.int64),
        remaining=np.flatnonzero(~np.array(gone)),
        edges=np.array([pair[:2] for pair in pairs], dtype=np.int64).reshape(-1, 2).T,
        weights=np.array([pair[2] for pair in pairs], dtype=np.float64),
        surplus=np.array(excess, dtype=np.float64),
    )
