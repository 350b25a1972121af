"""A number for every edge of a hierarchy, beside what shuffled parents would give."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vsae.metrics.hierarchy import edges_of, levels
from vsae.metrics.permutation import permutation_moments

Pairs = Callable[[Tensor, Tensor], Tensor]
BLOCK = 1 << 22  # numbers of a block of pairs: 32 MiB


@dataclass(frozen=True)
class EdgeScores:
    """A number for every edge, their mean, and that mean's distribution under shuffled parents.

    ``values`` are nan where undefined; such edges are left out of ``mean`` and of the shuffling
    alike. ``chance`` and ``chance_std`` are exact: the mean and standard deviation of ``mean`` over
    all dealings of each level's parents to its children (:func:`vsae.metrics.shuffled_parents`).
    Without any defined edge all three are nan.
    """

    edges: Int[Tensor, "E 2"]
    values: Float[Tensor, " E"]
    mean: float
    chance: float
    chance_std: float

    @property
    def z(self) -> float:
        """Standard deviations above chance; nan if shuffling changes nothing."""
        return (self.mean - self.chance) / self.chance_std if self.chance_std > 0 else math.nan


def score_edges(parents: Tensor, pairs: Pairs, defined: Tensor) -> EdgeScores:
    """Scores of all edges from a function of (children, parents) that gives a matrix.

    Args:
        parents: Checked, ``(K,)``.
        pairs: ``(c,), (p,) -> (c, p)`` float64, a number for any child with any parent.
        defined: ``(E,)``; must depend on the child alone or on the parent alone.
    """
    edges, depth = edges_of(parents), levels(parents)
    values = torch.full((len(edges),), math.nan, dtype=torch.float64)
    expected = variance = 0.0
    for level in depth[edges[:, 0]].unique():
        chosen = ((depth[edges[:, 0]] == level) & defined).nonzero().flatten()
        distinct, place, copies = edges[chosen, 1].unique(return_inverse=True, return_counts=True)
        blocks = _blocks(edges[chosen, 0], distinct, place, pairs, values, chosen)
        mean, spread = permutation_moments(blocks, copies)
        expected, variance = expected + mean, variance + spread
    count = int(defined.sum())
    if not count:
        return EdgeScores(edges, values, math.nan, math.nan, math.nan)
    mean = float(values[defined].mean())
    return EdgeScores(edges, values, mean, expected / count, math.sqrt(variance) / count)


def _blocks(children, distinct, place, pairs: Pairs, values, chosen) -> Iterator[Tensor]:
    """The matrix of all pairs by rows; the values of the edges themselves are noted on the way."""
    step = max(BLOCK // max(len(distinct), 1), 1)
    for start in range(0, len(children), step):
        rows = slice(start, start + step)
        block = pairs(children[rows], distinct)
        values[chosen[rows]] = block.gather(1, place[rows, None])[:, 0]
        yield block
