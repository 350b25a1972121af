"""Whether things happen as often as stated probabilities say."""

import math
from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

from vsae.batches import check_finite
from vsae.errors import ConfigError, DataError, EmptyDataError, ShapeError
from vsae.metrics.binomial import binomial_interval


@dataclass(frozen=True)
class Reliability:
    r"""The reliability curve by bins of equal width, and scores over all forecasts.

    ``error`` is the expected calibration error; perfect forecasts of independent events do not give
    0 but at most ``error_bound`` on average. ``brier`` is ``reliability - resolution + uncertainty
    + within``, exactly; ``within`` is what forecasts do inside of their bins. ``uncertainty`` is
    the Brier score of the control that always forecasts ``base_rate``, whose ``error`` is 0: a
    small error alone says little. Empty bins are nan, their intervals 0 to 1.
    """

    counts: Int[Tensor, " bins"]
    predicted: Float[Tensor, " bins"]
    observed: Float[Tensor, " bins"]
    lower: Float[Tensor, " bins"]
    upper: Float[Tensor, " bins"]
    error: float
    error_bound: float
    brier: float
    reliability: float
    resolution: float
    uncertainty: float
    within: float
    base_rate: float

    @property
    def skill(self) -> float:
        """Share of the control's Brier score taken away; nan if all events are the same."""
        return 1 - self.brier / self.uncertainty if self.uncertainty > 0 else math.nan


def reliability(
    probabilities: Tensor, events: Bool[Tensor, "..."], *, bins: int, level: float = 0.95
) -> Reliability:
    r"""Forecasts against what happened, in ``bins`` bins of equal width.

    .. math:: \mathrm{ECE} = \sum_b \tfrac{n_b}{N} |\bar p_b - \bar o_b|, \qquad
        \mathrm{Brier} = \tfrac1N \sum_i (p_i - o_i)^2 = \mathrm{rel} - \mathrm{res} +
        \bar o (1 - \bar o) + \mathrm{within}

    with :math:`\mathrm{rel} = \sum_b \frac{n_b}N (\bar p_b - \bar o_b)^2` and
    :math:`\mathrm{res} = \sum_b \frac{n_b}N (\bar o_b - \bar o)^2`. If calibrated,
    :math:`E[\mathrm{ECE}] \le \frac1N \sum_b (\sum_{i \in b} p_i (1 - p_i))^{1/2}`.

    Equal width, because gates are rarely on: with bins of equal counts nearly all would lie at 0,
    the uncertain forecasts in one together, and ties be cut by their order. Counts and intervals
    say what a bin is worth. Intervals and bound take events as independent: those of one row's
    latents are not, quite.

    Args:
        probabilities: Forecasts in [0, 1] of any shape, such as posterior firing probabilities.
        events: What happened, of the same shape, such as ``truth > 0``.
        bins: How many of ``[0, 1/bins), …, [1 - 1/bins, 1]``.
        level: Of the observed frequencies' intervals (:func:`vsae.metrics.binomial_interval`).

    Raises:
        ConfigError: ``calibration.bins``, ``calibration.level``.
        ShapeError: ``calibration.shape``.
        DataError: ``calibration.range``, ``data.empty``, ``data.nonfinite``.

    Example:
        >>> import torch
        >>> found = reliability(torch.tensor([0.1, 0.3, 0.8]), torch.tensor([0, 1, 1]) > 0, bins=2)
        >>> found.counts.tolist(), found.observed.tolist(), round(found.error, 3)
        ([2, 1], [0.5, 1.0], 0.267)

    Source:
        Murphy (1973), *A new vector partition of the probability score*; Stephenson, Coelho &
        Jolliffe (2008), *Two extra components in the Brier score decomposition*; Naeini, Cooper &
        Hauskrecht (2015), *Obtaining well calibrated probabilities using Bayesian binning* (ECE).
    """
    p, o = _forecasts(probabilities, events)
    if bins < 1:
        raise ConfigError(f"bins: got {bins}, expected >= 1.", code="calibration.bins")
    place = (p * bins).long().clamp(max=bins - 1)

    def by_bin(values: Tensor) -> Tensor:
        return place.bincount(values, minlength=bins)

    counts, hits, total = place.bincount(minlength=bins), by_bin(o), len(p)
    predicted, observed, rate = by_bin(p) / counts, hits / counts, float(o.mean())
    lower, upper = binomial_interval(hits.long(), counts, level=level)
    gap, off = (predicted - observed).nan_to_num(), (observed - rate).nan_to_num()
    inside = p - predicted[place]
    return Reliability(
        counts,
        predicted,
        observed,
        lower,
        upper,
        error=float((counts * gap.abs()).sum()) / total,
        error_bound=float(by_bin(p * (1 - p)).sqrt().sum()) / total,
        brier=float((p - o).square().mean()),
        reliability=float((counts * gap.square()).sum()) / total,
        resolution=float((counts * off.square()).sum()) / total,
        uncertainty=rate * (1 - rate),
        within=float((inside * (inside - 2 * (o - observed[place]))).mean()),
        base_rate=rate,
    )


def _forecasts(probabilities: Tensor, events: Tensor) -> tuple[Tensor, Tensor]:
    if probabilities.shape != events.shape:
        raise ShapeError(
            f"one event per forecast: got {tuple(probabilities.shape)} probabilities and "
            f"{tuple(events.shape)} events.",
            code="calibration.shape",
        )
    p, o = (t.detach().cpu().double().flatten() for t in (probabilities, events))
    check_data(p)
    if bool(((p < 0) | (p > 1)).any()):
        raise DataError(
            f"probabilities from {p.min():.4g} to {p.max():.4g}: expected 0 to 1. Are they logits?",
            code="calibration.range",
        )
    return p, o


def check_data(values: Tensor) -> None:
    """Raise unless there are values, all of them finite."""
    if not values.numel():
        raise EmptyDataError("nothing to calibrate: got 0 values.", code="data.empty")
    check_finite(values.reshape(-1, 1))
