"""Which edges of a large graph lie inside a small set of its nodes, without looking at the rest."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from priors.graph import Graph


@dataclass(frozen=True)
class InducedEdges:
    r"""Edges inside a set of rows, as places in that set, and the form they make.

    .. math:: e_{ab} = |w_{ab}|\, \lVert s_a c_a - \operatorname{sign}(w_{ab})\, s_b c_b \rVert^2

    Attributes:
        low: First end of each edge, a place in the set.
        high: Second end.
        size: :math:`|w_{ab}|`.
        left: :math:`s_a`, 1 unless the graph is normalised.
        right: :math:`\operatorname{sign}(w_{ab})\, s_b`.
    """

    low: Int[Tensor, " E"]
    high: Int[Tensor, " E"]
    size: Float[Tensor, " E"]
    left: Float[Tensor, " E"]
    right: Float[Tensor, " E"]

    @classmethod
    def join(cls, parts: "list[InducedEdges]", rows: int) -> "InducedEdges":
        """Those of several sets of ``rows`` places each, one after the other."""
        ends = {
            name: torch.cat([getattr(part, name) + r * rows for r, part in enumerate(parts)])
            for name in ("low", "high")
        }
        others = ("size", "left", "right")
        return cls(**ends, **{n: torch.cat([getattr(part, n) for part in parts]) for n in others})

    def to(self, like: Tensor) -> "InducedEdges":
        """On the device of ``like`` and, where real, in its dtype."""
        ends = (end.to(like.device, non_blocking=True) for end in (self.low, self.high))
        numbers = (x.to(like, non_blocking=True) for x in (self.size, self.left, self.right))
        return InducedEdges(*ends, *numbers)


class EdgeIndex:
    """The edges of a graph by node, so that those inside a set of rows cost their degrees.

    Example:
        >>> inside = EdgeIndex(Graph.ring(6)).among(torch.tensor([5, 2, 0]))
        >>> inside.low.tolist(), inside.high.tolist()  # 5 and 0 are neighbours
        ([0], [2])
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        low, high = graph.edges.numpy()
        ends, number = np.concatenate([low, high]), np.tile(np.arange(len(low)), 2)
        order = np.argsort(ends, kind="stable")
        self._other, self._edge = np.concatenate([high, low])[order], number[order]
        count = np.bincount(ends, minlength=graph.num_nodes)
        self._start, self._count = np.cumsum(count) - count, count
        self._place = np.full(graph.num_nodes, -1)

    def among(self, rows: Int[Tensor, " B"]) -> InducedEdges:
        """The edges with both ends among distinct ``rows``."""
        nodes = rows.cpu().numpy()
        self._place[nodes] = np.arange(len(nodes))
        own, slot = self._slots(nodes)
        other = self._place[self._other[slot]]
        kept = other > own  # in the set, and once
        self._place[nodes] = -1
        return self._induced(own[kept], other[kept], nodes, self._edge[slot[kept]])

    def _slots(self, nodes: NDArray) -> tuple[NDArray, NDArray]:
        """For every neighbour of every node: which of the nodes, and where the neighbour stands."""
        count = self._count[nodes]
        own = np.repeat(np.arange(len(nodes)), count)
        within = np.arange(len(own)) - np.repeat(np.cumsum(count) - count, count)
        return own, np.repeat(self._start[nodes], count) + within

    def _induced(self, low: NDArray, high: NDArray, nodes: NDArray, edge: NDArray) -> InducedEdges:
        weight, scaling = self.graph.weights.numpy()[edge], self.graph.scaling.numpy()[nodes]
        numbers = (abs(weight), scaling[low], np.sign(weight) * scaling[high])
        return InducedEdges(*map(torch.from_numpy, (low, high, *numbers)))
