"""Edge lists: what the user wrote, checked, with each undirected edge once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from priors.errors import AsymmetricWeightsError, GraphError, NegativeWeightError

Array = torch.Tensor | np.ndarray | Sequence
Symmetrize = Literal["error", "mean", "max", "min"]

MOST_NODES = 2**31 - 1  # node pairs are sorted as one int64, and scipy counts nodes in int32
MOST_EDGES = 2**28  # 24 bytes each here, 12 more per direction as a sparse matrix: about 13 GB
RELATIVE_ASYMMETRY = 1e-12


@dataclass(frozen=True)
class EdgeReport:
    """What a builder left out or merged on the way from the input to the edges.

    Args:
        self_loops: Entries from a node to itself, ignored: they cancel in every Laplacian.
        duplicates: Entries that repeat an earlier one in the same direction; weights are summed.
        zero_weights: Pairs whose weight is 0 once summed and symmetrised: no edge.
    """

    self_loops: int = 0
    duplicates: int = 0
    zero_weights: int = 0


@dataclass(frozen=True)
class DirectedWeights:
    """Both directions of every pair ``low < high``, in lexicographic order; absent ones are 0."""

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    forward: NDArray[np.float64]  # low -> high
    backward: NDArray[np.float64]
    has_forward: NDArray[np.bool_]
    has_backward: NDArray[np.bool_]
    self_loops: int
    duplicates: int

    def completed(self) -> "DirectedWeights":
        """A pair written in one direction only is an undirected edge: copy it to the other."""
        return DirectedWeights(
            self.low,
            self.high,
            np.where(self.has_forward, self.forward, self.backward),
            np.where(self.has_backward, self.backward, self.forward),
            self.has_forward,
            self.has_backward,
            self.self_loops,
            self.duplicates,
        )


def check_size(num_nodes: int, num_edges: int = 0) -> None:
    """Refuse, before allocating, what cannot be held.

    Raises:
        GraphError: ``graph.num_nodes`` if there are none, ``graph.too_large`` if there are more
            than 2³¹ - 1 nodes or 2²⁸ edges.
    """
    if num_nodes < 1:
        raise GraphError(
            f"no nodes: got num_nodes={num_nodes}, expected >= 1.",
            code="graph.num_nodes",
            context={"num_nodes": num_nodes},
        )
    if num_nodes > MOST_NODES or num_edges > MOST_EDGES:
        raise GraphError(
            f"graph too large: got {num_nodes} nodes and {num_edges} edges (about "
            f"{24 * num_edges / 1e9:.3g} GB), expected at most {MOST_NODES} and {MOST_EDGES}. "
            "Use fewer neighbours (Graph.knn), smaller blocks, or one graph per group of latents.",
            code="graph.too_large",
            context={"num_nodes": num_nodes, "num_edges": num_edges, "bytes": 24 * num_edges},
        )


def as_arrays(
    edges: Array, weights: Array | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Sources, targets and float64 weights (1 if not given) of a ``(2, E)`` edge list."""
    pairs = as_numpy(edges, "iu", "edges are not node numbers", "integers")
    if pairs.size == 0:
        pairs = np.zeros((2, 0), np.int64)
    if pairs.ndim != 2 or len(pairs) != 2:
        raise GraphError(
            f"edges have the wrong shape: got {pairs.shape}, expected (2, E): a row of sources "
            "and a row of targets. Transpose them if there is one edge per row.",
            code="graph.shape",
            context={"shape": pairs.shape},
        )
    source, target = pairs.astype(np.int64, copy=False)
    if weights is None:
        return source, target, np.ones(len(source))
    values = as_numpy(weights, "fiub", "weights are not numbers", "real numbers")
    if values.shape != source.shape and values.size + source.size:
        raise GraphError(
            f"weights do not match edges: got shape {values.shape}, expected ({len(source)},), "
            "one weight per edge.",
            code="graph.shape",
            context={"shape": values.shape, "num_edges": len(source)},
        )
    return source, target, values.astype(np.float64, copy=False).reshape(-1)


