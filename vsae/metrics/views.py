"""How different the most active latents of two views of one item are."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from vsae.metrics.hierarchy import check_rows, check_setting, check_shapes
from vsae.metrics.permutation import permutation_moments

BLOCK = 1 << 22


@dataclass(frozen=True)
class Redundancy:
    """Set difference of two views, beside that of views paired at random.

    ``chance`` and ``chance_std`` are the exact mean and standard deviation of ``difference`` over
    all pairings of the items; ``normalised`` is ``difference / chance``: 1 if the second view says
    nothing about the first, 0 if they agree, nan if no set has a member. ``shared`` is the mean
    number of latents in both sets, ``sizes`` the mean size of each view's.
    """

    difference: float
    chance: float
    chance_std: float
    normalised: float
    shared: float
    shared_chance: float
    sizes: tuple[float, float]


def redundancy(first: Tensor, second: Tensor, *, k: int = 8) -> Redundancy:
    r"""Mean size of :math:`S_1 \triangle S_2`, S the ``k`` most active latents of an item.

    .. math:: \mathrm E\,|S_1 \triangle S_2| = \overline{|S_1|} + \overline{|S_2|} - \frac{2}{N^2}
        \sum_k n_{1k} n_{2k}

    is the mean over all :math:`N!` pairings of the views, with :math:`n_{vk}` the number of items
    whose set in view v has latent k. Coarse latents fire for everything and make every difference
    small: the normalised one is what can be compared. Most active is by ``|code|``, the lower
    number first among equals; an item with fewer than ``k`` non-zero codes has a smaller set, of
    exactly those.

    Args:
        first: Codes of the items in one view, ``(N, K)``: a language, say.
        second: Codes of the same items in another, in the same order.
        k: Largest size of a set.

    Raises:
        ShapeError: ``hierarchy.shape``.
        ConfigError: ``hierarchy.setting`` unless ``1 <= k <= K``.
        DataError: ``data.empty``, ``data.nonfinite``.

    Example:
        >>> found = redundancy(torch.eye(4), torch.eye(4), k=1)
        >>> found.difference, found.chance, found.normalised
        (0.0, 1.5, 0.0)

    Source:
        Muchane et al. (2025), 2506.01197, figure 5b (the difference); the null is this library's.
    """
    one, other = check_rows("first", first), check_rows("second", second)
    check_shapes([("second", other, tuple(one.shape))])
    check_setting(1 <= k <= one.shape[1], "k", k, f"1 <= k <= {one.shape[1]}")
    a, b, items = _sets(one, k), _sets(other, k), len(one)
    once = torch.ones(items, dtype=torch.int64)
    expected, variance = permutation_moments(_overlaps(a, b, items), once)
    shared, shared_chance = float(a.multiply(b).sum()) / items, expected / items
    sizes = float(a.sum()) / items, float(b.sum()) / items
    difference, chance = (sum(sizes) - 2 * both for both in (shared, shared_chance))
    return Redundancy(
        difference,
        chance,
        2 * math.sqrt(variance) / items,
        difference / chance if chance > 0 else math.nan,
        shared,
        shared_chance,
        sizes,
    )


def _sets(codes: Tensor, k: int) -> sparse.csr_array:
    """1 for each item's members."""
    best = codes.abs().sort(dim=-1, descending=True, stable=True).indices[:, :k]
    row, column = torch.arange(len(codes)).repeat_interleave(k), best.flatten()
    active = codes[row, column] != 0
    place = row[active].numpy(), column[active].numpy()
    return sparse.csr_array((np.ones(len(place[0])), place), shape=tuple(codes.shape))


def _overlaps(a: sparse.csr_array, b: sparse.csr_array, items: int) -> Iterator[Tensor]:
    """Sizes of the intersections of all pairs of items, some rows at a time."""
    step = max(BLOCK // items, 1)
    for start in range(0, items, step):
        yield torch.from_numpy((a[start : start + step] @ b.T).toarray())
