"""Whether credible intervals hold the truth as often as they say."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vsae.errors import ConfigError, DataError, ShapeError
from vsae.metrics.binomial import binomial_interval
from vsae.metrics.calibration import check_data


@dataclass(frozen=True)
class IntervalCoverage:
    """How often intervals of each level hold the truth, and how wide they are on average."""

    levels: Float[Tensor, " L"]
    coverage: Float[Tensor, " L"]
    lower: Float[Tensor, " L"]
    upper: Float[Tensor, " L"]
    width: Float[Tensor, " L"]
    count: int


def interval_coverage(
    lower: Tensor,
    upper: Tensor,
    truth: Tensor,
    *,
    levels: Float[Tensor, " L"],
    confidence: float = 0.95,
) -> IntervalCoverage:
    """Share of credible intervals that hold the truth, for each level, with binomial intervals.

    The ends belong to the interval. Where the posterior has an atom (a gate off: the amplitude is
    0), right intervals cover *more* than their level: ``[0, 0]`` may hold all of it. The control
    is the width: from 0 to ∞ covers everything.

    Args:
        lower: Lower ends ``(L, ...)``, one set per level.
        upper: Upper ends, likewise.
        truth: What they should hold, ``(...)``.
        levels: The posterior probability that each set states, in (0, 1).
        confidence: Of the binomial intervals, which take the truths as independent.

    Raises:
        ShapeError: ``calibration.shape``.
        ConfigError: ``calibration.level``.
        DataError: ``calibration.range`` if a lower end is above the upper; ``data.empty``.

    Example:
        >>> ends = torch.tensor([[1.0, 1.0], [2.0, 2.0]])
        >>> levels = torch.tensor([0.5, 0.9])
        >>> found = interval_coverage(-ends, ends, torch.tensor([0.3, 1.5]), levels=levels)
        >>> found.coverage.tolist(), found.width.tolist()
        ([0.5, 1.0], [2.0, 4.0])
    """
    _check_intervals(lower, upper, truth, levels)
    inside = ((lower <= truth) & (truth <= upper)).flatten(1).cpu()
    hits, count = inside.sum(1), torch.full((len(levels),), inside.shape[1])
    width = (upper.double() - lower.double()).flatten(1).mean(1).cpu()
    bounds = binomial_interval(hits, count, level=confidence)
    return IntervalCoverage(levels.cpu(), hits.double() / count, *bounds, width, inside.shape[1])


def _check_intervals(lower: Tensor, upper: Tensor, truth: Tensor, levels: Tensor) -> None:
    expected = (len(levels), *truth.shape)
    if lower.shape != expected or upper.shape != expected:
        raise ShapeError(
            f"an interval per level and truth: got {tuple(lower.shape)} and {tuple(upper.shape)}, "
            f"expected {expected}.",
            code="calibration.shape",
        )
    check_data(truth)
    if not bool(((levels > 0) & (levels < 1)).all()):
        raise ConfigError(
            f"levels of intervals: got {levels.tolist()}, expected in (0, 1).",
            code="calibration.level",
        )
    if not bool((lower <= upper).all()):
        raise DataError(
            "intervals whose lower end is above the upper, or not a number: expected lower <= "
            "upper.",
            code="calibration.range",
        )
