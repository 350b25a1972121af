"""Arms at equal L0: interpolation inside each sweep, intervals over seeds, and what they decide."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from toys.reproduce.tables import Interval, interval, number

FAMILY = 0.05  # the chance that any of the comparisons of one metric on one data errs
Point = tuple[float, float]  # (L0, metric)


@dataclass(frozen=True)
class Metric:
    """A column of results.

    Args:
        label: As tables and figures print it.
        higher: Whether more is better.
    """

    label: str
    higher: bool = True


METRICS = {
    "ev": Metric("explained variance"),
    "ce_recovered": Metric("CE recovered (mean ablation = 0)"),
    "mcc": Metric("MCC"),
    "f1": Metric("F1"),
    "dead": Metric("dead latents, %", higher=False),
}
OF = {"toy": ("ev", "mcc", "f1", "dead"), "stories": ("ev", "ce_recovered", "dead")}
"""The metrics of each data."""


class Outcome(StrEnum):
    """What an interval of a difference says."""

    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "undecided"
    SAME = "identical"
    APART = "not comparable"


def at_l0(points: Sequence[Point], l0: float) -> float | None:
    """A metric at an L0: linear in log L0 between neighbours; ``None`` outside the points.

    Nothing is dropped from a sweep, not even a point that another beats: where training fails it is
    part of the arm. Points of equal L0 are averaged.

    Example:
        >>> at_l0([(1.0, 0.0), (4.0, 1.0)], 2.0), at_l0([(1.0, 0.0), (4.0, 1.0)], 5.0)
        (0.5, None)
    """
    same: dict[float, list[float]] = {}
    for at, value in points:
        same.setdefault(at, []).append(value)
    known = {at: math.fsum(values) / len(values) for at, values in sorted(same.items()) if at > 0}
    if l0 in known:
        return known[l0]
    for (low, first), (high, second) in pairwise(known.items()):
        if low < l0 < high:
            share = math.log(l0 / low) / math.log(high / low)
            return first + share * (second - first)
    return None


def over_seeds(values: Sequence[float]) -> Interval:
    """The t-interval; exactly zero wide where all seeds agree, as for PCA of the same rows."""
    if len(values) > 1 and len(set(values)) == 1:
        return Interval(values[0], 0.0, len(values))
    return interval(values)


def points_of(rows: Sequence[Mapping], seed: int, metric: str) -> list[Point]:
    """L0 and a metric of one arm's and seed's models; of none, if one of them failed."""
    own = [row for row in rows if row["seed"] == seed]
    if any(row["failed"] for row in own):
        return []
    return [(row["l0"], row[metric]) for row in own if row.get(metric) is not None]


def cell_at(
    rows: Sequence[Mapping], seeds: Sequence[int], metric: str, l0: float
) -> Interval | str:
    """Interval over seeds of an arm's metric at an L0, or why there is none."""
    found = [at_l0(points_of(rows, seed, metric), l0) for seed in seeds]
    if None not in found:
        return over_seeds(found)
    spans = [[at for at, _ in points_of(rows, seed, metric)] for seed in seeds]
    if not all(spans):
        return "not finite" if any(row["failed"] for row in rows) else "none"
    low, high = max(map(min, spans)), min(map(max, spans))
    return f"L0 {number(low)} to {number(high)}" if low <= high else "L0 differs by seed"


@dataclass(frozen=True)
class Contrast:
    """An arm against a baseline, in one metric.

    Args:
        arm: Its name.
        metric: A name in ``METRICS``.
        common: The values of L0 that both reach in every seed.
        gain: Interval over seeds of the difference, averaged over ``common``; above 0 is better.
            ``None`` without a common L0.
        outcome: What the interval says.
    """

    arm: str
    metric: str
    common: tuple[float, ...]
    gain: Interval | None
    outcome: Outcome


def contrast(
    arm: Sequence[Mapping],
    base: Sequence[Mapping],
    seeds: Sequence[int],
    metric: str,
    wanted: Sequence[float],
    comparisons: int,
) -> Contrast:
    """The paired difference over seeds, at a level corrected for so many comparisons.

    Args:
        arm: Its rows.
        base: The baseline's.
        seeds: All of them.
        metric: A name in ``METRICS``.
        wanted: Values of L0; those that both reach in every seed are used.
        comparisons: How many are made of this metric on this data (Bonferroni).
    """
    name = arm[0]["arm"]
    curves = [[points_of(rows, seed, metric) for seed in seeds] for rows in (arm, base)]
    common = tuple(
        l0 for l0 in wanted if all(at_l0(c, l0) is not None for found in curves for c in found)
    )
    if not common:
        return Contrast(name, metric, (), None, Outcome.APART)
    sign = 1 if METRICS[metric].higher else -1
    gains = [sign * _mean_difference(one, two, common) for one, two in zip(*curves, strict=True)]
    gain = interval(gains, 1 - FAMILY / comparisons)
    return Contrast(name, metric, common, gain, outcome(gain))


def outcome(gain: Interval) -> Outcome:
    """An interval wholly on one side of zero decides; one seed decides nothing."""
    if gain.mean == 0 and gain.half_width == 0:
        return Outcome.SAME
    if gain.low > 0:
        return Outcome.BETTER
    return Outcome.WORSE if gain.high < 0 else Outcome.UNDECIDED


def _mean_difference(arm: Sequence[Point], base: Sequence[Point], common: Sequence[float]) -> float:
    differences = (at_l0(arm, l0) - at_l0(base, l0) for l0 in common)
    return math.fsum(differences) / len(common)
