"""Contestants timed in turn, in one process, so that a neighbour or a clock disturbs all alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Step = Callable[[], object]


@dataclass(frozen=True)
class Times:
    """Seconds of CPU time per call of each contestant, one entry per round.

    CPU time of the process and not time on the wall: a single thread that is preempted by another
    program has not become slower.
    """

    of: dict[str, list[float]]

    def milliseconds(self, name: str) -> float:
        """The median call."""
        return 1e3 * statistics.median(self.of[name])

    def ratio(self, above: str, below: str) -> "Ratio":
        """``above / below``, round by round."""
        pairs = zip(self.of[above], self.of[below], strict=True)
        return Ratio(
            paired=tuple(a / b for a, b in pairs),
            of_minima=min(self.of[above]) / min(self.of[below]),
        )


@dataclass(frozen=True)
class Ratio:
    """Ratios of two contestants, one per round, and that of their fastest calls."""

    paired: tuple[float, ...]
    of_minima: float

    @property
    def median(self) -> float:
        return statistics.median(self.paired)

    @property
    def spread(self) -> tuple[float, float]:
        """The quartiles of the rounds; all there is, for fewer than four."""
        if len(self.paired) < 4:
            return min(self.paired), max(self.paired)
        low, _, high = statistics.quantiles(self.paired, n=4)
        return low, high


def alternate(
    contestants: Mapping[str, Step], *, rounds: int, calls: int = 1, warmup: int = 1
) -> Times:
    """Time every contestant once a round, the first of a round being another each time.

    Args:
        contestants: What to call, by name.
        rounds: Rounds that count.
        calls: Calls per measurement, for steps of less than some milliseconds.
        warmup: Rounds before, that do not count.
    """
    names = list(contestants)
    found: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-warmup, rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            begin = time.process_time()
            for _ in range(calls):
                contestants[name]()
            if turn >= 0:
                found[name].append((time.process_time() - begin) / calls)
    return Times(found)
