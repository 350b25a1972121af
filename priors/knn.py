"""Exact nearest neighbours in blocks: a fast search that certifies its rows, or redoes them."""

import math
from abc import ABC, abstractmethod
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from priors.edge_list import check_size
from priors.errors import GraphError

TILE = 2048  # rows and columns of similarities held at a time
SPARE = 8  # candidates beyond k, among which rounding may have reordered
SCRATCH = 2**18  # numbers gathered at a time for exact scores: they stay in the cache

MetricName = Literal["cosine", "euclidean"]


class Metric(ABC):
    """A symmetric similarity of prepared points, and the edge weight it stands for."""

    @abstractmethod
    def prepare(self, points: Float64[Tensor, "K d"]) -> Float64[Tensor, "K d"]:
        """The points with what does not matter divided out, at most about 1 in size."""

    @abstractmethod
    def factors(self, rows: Float64[Tensor, "K d"]) -> tuple[Tensor, Tensor]:
        """``left``, ``right`` with all similarities ``left @ right.mT``, to search in."""

    @abstractmethod
    def score(self, a: Float[Tensor, "*left d"], b: Float[Tensor, "*right d"]) -> Tensor:
        """The similarity as a sum over coordinates, equal in both directions to the last bit."""

    @abstractmethod
    def floor(self, points: Float[Tensor, "K d"]) -> float:
        """Scores up to this one make no edge."""

    @abstractmethod
    def weights(self, scores: Float[Tensor, "K k"]) -> Float[Tensor, "K k"]:
        """Positive edge weights of the scores above the floor."""


class Cosine(Metric):
    """Similarity and weight ``cos(a, b)``; a zero vector is similar to nothing."""

    def prepare(self, points: Float64[Tensor, "K d"]) -> Float64[Tensor, "K d"]:
        # By the largest entry first, so that squares neither overflow nor vanish.
        rows = points / _positive(points.abs().amax(1, keepdim=True))
        return rows / rows.norm(dim=1, keepdim=True).clamp(min=1.0)

    def factors(self, rows: Float64[Tensor, "K d"]) -> tuple[Tensor, Tensor]:
        return rows, rows

    def score(self, a: Float[Tensor, "*left d"], b: Float[Tensor, "*right d"]) -> Tensor:
        return (a * b).sum(-1)

    def floor(self, points: Float[Tensor, "K d"]) -> float:
        # Beyond what d rounded products may add up to instead of 0: orthogonal points stay untied.
        return 4 * (points.shape[1] + 8) * torch.finfo(_search_dtype(points)).eps

    def weights(self, scores: Float[Tensor, "K k"]) -> Float[Tensor, "K k"]:
        return scores.clamp(max=1.0)


class Euclidean(Metric):
    """Similarity ``-½|a - b|²``, weight ``exp(-|a - b|² / 2s²)``."""

    def prepare(self, points: Float64[Tensor, "K d"]) -> Float64[Tensor, "K d"]:
        # A power of two: exact, so points on a lattice keep their exact ties.
        _, exponent = math.frexp(points.abs().max().item())
        return points / 2.0 ** (exponent - 1)

    def factors(self, rows: Float64[Tensor, "K d"]) -> tuple[Tensor, Tensor]:
        rows = rows - rows.mean(0)  # fewer digits are lost near the origin
        half, one = rows.square().sum(1, keepdim=True) / 2, rows.new_ones(len(rows), 1)
        return torch.cat([rows, -half, -one], 1), torch.cat([rows, one, half], 1)

    def score(self, a: Float[Tensor, "*left d"], b: Float[Tensor, "*right d"]) -> Tensor:
        return (a - b).square().sum(-1) / -2

    def floor(self, points: Float[Tensor, "K d"]) -> float:
        return -math.inf

    def weights(self, scores: Float[Tensor, "K k"]) -> Float[Tensor, "K k"]:
        mean_square = -2 * scores.mean()
        return (scores / mean_square).exp() if mean_square > 0 else torch.ones_like(scores)


def _positive(scale: Tensor) -> Tensor:
    return torch.where(scale > 0, scale, 1.0)


def _search_dtype(points: Tensor) -> torch.dtype:
    return torch.float64 if points.dtype == torch.float64 else torch.float32


METRICS = {"cosine": Cosine(), "euclidean": Euclidean()}


