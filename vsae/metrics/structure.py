"""Whether the edges and the blocks between features are found again."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vsae.batches import check_finite
from vsae.errors import EmptyDataError, ShapeError
from vsae.metrics.relabelling import overlap_moments


@dataclass(frozen=True)
class EdgeRecovery:
    """True edges found again, beside what renaming the nodes at random would give.

    ``density`` is the share of pairs that are true edges: the expected ``precision`` after
    renaming, and the ``average_precision`` of a ranking that ties all pairs. ``chance_f1`` is exact
    too. ``z`` is the number of edges found again in standard deviations above chance. Edges and
    pairs are ordered: an undirected one counts twice. nan where there is nothing to divide by.
    """

    precision: float
    recall: float
    f1: float
    average_precision: float
    density: float
    chance_f1: float
    z: float
    found_edges: int
    true_edges: int
    pairs: int


def edge_recovery(weights: Tensor, truth: Tensor) -> EdgeRecovery:
    r"""How far estimated edges are the true ones: as a set, and ranked by strength.

    .. math:: \mathrm{AP} = \sum_s \frac{h_s}{T} \cdot \frac{\sum_{r \ge s} h_r}{\sum_{r \ge s} m_r}

    An edge is an entry that is not 0, off the diagonal. Of the :math:`m_s` pairs of strength
    :math:`|w| = s`, ties and zeros included, :math:`h_s` are true; :math:`T` edges are true in all.
    Symmetric matrices give what unordered pairs would. Signs are not compared: pass
    ``weights.clamp(min=0)`` with the positive edges, ``(-weights).clamp(min=0)`` with the negative.

    Between latents and features, both must first be restricted to the matched ones:
    :func:`vsae.metrics.match`.

    Args:
        weights: Estimated, ``(n, n)``: dense, or a list of edges as a sparse COO tensor (repeats
            add up).
        truth: The true edges, likewise; numbers or booleans.

    Raises:
        ShapeError: ``structure.shape``.
        NonFiniteDataError: ``data.nonfinite``.

    Example:
        >>> truth = torch.tensor([[0, 1, 0], [1, 0, 0], [0, 0, 0]])
        >>> found = edge_recovery(torch.tensor([[0, 2, 0], [2, 0, 1], [0, 1, 0]]), truth)
        >>> found.precision, found.recall, found.average_precision
        (0.5, 1.0, 1.0)
    """
    if weights.dim() != 2 or truth.shape != (len(weights), len(weights)):
        raise ShapeError(
            f"weights and truth must be (n, n) both: got {tuple(weights.shape)} and "
            f"{tuple(truth.shape)}. Restrict them to matched latents and features.",
            code="structure.shape",
        )
    nodes = len(weights)
    (edges, strength), (true, _) = _edges(weights), _edges(truth)
    hit = torch.isin(edges[0] * nodes + edges[1], true[0] * nodes + true[1])
    found, wanted, pairs = len(hit), true.shape[1], nodes * (nodes - 1)
    hits, (mean, std) = int(hit.sum()), overlap_moments(edges, true, nodes)
    return EdgeRecovery(
        precision=_ratio(hits, found),
        recall=_ratio(hits, wanted),
        f1=_ratio(2 * hits, found + wanted),
        average_precision=_average_precision(strength, hit, wanted, pairs),
        density=_ratio(wanted, pairs),
        chance_f1=_ratio(2 * mean, found + wanted),
        z=_ratio(hits - mean, std),
        found_edges=found,
        true_edges=wanted,
        pairs=pairs,
    )


def adjusted_rand_index(labels: Tensor, truth: Tensor) -> float:
    r"""Agreement of two partitions over pairs of members: 1 if equal, 0 on average by chance.

    .. math:: \frac{S - AB/N}{(A + B)/2 - AB/N}, \qquad
        S = \sum_{ij} \tbinom{n_{ij}}2,\; A = \sum_i \tbinom{a_i}2,\; B = \sum_j \tbinom{b_j}2,\;
        N = \tbinom n2

    with :math:`n_{ij}` the members of block i of the one and j of the other, and :math:`a, b` the
    sizes of the blocks. Chance: the labels dealt out anew. Negative if worse. 1 where every
    dealing is the same partition (one block, or blocks of one each, on both sides).

    Args:
        labels: ``(n,)`` integers, the block of each latent; one in no block has a label of its own.
        truth: That of each feature, in the same order.

    Raises:
        ShapeError: ``structure.shape``.
        EmptyDataError: ``data.empty``.

    Example:
        >>> adjusted_rand_index(torch.tensor([0, 0, 1, 2]), torch.tensor([5, 5, 3, 3]))
        0.571...

    Source:
        Hubert & Arabie (1985), *Comparing partitions*.
    """
    if labels.dim() != 1 or labels.shape != truth.shape:
        raise ShapeError(
            f"labels must be (n,) both: got {tuple(labels.shape)} and {tuple(truth.shape)}.",
            code="structure.shape",
        )
    if not len(labels):
        raise EmptyDataError("no labels to compare: got 0, expected >= 1.", code="data.empty")
    found, true = (names.unique(return_inverse=True)[1].cpu() for names in (labels, truth))
    together = _pairs(found * len(labels) + true)
    first, second = _pairs(found), _pairs(true)
    total = math.comb(len(labels), 2)
    # both times 2 N: in whole numbers, exact however many pairs there are
    above = 2 * (total * together - first * second)
    below = total * (first + second) - 2 * first * second
    return above / below if below else 1.0


def _pairs(labels: Tensor) -> int:
    """Pairs of members with the same label."""
    sizes = labels.unique(return_counts=True)[1]
    return int((sizes * (sizes - 1) // 2).sum())


def _edges(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The edges (2, E), each once, and their strengths |w|."""
    entries = matrix.detach().cpu().to_sparse().double().coalesce()
    (row, column), strength = entries.indices(), entries.values().abs()
    check_finite(strength[:, None])
    kept = (row != column) & (strength > 0)
    return torch.stack([row[kept], column[kept]]), strength[kept]


def _average_precision(strength: Tensor, hit: Tensor, wanted: int, pairs: int) -> float:
    if not wanted:
        return math.nan
    place, size = strength.unique(return_inverse=True, return_counts=True)[1:]
    hits = torch.zeros(len(size), dtype=torch.float64).index_add(0, place, hit.double()).flip(0)
    found, ranked = hits.cumsum(0), size.flip(0).cumsum(0)
    missed = wanted - float(hits.sum())  # they are ranked with all pairs of weight 0
    return float((hits * found / ranked).sum()) / wanted + missed / pairs


def _ratio(part: float | int, whole: float | int) -> float:
    return part / whole if whole else math.nan
