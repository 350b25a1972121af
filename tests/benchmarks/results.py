"""One line of the table: a claim, its bar, and what was measured."""

from dataclasses import dataclass

from contest import Ratio, Times


@dataclass(frozen=True, kw_only=True)
class Result:
    """A measured ratio beside its bar.

    Args:
        claim: What is compared with what.
        value: The median ratio.
        spread: Its quartiles over rounds; ``None`` for a number that is not timed.
        of_minima: The ratio of the fastest calls; ``None`` likewise.
        at_most: Met if the ratio is no greater.
        at_least: Met if the ratio is no smaller. Without a bar the row is information.
        times: What the ratio was made of, in words.
    """

    claim: str
    value: float
    spread: tuple[float, float] | None = None
    of_minima: float | None = None
    at_most: float | None = None
    at_least: float | None = None
    times: str = ""

    @property
    def bar(self) -> str:
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        return "" if self.at_least is None else f"≥ {self.at_least:g}"

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; ``None`` if there is none."""
        if self.at_most is not None:
            return self.value <= self.at_most
        return None if self.at_least is None else self.value >= self.at_least


@dataclass(frozen=True)
class Skipped:
    """A line that could not be measured here, and why."""

    claim: str
    why: str


def slowdown(
    claim: str, times: Times, ours: str, reference: str, *, at_most: float | None = None
) -> Result:
    """How many times longer ``ours`` takes."""
    return _result(claim, times, times.ratio(ours, reference), (ours, reference), at_most, None)


def speedup(
    claim: str, times: Times, ours: str, reference: str, *, at_least: float | None = None
) -> Result:
    """How many times faster ``ours`` is."""
    return _result(claim, times, times.ratio(reference, ours), (ours, reference), None, at_least)


def _result(claim, times, ratio: Ratio, names, at_most, at_least) -> Result:
    return Result(
        claim=claim,
        value=ratio.median,
        spread=ratio.spread,
        of_minima=ratio.of_minima,
        at_most=at_most,
        at_least=at_least,
        times=" : ".join(f"{_number(times.milliseconds(n))} ms {n}" for n in names),
    )


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