def neighbour_weights(points: Float[Tensor, "K d"], k: int, name: MetricName):
    """Sources, targets and weights of the directed kNN graph, as arrays of ``K k`` entries."""
    _check(points, k)
    if name not in METRICS:
        raise GraphError(
            f"unknown metric: got {name!r}, expected one of {sorted(METRICS)}.", code="graph.metric"
        )
    metric = METRICS[name]
    floor = metric.floor(points)
    rows = metric.prepare(points.detach().cpu().to(torch.float64))
    index, scores = nearest(rows, k, metric, floor, _search_dtype(points))
    weights = torch.where(scores > floor, metric.weights(scores), 0.0)
    source = np.repeat(np.arange(len(rows)), k)
    return source, index.reshape(-1).numpy(), weights.reshape(-1).numpy()


def nearest(
    rows: Float[Tensor, "K d"], k: int, metric: Metric, floor: float, search: torch.dtype
) -> tuple[Int64[Tensor, "K k"], Float[Tensor, "K k"]]:
    """The ``k`` best others of each row and their float64 scores, ties by number.

    Candidates come from ``search`` precision. A row is certified if nothing outside its candidates
    can reach, within rounding, its k-th score (or ``floor``, below which nothing counts).
    """
    count = min(k + SPARE, len(rows) - 1)
    left, right = (factor.to(search) for factor in metric.factors(rows))
    rough, candidates = _search(left, right, count)
    index, scores = _best(_scored(rows, candidates, metric), candidates, k)
    if count == len(rows) - 1:
        return index, scores
    rounding = _rounding(left, right)
    unsure = rough[:, -1] + rounding >= scores[:, -1].clamp(min=floor)
    for row in unsure.nonzero()[:, 0].tolist():
        rough = left[row] @ right.mT + rounding[row]
        rough[row] = -math.inf
        within_reach = (rough >= scores[row, -1]).nonzero()[:, 0]
        found = metric.score(rows[row], rows[within_reach])
        index[row], scores[row] = _best(found, within_reach, k)
    return index, scores


def _rounding(left: Tensor, right: Tensor) -> Float64[Tensor, " K"]:
    """What each row's rough scores may be wrong by: d roundings of the largest sum of sizes."""
    size = (left * right).abs().sum(1).max().to(torch.float64)  # by Cauchy-Schwarz, of any pair
    bound = (left.shape[1] + 8) * torch.finfo(left.dtype).eps * size
    return torch.where((left != 0).any(1), bound, 0.0)


def _search(left: Tensor, right: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Roughly the ``count`` best of each row: each tile of the symmetric scores is made once."""
    values = left.new_full((len(left), count), -math.inf)
    index = torch.zeros(len(left), count, dtype=torch.int64)
    for a in range(0, len(left), TILE):
        for b in range(a, len(left), TILE):
            one, other = slice(a, a + TILE), slice(b, b + TILE)
            tile = left[one] @ right[other].mT
            if a == b:
                tile.fill_diagonal_(-math.inf)
            _keep(values[one], index[one], tile, b)
            if a != b:
                _keep(values[other], index[other], tile.mT.contiguous(), a)
    return values, index


def _keep(values: Tensor, index: Tensor, tile: Tensor, start: int) -> None:
    """Merge a tile's best into the running best, in place."""
    count = values.shape[1]
    top, where = tile.topk(min(count, tile.shape[1]), dim=1)
    merged, order = torch.cat([values, top], 1).topk(count, dim=1)
    values.copy_(merged)
    index.copy_(torch.cat([index, where + start], 1).gather(1, order))


def _scored(rows: Tensor, candidates: Tensor, metric: Metric) -> Tensor:
    step = max(1, SCRATCH // (candidates.shape[1] * rows.shape[1]))
    parts = zip(rows.split(step), candidates.split(step), strict=True)
    return torch.cat([metric.score(row[:, None], rows[found]) for row, found in parts])


def _best(scores: Tensor, candidates: Tensor, k: int) -> tuple[Tensor, Tensor]:
    candidates, order = candidates.sort(dim=-1)
    scores, rank = scores.gather(-1, order).sort(dim=-1, descending=True, stable=True)
    return candidates.gather(-1, rank)[..., :k].clone(), scores[..., :k].clone()


def _check(points: Tensor, k: int) -> None:
    check_size(len(points), len(points) * max(k, 0))
    if not 1 <= k < len(points):
        raise GraphError(
            f"impossible number of neighbours: got k={k} for {len(points)} points, expected "
            f"1 <= k <= {len(points) - 1}.",
            code="graph.neighbours",
            context={"k": k, "num_nodes": len(points)},
        )
    bad = ~points.isfinite().all(1)
    if bad.any():
        row = int(bad.nonzero()[0, 0])
        raise GraphError(
            f"points are not finite: got NaN or infinity in row {row} (and {int(bad.sum()) - 1} "
            "more), expected finite coordinates.",
            code="graph.nan_point",
            context={"row": row, "count": int(bad.sum())},
        )
