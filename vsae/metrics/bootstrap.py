"""An interval for a mean, from the spread of what it is the mean of."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from vsae.batches import check_finite
from vsae.errors import ConfigError, EmptyDataError

BLOCK = 1 << 22  # numbers drawn at a time


def bootstrap_interval(
    values: Float[Tensor, " rows"],
    *,
    generator: Generator,
    level: float = 0.95,
    resamples: int = 2000,
) -> tuple[float, float]:
    """Percentile bootstrap bounds of the mean of ``values``, as of independent rows.

    The mean is taken anew over as many rows drawn with replacement, ``resamples`` times; the bounds
    are the quantiles ``(1 ∓ level) / 2`` of those means. Of queries into one collection it says how
    the mean would vary over other *queries*, the collection being what it is.

    Args:
        values: One per row, such as the precision of each query.
        generator: The source of randomness, on the CPU; the global one is never used.
        level: Of confidence.
        resamples: How many.

    Raises:
        ConfigError: ``calibration.level`` unless in (0, 1), ``metrics.resamples`` unless >= 2.
        EmptyDataError: ``data.empty``.
        NonFiniteDataError: ``data.nonfinite``.

    Example:
        >>> values = torch.tensor([0.0, 1.0]).repeat(50)
        >>> low, high = bootstrap_interval(values, generator=torch.Generator().manual_seed(0))
        >>> round(low, 1), round(high, 1)
        (0.4, 0.6)

    Source:
        Efron (1979), *Bootstrap methods: another look at the jackknife*.
    """
    if not 0 < level < 1:
        raise ConfigError(
            f"level of an interval: got {level}, expected 0 < level < 1.", code="calibration.level"
        )
    check_resamples(resamples)
    if not len(values):
        raise EmptyDataError("no values: got 0, expected >= 1.", code="data.empty")
    check_finite(values[:, None])
    values = values.detach().cpu().double()
    means, rows = [], len(values)
    for start in range(0, resamples, max(BLOCK // rows, 1)):
        count = min(max(BLOCK // rows, 1), resamples - start)
        drawn = torch.randint(rows, (count, rows), generator=generator)
        means.append(values[drawn].mean(1))
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = torch.cat(means).quantile(tails).tolist()
    return low, high


def check_resamples(resamples: int) -> None:
    """Raise ``metrics.resamples`` unless quantiles of that many draws mean something."""
    if resamples < 2:
        raise ConfigError(
            f"quantiles of {resamples} draws: expected at least 2, and 200 for two digits.",
            code="metrics.resamples",
            context={"resamples": resamples},
        )
