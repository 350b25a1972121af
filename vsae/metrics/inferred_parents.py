"""A hierarchy read off who fires with whom, for dictionaries that have none of their own."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from scipy.special import bdtrc
from torch import Tensor

from vsae.metrics.firing import firings
from vsae.metrics.hierarchy import check_setting, check_shapes


@dataclass(frozen=True)
class InferredParents:
    """The parent of each latent (-1 for none), and how many there would be by chance.

    ``coverage`` is ``P(parent on | child on)``, nan for roots. ``share`` is that of the latents
    firing often enough to be asked which have a parent; ``chance`` is its exact expectation if
    every latent fired independently at its rate. Both are nan if none fires often enough.
    """

    parents: Int[Tensor, " K"]
    coverage: Float[Tensor, " K"]
    share: float
    chance: float


def infer_parents(
    codes: Tensor, *, threshold: float = 0.9, level: Tensor | None = None, minimum: int = 10
) -> InferredParents:
    r"""The more frequent latent that covers each latent best, if it covers it well enough.

    .. math:: \mathrm{parent}(c) = \arg\max_{p:\, n_p > n_c} P(z_p \ne 0 \mid z_c \ne 0)
        \quad\text{if that is} \ge τ

    Among equal coverages the rarest latent wins (the nearest ancestor), then the lowest number.
    Parents fire more often than their children, so there are no cycles.

    *Coverage alone gives false parents*: a latent that is nearly always on covers everything
    (``chance`` counts those), and so does one that merely co-occurs. An ancestor covers at least
    as much as the parent does: where parents are missed now and then, it is taken instead. Judge
    the result by :func:`vsae.metrics.functional_link`.

    Args:
        codes: ``(rows, K)``.
        threshold: τ, in (0, 1].
        level: ``(K,)`` int64; then a parent must also be of a lower level. The number of the
            prefix that each latent of a Matryoshka dictionary enters by.
        minimum: A latent that fires on fewer rows is a root: its coverage is mostly luck.

    Raises:
        ShapeError: ``hierarchy.shape``.
        ConfigError: ``hierarchy.setting`` unless 0 < threshold <= 1 and minimum >= 1.
        DataError: ``data.empty``, ``data.nonfinite``.

    Example:
        >>> codes = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
        >>> infer_parents(codes, minimum=1).parents.tolist()
        [-1, 0]

    Source:
        Cao et al. (2026), *Tree SAE*, 2605.07922, §1 (coverage as others use it, and its faults).
    """
    check_setting(0 < threshold <= 1, "threshold", threshold, "0 < threshold <= 1")
    check_setting(minimum >= 1, "minimum", minimum, "minimum >= 1")
    fires = firings(codes)
    rows, latents = codes.shape
    check_shapes([] if level is None else [("level", level, (latents,))])
    either = np.ones(latents, dtype=np.int64)
    levels = (either, 0 * either) if level is None else (level.cpu().numpy(),) * 2
    count = fires.sum(0).astype(np.int64)
    asked = count >= minimum
    candidates = _Candidates(count, *levels, threshold, asked)
    child, parent, hits = candidates.best(fires)
    parents = torch.full((latents,), -1)
    parents[child] = torch.from_numpy(parent).long()
    coverage = torch.full((latents,), math.nan, dtype=torch.float64)
    coverage[child] = torch.from_numpy(hits / count[child])
    total = int(asked.sum()) or math.nan
    chance = candidates.expected_links(rows) / total
    return InferredParents(parents, coverage, len(child) / total, chance)


@dataclass(frozen=True)
class _Candidates:
    """Who may be whose parent: the more frequent, of a lower level."""

    count: np.ndarray
    as_child: np.ndarray  # levels; two arrays, so that without levels all are below all
    as_parent: np.ndarray
    threshold: float
    asked: np.ndarray

    def need(self, count: np.ndarray | np.int64) -> np.ndarray | np.float64:
        """Rows that a parent must share with a child of so many; 7 of 25 is .28 of them."""
        return np.ceil(self.threshold * count - 1e-9)

    def best(self, fires: sparse.csc_array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Children that have a parent, the parents, and the rows that they share."""
        both = (fires.T @ fires).tocoo()
        child, parent = both.coords
        good = (self.count[parent] > self.count[child]) & self.asked[child]
        good &= self.as_parent[parent] < self.as_child[child]
        good &= both.data >= self.need(self.count[child])
        child, parent, hits = child[good], parent[good], both.data[good]
        order = np.lexsort((parent, self.count[parent], -hits, child))
        first = order[np.unique(child[order], return_index=True)[1]]
        return child[first], parent[first], hits[first]

    def expected_links(self, rows: int) -> float:
        """Expected children with a parent, were each row's firings independent of each other.

        A candidate then shares a binomial number of the child's rows, whatever the others do.
        """
        pairs = np.stack([self.count, self.as_parent])
        (above, level), copies = np.unique(pairs, axis=1, return_counts=True)
        kinds, times = np.unique(
            np.stack([self.count, self.as_child])[:, self.asked], axis=1, return_counts=True
        )
        expected = 0.0
        for (count, own), number in zip(kinds.T, times, strict=True):
            able = (above > count) & (level < own)
            covers = bdtrc(self.need(count) - 1, int(count), above[able] / rows)
            with np.errstate(divide="ignore"):  # log 0: a latent that is always on covers surely
                expected -= number * np.expm1(copies[able] @ np.log1p(-covers))
        return float(expected)
