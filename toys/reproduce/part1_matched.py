"""Errors at equal sparsity: every arm's frontier, interpolated at common values of L0."""

import math
from collections.abc import Sequence
from itertools import pairwise

from toys.reproduce.part1_tables import select
from toys.reproduce.part1_verdicts import Pair
from toys.reproduce.tables import Interval, interval

COMMON = (0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 18.0, 20.0)

Point = tuple[float, float]  # (L0, MSE)


def frontier(points: Sequence[Point]) -> list[Point]:
    """The points no other point beats in both L0 and MSE, in order of L0; L0 = 0 is no code.

    Example:
        >>> frontier([(4.0, 1.0), (2.0, 3.0), (3.0, 3.5), (0.0, 9.0)])
        [(2.0, 3.0), (4.0, 1.0)]
    """
    kept: list[Point] = []
    for l0, mse in sorted(point for point in points if point[0] > 0):
        if not kept or mse < kept[-1][1]:
            kept.append((l0, mse))
    return kept


def error_at(points: Sequence[Point], l0: float) -> float | None:
    """MSE on the frontier at an L0, log MSE linear in log L0; ``None`` outside: no extrapolation.

    Example:
        >>> round(error_at([(1.0, 1.0), (4.0, 0.25)], 2.0), 6), error_at([(1.0, 1.0)], 2.0)
        (0.5, None)
    """
    kept = frontier(points)
    if any(point[0] == l0 for point in kept):
        return next(mse for at, mse in kept if at == l0)
    for (low, high_mse), (high, low_mse) in pairwise(kept):
        if low < l0 < high and low_mse > 0:
            share = math.log(l0 / low) / math.log(high / low)
            return high_mse * (low_mse / high_mse) ** share
    return None


def points_of(rows: Sequence[dict], seed: int) -> list[Point]:
    """L0 and MSE of one seed's models over the sweep."""
    return [(row["l0"], row["mse"]) for row in select(rows, seed=seed)]


def cell_at(rows: Sequence[dict], seeds: Sequence[int], l0: float) -> Interval | None:
    """Interval over seeds of the error at an L0; ``None`` unless every frontier reaches it."""
    found = [error_at(points_of(rows, seed), l0) for seed in seeds]
    return None if None in found else interval(found)


def matched_pair(
    case: str, arm: Sequence[dict], base: Sequence[dict], seeds: Sequence[int]
) -> Pair:
    """Per seed, geometric mean of the errors over the common L0 both arms reach in every seed.

    Without such an L0 the pair is empty, and every verdict on it undecided.
    """
    reached = [
        l0
        for l0 in COMMON
        if cell_at(arm, seeds, l0) is not None and cell_at(base, seeds, l0) is not None
    ]
    if not reached:
        return Pair(case, ((), ()), None)
    arm_errors, base_errors = (
        [_geometric(points_of(rows, seed), reached) for seed in seeds] for rows in (arm, base)
    )
    return Pair(case, (arm_errors, base_errors), None)


def _geometric(points: Sequence[Point], reached: Sequence[float]) -> float:
    kept = [error_at(points, l0) for l0 in reached]
    return math.exp(math.fsum(math.log(error) for error in kept) / len(kept))