def as_numpy(values: Array, kinds: str, problem: str, expected: str) -> NDArray:
    """An array whose dtype is one of numpy's ``kinds``; an empty sequence is of any."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values.double() if values.is_floating_point() else values).numpy()
    array = np.asarray(values)
    if array.dtype.kind not in kinds and array.size:
        raise GraphError(
            f"{problem}: got dtype {array.dtype}, expected {expected}.",
            code="graph.dtype",
            context={"dtype": str(array.dtype)},
        )
    return array


def check_edges(
    source: NDArray, target: NDArray, weights: NDArray, num_nodes: int, *, signed: bool
) -> None:
    """Refuse indices out of range, weights that are not finite, and undeclared negative ones."""
    check_size(num_nodes, len(source))
    outside = (source < 0) | (source >= num_nodes) | (target < 0) | (target >= num_nodes)
    if outside.any():
        raise GraphError(
            f"{_first(outside, source, target)} but num_nodes={num_nodes} (valid 0.."
            f"{num_nodes - 1}); are your ids 1-based? Subtract 1, or pass the right num_nodes.",
            code="graph.out_of_range",
            context=_context(outside, source, target) | {"num_nodes": num_nodes},
        )
    nonfinite = ~np.isfinite(weights)
    with np.errstate(over="ignore"):
        total = np.abs(weights).sum()  # bounds every degree and every sum of duplicates
    if not np.isfinite(total):
        where = nonfinite if nonfinite.any() else np.abs(weights) == np.abs(weights).max()
        raise GraphError(
            f"weights are not finite: got {weights[where.argmax()]} at "
            f"{_first(where, source, target)}, expected finite weights with a finite sum. "
            "Drop or rescale these edges.",
            code="graph.nan_weight",
            context=_context(where, source, target),
        )
    negative = weights < 0
    if negative.any() and not signed:
        raise NegativeWeightError(
            f"negative weight {weights[negative.argmax()]} at {_first(negative, source, target)}, "
            "expected weights > 0. Pass signed=True for the signed Laplacian |D| - W, in which "
            "a negative weight ties z_i to -z_j.",
            code="graph.negative_weight",
            context=_context(negative, source, target),
        )


def canonical(
    source: NDArray, target: NDArray, weights: NDArray, num_nodes: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Checked edges sorted, low node first; refuses what would have to be merged or dropped."""
    _refuse(source == target, source, target, "self_loop", "is a self-loop")
    _refuse(weights == 0, source, target, "zero_weight", "has weight 0")
    low, high = np.minimum(source, target), np.maximum(source, target)
    pair = low * num_nodes + high
    if (np.diff(pair) <= 0).any():
        order = np.argsort(pair, kind="stable")
        low, high, pair, weights = low[order], high[order], pair[order], weights[order]
        _refuse(np.diff(pair, prepend=-1) == 0, low, high, "duplicate", "is given twice")
    return np.stack([low, high]), np.array(weights)  # copies: the graph owns its arrays


def _refuse(mask: NDArray, source: NDArray, target: NDArray, code: str, what: str) -> None:
    if mask.any():
        raise GraphError(
            f"{_first(mask, source, target)} {what}; expected each edge once, nonzero, between two "
            "nodes. Graph.from_edges drops zeros and self-loops and sums duplicates.",
            code=f"graph.{code}",
            context=_context(mask, source, target),
        )


def directed_weights(
    source: NDArray, target: NDArray, weights: NDArray, num_nodes: int, *, signed: bool
) -> DirectedWeights:
    """Check edges and sort them into pairs, ignoring self-loops and summing duplicates."""
    check_edges(source, target, weights, num_nodes, signed=signed)
    proper = source != target
    self_loops = len(source) - int(proper.sum())
    if self_loops:
        source, target, weights = source[proper], target[proper], weights[proper]
    pair = np.minimum(source, target) * num_nodes + np.maximum(source, target)
    order = np.argsort(pair, kind="stable")
    pair, weights, ahead = pair[order], weights[order], (source < target)[order]
    starts = np.flatnonzero(np.diff(pair, prepend=-1))
    has_forward = np.logical_or.reduceat(ahead, starts)
    has_backward = np.logical_or.reduceat(~ahead, starts)
    return DirectedWeights(
        *np.divmod(pair[starts], num_nodes),
        np.add.reduceat(np.where(ahead, weights, 0.0), starts),
        np.add.reduceat(np.where(ahead, 0.0, weights), starts),
        has_forward,
        has_backward,
        self_loops,
        len(pair) - int(has_forward.sum()) - int(has_backward.sum()),
    )


