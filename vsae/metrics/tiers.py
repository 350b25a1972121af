"""Codes in tiers: who is active, and what one tier says of the next."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from priors.tiers import check_sizes
from vsae.errors import DataError, ShapeError
from vsae.metrics.activity import l0


def tier_l0(
    codes: Float[Tensor, "*batch rows K"], sizes: Sequence[int], *, threshold: float = 0.0
) -> Float[Tensor, "*batch n"]:
    r"""Mean number of active latents per row in each tier; the sum is :func:`l0`.

    Args:
        codes: All tiers, one after another.
        sizes: Latents of each.
        threshold: τ, as in :func:`l0`.

    Raises:
        ConfigError: ``tiers.sizes``.
        ShapeError: ``tiers.codes`` if they are not those of the codes together.

    Example:
        >>> tier_l0(torch.tensor([[0.0, 2.0, 3.0], [1.0, 3.0, 0.0]]), (2, 1)).tolist()
        [1.5, 0.5]
    """
    sizes = check_sizes(sizes)
    if sum(sizes) != codes.shape[-1]:
        raise ShapeError(
            f"tiers of sizes {sizes} in codes of {codes.shape[-1]} latents: expected {sum(sizes)}.",
            code="tiers.codes",
        )
    parts = codes.split(sizes, -1)
    return torch.stack([l0(part, threshold=threshold) for part in parts], -1)


def tier_allocation(
    codes: Float[Tensor, "*batch rows K"], sizes: Sequence[int], *, threshold: float = 0.0
) -> Float[Tensor, "*batch n"]:
    r"""Each tier's share of the active latents, :math:`L0_i / \sum_j L0_j`; NaN if there are none.

    Example:
        >>> tier_allocation(torch.tensor([[0.0, 2.0, 3.0], [1.0, 3.0, 0.0]]), (2, 1)).tolist()
        [0.75, 0.25]
    """
    active = tier_l0(codes, sizes, threshold=threshold)
    return active / active.sum(-1, keepdim=True)


def coverage_ratio(
    lower: Float[Tensor, "rows i"],
    upper: Float[Tensor, "rows j"],
    held_lower: Float[Tensor, "held i"],
    held_upper: Float[Tensor, "held j"],
) -> Float[Tensor, ""]:
    r"""How much of a tier's codes an affine map of the tier below says, on rows held out of it.

    .. math:: 1 - \frac{\sum_n \lVert h_{ni} - A h_{n,i-1} - a\rVert^2}
        {\sum_n \lVert h_{ni} - \bar h_i\rVert^2}

    :math:`A, a` by least squares on ``lower`` and ``upper``; sums and mean over the held-out rows,
    in float64. At most 1; below 0 where the map is worse than the mean. That a tier is *computed*
    from the one below makes it high by construction, so it shows no hierarchy by itself: set beside
    it the same with ``lower`` and ``held_lower`` in another order of rows
    (near 0), and of tiers that were dealt out of one flat code.

    Args:
        lower: Codes of the tier below, of rows to fit to.
        upper: Codes of the tier, of the same rows.
        held_lower: Of other rows.
        held_upper: Of the same other rows.

    Raises:
        DataError: ``metrics.no_variance`` if the tier's codes do not vary, as those of a dead one.

    Example:
        >>> h = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
        >>> twice = torch.cat([2 * h[:, :1] + 1, h[:, 1:2]], 1)
        >>> round(coverage_ratio(h[:50], twice[:50], h[50:], twice[50:]).item(), 6)
        1.0

    Source:
        This library's reading: the tiered HSAE's "composition coverage ratio" is not defined.
    """
    lower, upper, held_lower, held_upper = (
        h.double() for h in (lower, upper, held_lower, held_upper)
    )
    total = (held_upper - held_upper.mean(0)).square().sum()
    if not bool(total > 0):
        raise DataError(
            "coverage of a tier that does not vary: got total variance 0 from "
            f"{len(held_upper)} rows. Is it dead?",
            code="metrics.no_variance",
        )
    below, own = lower.mean(0), upper.mean(0)
    weights = torch.linalg.pinv(lower - below) @ (upper - own)
    fitted = (held_lower - below) @ weights + own
    return 1 - (held_upper - fitted).square().sum() / total
