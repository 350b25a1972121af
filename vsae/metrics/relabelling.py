"""The overlap of two graphs if the nodes of one were renamed at random, exactly."""

import math
from fractions import Fraction

import torch
from jaxtyping import Int
from torch import Tensor


def overlap_moments(
    first: Int[Tensor, "2 A"], second: Int[Tensor, "2 B"], nodes: int
) -> tuple[float, float]:
    r"""Mean and standard deviation of the number of common edges over all renamings of nodes.

    .. math:: E\Big[\Big(\sum_{ij} A_{ij} B_{π(i)π(j)}\Big)^2\Big] = \sum_t \frac{a_t b_t}{c_t}

    over the seven ways :math:`t` in which two ordered pairs of nodes can share nodes: how often
    each graph has edges that lie so, and how often pairs of the complete graph do.

    Args:
        first: Distinct edges (from, to), without loops; both directions of an undirected one.
        second: The same, of the other graph.
        nodes: How many nodes both have.

    Example:
        >>> overlap_moments(torch.tensor([[0], [1]]), torch.tensor([[1], [2]]), 3)[0]
        0.166...

    Source:
        Mantel (1967), *The detection of disease clustering and a generalized regression approach*;
        Hubert & Schultz (1976), *Quadratic assignment as a general data analysis strategy*.
    """
    pairs = nodes * (nodes - 1)
    if not pairs:
        return 0.0, 0.0
    complete = [pairs] * 2 + [pairs * (nodes - 2)] * 4 + [pairs * (nodes - 2) * (nodes - 3)]
    ways = zip(_configurations(first, nodes), _configurations(second, nodes), complete, strict=True)
    square = sum(Fraction(a * b, c) for a, b, c in ways if c)
    mean = Fraction(first.shape[1] * second.shape[1], pairs)
    return float(mean), math.sqrt(square - mean**2)


def _configurations(edges: Tensor, nodes: int) -> list[int]:
    """Ordered pairs of edges: equal, reversed, one tail, one head, chained twice, disjoint."""
    (tail, head), count = edges, edges.shape[1]
    out, into = tail.bincount(minlength=nodes), head.bincount(minlength=nodes)
    mutual = int(torch.isin(tail * nodes + head, head * nodes + tail).sum())
    tails, heads = (int(degree.square().sum()) - count for degree in (out, into))
    chain = int((out * into).sum()) - mutual
    touching = [count, mutual, tails, heads, chain, chain]
    return [*touching, count**2 - sum(touching)]
