"""Verdicts by rules that were written before the numbers: holds, fails or undecided."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from toys.reproduce.flat_matched import FAMILY
from toys.reproduce.hsae_results import Values, gain
from toys.reproduce.tables import Interval

NOTHING = 1e-9  # a difference below it is rounding


class Verdict(StrEnum):
    """What the numbers say of a claim."""

    HOLDS = "holds"
    FAILS = "fails"
    UNDECIDED = "undecided"


def better(found: Interval | None) -> Verdict:
    """Of "more than": an interval wholly on one side of zero decides.

    Example:
        >>> str(better(Interval(1.0, 0.5, 3))), str(better(Interval(1.0, 1.5, 3)))
        ('holds', 'undecided')
    """
    return on_par(found, 0.0)


def on_par(found: Interval | None, margin: float) -> Verdict:
    """Of "at least as much as, up to a margin": wholly above minus the margin, or wholly below."""
    if found is None or (found.half_width == 0 and found.mean == -margin):
        return Verdict.UNDECIDED
    if found.low > -margin:
        return Verdict.HOLDS
    return Verdict.FAILS if found.high < -margin else Verdict.UNDECIDED


def no_effect(found: Interval | None, margin: float) -> Verdict:
    """Of "no effect": wholly inside the margins, or wholly outside."""
    if found is None:
        return Verdict.UNDECIDED
    if -margin <= found.low and found.high <= margin:
        return Verdict.HOLDS
    outside = found.low > margin or found.high < -margin
    return Verdict.FAILS if outside else Verdict.UNDECIDED


def all_of(verdicts: Sequence[Verdict]) -> Verdict:
    """Of a claim made without exception: one failure refutes it, all must hold for it to hold."""
    if Verdict.FAILS in verdicts:
        return Verdict.FAILS
    decided = bool(verdicts) and all(v is Verdict.HOLDS for v in verdicts)
    return Verdict.HOLDS if decided else Verdict.UNDECIDED


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One number per seed on which a claim bears.

    Args:
        data: Title of the data.
        case: What is compared with what.
        lead: By seed, in favour of the claim if positive.
    """

    data: str
    case: str
    lead: Values


class AbstractRule(ABC):
    """When an interval bears a claim out; *the following members say it*."""

    @abstractmethod
    def __call__(self, found: Interval | None) -> Verdict:
        """Of one interval."""

    @property
    @abstractmethod
    def text(self) -> str:
        """What the interval must be, for the report."""


@dataclass(frozen=True)
class AtLeast(AbstractRule):
    """More than minus a margin; with margin 0, more than nothing."""

    margin: float = 0.0

    def __call__(self, found: Interval | None) -> Verdict:
        return on_par(found, self.margin)

    @property
    def text(self) -> str:
        return f"above {-self.margin:g}" if self.margin else "above 0"


@dataclass(frozen=True)
class NoEffect(AbstractRule):
    """Neither more nor less than a margin."""

    margin: float

    def __call__(self, found: Interval | None) -> Verdict:
        return no_effect(found, self.margin)

    @property
    def text(self) -> str:
        return f"within ± {self.margin:g}"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence of the document, a reviewer's question, and what bears on it.

    Args:
        name: Short and unique.
        source: Where it stands in the document.
        text: The claim.
        table: Stem of the table with the numbers.
        comparisons: At least one; if none could be measured the verdict is undecided.
        rule: When a comparison holds or fails.
    """

    name: str
    source: str
    text: str
    table: str
    comparisons: Sequence[Comparison]
    rule: AbstractRule

    @property
    def deciding(self) -> list[Comparison]:
        """Of a claim of "more": comparisons in which anything differs in some seed.

        Without a difference there is nothing to decide: a toy with one parent has no other parents
        to shuffle, and where no latent is dead none can be revived.
        """
        if self.rule != AtLeast():
            return list(self.comparisons)
        return [c for c in self.comparisons if any(abs(v) > NOTHING for v in c.lead.values())]

    @property
    def level(self) -> float:
        """Of each interval, so that all of the claim err with 5 % at most (Bonferroni)."""
        return 1 - FAMILY / max(1, len(self.deciding))

    def gains(self) -> list[Interval | None]:
        """The interval of each comparison that can decide."""
        return [gain(c.lead, self.level) for c in self.deciding]

    def verdicts(self) -> list[Verdict]:
        """Of each of them."""
        return [self.rule(found) for found in self.gains()]

    @property
    def verdict(self) -> Verdict:
        """Of all of them."""
        return all_of(self.verdicts())

    def count(self) -> str:
        """How many of the comparisons say what."""
        said = self.verdicts()
        parts = [f"{v} {said.count(v)}" for v in Verdict if v in said]
        same = len(self.comparisons) - len(said)
        left = f"; {same} without any difference" if same else ""
        return f"{', '.join(parts)} of {len(said)}{left}"
