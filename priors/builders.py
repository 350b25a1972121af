"""Edges of the standard graphs, as ``(2, E)`` arrays with ``edges[0] < edges[1]``."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from priors.components import components
from priors.edge_list import check_size
from priors.errors import GraphError


def block_edges(sizes: Sequence[int]) -> NDArray[np.int64]:
    """Every pair inside consecutive blocks of the given sizes."""
    counts = np.asarray(list(sizes), dtype=np.int64)
    if (counts < 1).any():
        raise GraphError(
            f"an empty block: got size {counts[counts < 1][0]}, expected sizes >= 1.",
            code="graph.block_size",
            context={"sizes": counts.tolist()},
        )
    check_size(int(counts.sum()), sum(s * (s - 1) // 2 for s in counts.tolist()))
    starts = np.cumsum(counts) - counts
    parts = [
        (starts[counts == size][:, None] + pair).ravel()
        for size in np.unique(counts)
        for pair in np.triu_indices(size, 1)
    ]
    return np.stack([np.concatenate(parts[0::2]), np.concatenate(parts[1::2])])


def tree_edges(parents: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each node to its parent; -1 marks a root."""
    check_size(len(parents), len(parents))
    outside = (parents < -1) | (parents >= len(parents))
    if outside.any():
        node = int(outside.argmax())
        raise GraphError(
            f"parent {parents[node]} of node {node} does not exist, expected -1 for a root or "
            f"0..{len(parents) - 1}; are your ids 1-based?",
            code="graph.out_of_range",
            context={"node": node, "parent": int(parents[node])},
        )
    child = np.flatnonzero(parents >= 0)
    edges = np.sort(np.stack([child, parents[child]]), axis=0)
    found = components(*edges, np.zeros(len(child), bool), len(parents)).sizes
    if len(found) != len(parents) - len(child):
        raise GraphError(
            f"parents form a cycle: got {len(parents) - len(child)} roots (-1) for {len(found)} "
            "components, expected one root each.",
            code="graph.cycle",
            context={"roots": len(parents) - len(child), "components": len(found)},
        )
    return edges


def ring_edges(num_nodes: int) -> NDArray[np.int64]:
    """``i`` to ``i + 1`` and the last back to 0; two nodes have one edge, one node none."""
    check_size(num_nodes, num_nodes)
    path = np.arange(num_nodes - 1)
    edges = np.stack([path, path + 1])
    return edges if num_nodes < 3 else np.append(edges, [[0], [num_nodes - 1]], axis=1)


def grid_edges(rows: int, cols: int) -> NDArray[np.int64]:
    """Horizontal and vertical neighbours of a grid numbered row by row."""
    if rows < 1 or cols < 1:
        raise GraphError(
            f"an empty grid: got {rows} x {cols}, expected at least 1 x 1.",
            code="graph.num_nodes",
            context={"rows": rows, "cols": cols},
        )
    check_size(rows * cols, 2 * rows * cols)
    node = np.arange(rows * cols).reshape(rows, cols)
    right = np.stack([node[:, :-1].ravel(), node[:, 1:].ravel()])
    down = np.stack([node[:-1].ravel(), node[1:].ravel()])
    return np.concatenate([right, down], axis=1)
