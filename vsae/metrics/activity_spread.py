"""The distributions of activation frequency and value over latents, in a few numbers."""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from vsae.metrics.activity import activation_frequency, activation_value


@dataclass(frozen=True, kw_only=True)
class ActivitySummary:
    """How often and how strongly latents fire; of values, which mean is meant is said.

    Args:
        l0: Mean number of active latents per row.
        density: ``l0 / K``, which is also the mean activation frequency over latents.
        dead: Share of latents never active on these rows.
        frequency_median: Median over *all* latents; 0 if half of them are dead.
        value_median: Median over *live* latents of their mean active code; nan if all are dead.
        value_mean: Mean of the same.
        value_over_active: Mean of all active entries together: latents count as often as they fire.
        value_over_all: Mean of all entries, zeros included: ``density * value_over_active``.
    """

    l0: float
    density: float
    dead: float
    frequency_median: float
    value_median: float
    value_mean: float
    value_over_active: float
    value_over_all: float


def activity_summary(codes: Float[Tensor, "rows K"], *, threshold: float = 0.0) -> ActivitySummary:
    r"""Medians and means of the activation frequency and the activation value.

    .. math:: AF_k = \frac1N \sum_n 1[|c_{nk}| > τ], \qquad
        AV_k = \sum_n c_{nk} 1[|c_{nk}| > τ] \Big/ \sum_n 1[|c_{nk}| > τ]

    A mean AV has three readings, and a dense code's is small in one and not in another: all are
    given. Medians of an even number are the mean of the middle two.

    Args:
        codes: Of the posterior mean, unless stated.
        threshold: τ, in the units of the codes.

    Raises:
        EmptyDataError: ``data.empty`` without rows.

    Example:
        >>> import torch
        >>> found = activity_summary(torch.tensor([[0.0, 2.0, 0.0], [4.0, 6.0, 0.0]]))
        >>> found.density, found.frequency_median, found.value_mean, found.value_over_all
        (0.5, 0.5, 4.0, 2.0)
    """
    frequency = activation_frequency(codes, threshold=threshold)
    value = activation_value(codes, threshold=threshold)
    live, mean = value[frequency > 0], float(frequency.mean())
    over_all = float((frequency * value).mean())
    return ActivitySummary(
        l0=mean * codes.shape[-1],
        density=mean,
        dead=1 - len(live) / codes.shape[-1],
        frequency_median=_median(frequency),
        value_median=_median(live),
        value_mean=float(live.mean()) if len(live) else math.nan,
        value_over_active=over_all / mean if mean > 0 else math.nan,
        value_over_all=over_all,
    )


def _median(values: Tensor) -> float:
    if not len(values):
        return math.nan
    ordered, middle = values.sort().values, len(values) // 2
    return float((ordered[middle] + ordered[~middle]) / 2)
