"""Batches in which neighbours meet."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Generator, Tensor

from priors.graph import Graph
from vsae.batches import Batches, stream
from vsae.errors import EmptyDataError, GraphError

DRAWS = 4  # edges drawn per row wanted, before all edges are


class EdgeBatches(Batches):
    r"""Batches made of both ends of edges drawn uniformly from a graph over the rows.

    Without them a sample graph is almost empty: a uniform batch holds
    :math:`|E| \frac{B(B-1)}{N(N-1)}` of its edges on average. Edges are drawn with replacement
    until there are ``size`` distinct rows; one of them, at the cut, may lack its neighbour. Batch
    ``t`` is a pure function of seed and ``t``, as those of :class:`vsae.batches.Batches`.

    The price is bias. A row is seen in proportion to its *degree*, an isolated one never, and there
    are no epochs: the rest of the objective is fitted to that distribution too. Compare with an arm
    that has these batches and no smoothness.

    For ``fit``: ``batches=functools.partial(EdgeBatches, graph)``.

    Args:
        graph: Over the rows; or ``step -> graph``.
        data: ``(N, d)``; or ``(R, N, d)``, a data set per seed.
        size: Rows per batch.
        seeds: One, or one per replica.

    Raises:
        GraphError: ``graph.num_nodes`` unless it has a node per row.
        EmptyDataError: ``batches.neighbours`` if fewer than ``size`` rows have a neighbour, and
            ``data.…`` as for :class:`vsae.batches.Batches`.

    Example:
        >>> batches = EdgeBatches(Graph.ring(1000), torch.randn(1000, 4), 4, [0])
        >>> rows = batches.rows(7)[0].sort().values
        >>> rows.diff().tolist()[::2]  # two pairs of neighbours
        [1, 1]

    Source:
        Edge sampling as in Tang et al. (2015), *LINE*, WWW; the bias as of a random walk's
        stationary law, Lovász (1993), *Random walks on graphs*.
    """

    def __init__(
        self,
        graph: Graph | Callable[[int], Graph],
        data: Tensor,
        size: int,
        seeds: Sequence[int],
    ) -> None:
        super().__init__(data, size, seeds)
        self.graph = graph
        self._check(self._at(0))
        self._drawn: tuple[int, Tensor] | None = None

    def rows(self, step: int) -> Tensor:
        """Row numbers of step ``step``, ``(seeds, B)``, on the host, where graphs are."""
        if self._drawn is None or self._drawn[0] != step:
            graph = self._at(step)
            if callable(self.graph):
                self._check(graph)
            found = [_distinct(graph, self.size, stream(seed, 1 + step)) for seed in self.seeds]
            self._drawn = step, torch.stack(found)
        return self._drawn[1]

    def _at(self, step: int) -> Graph:
        return self.graph(step) if callable(self.graph) else self.graph

    def _check(self, graph: Graph) -> None:
        rows = self.data.shape[-2]
        if graph.num_nodes != rows:
            raise GraphError(
                f"the graph is not over the rows of the data: got {graph.num_nodes} nodes and "
                f"{rows} rows, expected as many. A graph over latents is for GraphLaplacianPrior.",
                code="graph.num_nodes",
                context={"num_nodes": graph.num_nodes, "rows": rows},
            )
        tied = rows - len(graph.isolated)
        if self.size > tied:
            joined = int((graph.component_sizes > 1).sum())
            raise EmptyDataError(
                f"a batch of {self.size} rows from {tied} that have a neighbour, in {joined} "
                f"components of at most {graph.component_sizes.max()}: expected batch_size <= "
                f"{tied}. Give isolated rows an edge (Graph.knn), or use plain batches.",
                code="batches.neighbours",
                context={"batch_size": self.size, "rows": tied, "components": joined},
            )


def _distinct(graph: Graph, size: int, generator: Generator) -> Tensor:
    """The first ``size`` distinct ends of random edges."""
    edges = graph.num_edges
    few = torch.randint(edges, (min(DRAWS * size, edges),), generator=generator)
    rows = _in_order(graph.edges[:, few])
    if len(rows) < size:  # a batch of nearly all rows
        rows = _in_order(graph.edges[:, torch.randperm(edges, generator=generator)])
    return rows[:size]


def _in_order(pairs: Tensor) -> Tensor:
    """Distinct ends, in the order in which they come."""
    ends = pairs.mT.reshape(-1).numpy()
    distinct, first = np.unique(ends, return_index=True)
    return torch.from_numpy(distinct[np.argsort(first)])