def undirected(
    directed: DirectedWeights, symmetrize: Symmetrize
) -> tuple[NDArray[np.int64], NDArray[np.float64], EdgeReport]:
    """One weight per pair by the named policy, zero weights dropped: edges, weights, report."""
    if symmetrize not in _POLICIES:
        raise GraphError(
            f"unknown symmetrize: got {symmetrize!r}, expected one of {sorted(_POLICIES)}.",
            code="graph.symmetrize",
        )
    weights = _POLICIES[symmetrize](directed)
    kept = weights != 0
    edges = np.stack([directed.low, directed.high])
    report = EdgeReport(directed.self_loops, directed.duplicates, len(kept) - int(kept.sum()))
    return (edges, weights, report) if kept.all() else (edges[:, kept], weights[kept], report)


def _agreed(directed: DirectedWeights) -> NDArray[np.float64]:
    forward, backward = directed.forward, directed.backward
    gap = np.abs(forward - backward)
    largest = max(np.abs(forward).max(initial=0.0), np.abs(backward).max(initial=0.0))
    if (gap > RELATIVE_ASYMMETRY * largest).any():
        worst = int(gap.argmax())
        edge = (int(directed.low[worst]), int(directed.high[worst]))
        raise AsymmetricWeightsError(
            f"weights are not symmetric: max |W - W'| = {gap[worst]:.3g} at {edge}, relative "
            f"{gap[worst] / largest:.3g}, expected <= {RELATIVE_ASYMMETRY}. Pass symmetrize="
            '"mean"|"max"|"min" (kNN graphs: "max" = union, "min" = mutual neighbours).',
            code="graph.asymmetric",
            context={"edge": edge, "gap": float(gap[worst]), "largest": float(largest)},
        )
    return _mean(directed)


def _mean(directed: DirectedWeights) -> NDArray[np.float64]:
    # Halves first: the sum of two large weights may overflow; equal weights stay bit for bit.
    return np.where(
        directed.forward == directed.backward,
        directed.forward,
        0.5 * directed.forward + 0.5 * directed.backward,
    )


def _max(directed: DirectedWeights) -> NDArray[np.float64]:
    _check_signs_agree(directed)
    ahead = np.abs(directed.forward) >= np.abs(directed.backward)
    return np.where(ahead, directed.forward, directed.backward)


def _min(directed: DirectedWeights) -> NDArray[np.float64]:
    _check_signs_agree(directed)
    behind = np.abs(directed.forward) <= np.abs(directed.backward)
    return np.where(behind, directed.forward, directed.backward)


_POLICIES = {"error": _agreed, "mean": _mean, "max": _max, "min": _min}


def _check_signs_agree(directed: DirectedWeights) -> None:
    opposed = np.sign(directed.forward) * np.sign(directed.backward) < 0
    if opposed.any():
        first = _first(opposed, directed.low, directed.high)
        raise AsymmetricWeightsError(
            f"opposite signs in the two directions of {first}, expected one sign per pair. "
            'Pass symmetrize="mean", or drop one direction.',
            code="graph.opposing_signs",
            context=_context(opposed, directed.low, directed.high),
        )


def _first(mask: NDArray, source: NDArray, target: NDArray) -> str:
    index, more = int(mask.argmax()), int(mask.sum()) - 1
    others = f" (and {more} more)" if more else ""
    return f"edge ({source[index]}, {target[index]}){others}"


def _context(mask: NDArray, source: NDArray, target: NDArray) -> dict:
    index = int(mask.argmax())
    return {
        "edge": (int(source[index]), int(target[index])),
        "index": index,
        "count": int(mask.sum()),
    }
