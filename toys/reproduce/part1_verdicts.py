"""Verdicts on document A's claims: holds, fails or undecided, by rules stated before the numbers.

Every comparison is between arms on the *same* seeds (data, order of rows), as a t-interval of a
paired contrast over seeds. An interval on the right side of the bound holds, on the wrong side
fails, across it is undecided; one seed decides nothing. A claim about every case holds if it holds
in each, and fails as soon as it fails in one; how many did is always reported. Since one of six
cases is enough to fail, each interval has the level 1 - 0.05/6: a claim true at its boundary in all
cases fails in at most 5 % of repetitions (Bonferroni). The claims themselves are not corrected for
each other.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from toys.reproduce.tables import Interval, interval

CASES = 6
JUDGING = 1 - 0.05 / CASES
MATCHED = 1.05  # "comparable sparsity": at most 5 % more active latents
SIZE = 0.8  # "20-30 % lower": at most this share of the baseline's error
EQUIVALENT = 0.1  # "SAE-like": errors within 10 % of each other


class Verdict(StrEnum):
    """What intervals say about a claim."""

    HOLDS = "holds"
    FAILS = "fails"
    UNDECIDED = "undecided"


def below(contrast: Interval, bound: float = 0.0) -> Verdict:
    """Whether a quantity is below ``bound``.

    Example:
        >>> below(Interval(-1.0, 0.5, 5)), below(Interval(-1.0, 1.5, 5))
        (<Verdict.HOLDS: 'holds'>, <Verdict.UNDECIDED: 'undecided'>)
    """
    if contrast.half_width is None or math.isnan(contrast.mean):
        return Verdict.UNDECIDED
    if contrast.high < bound:
        return Verdict.HOLDS
    return Verdict.FAILS if contrast.low >= bound else Verdict.UNDECIDED


def every(verdicts: Iterable[Verdict]) -> Verdict:
    """Whether all of several statements hold; of none, nothing is known."""
    verdicts = list(verdicts)
    if Verdict.FAILS in verdicts:
        return Verdict.FAILS
    all_hold = bool(verdicts) and set(verdicts) == {Verdict.HOLDS}
    return Verdict.HOLDS if all_hold else Verdict.UNDECIDED


def most(verdicts: Iterable[Verdict]) -> Verdict:
    """Whether more than half of several statements hold, whatever the undecided ones are."""
    verdicts = list(verdicts)
    if 2 * verdicts.count(Verdict.HOLDS) > len(verdicts):
        return Verdict.HOLDS
    possible = len(verdicts) - verdicts.count(Verdict.FAILS)
    return Verdict.UNDECIDED if 2 * possible > len(verdicts) else Verdict.FAILS


@dataclass(frozen=True)
class Pair:
    """Two arms on one case: values per seed, in the same order of seeds.

    Args:
        case: Its name.
        mse: Of the arm and of the baseline.
        l0: Likewise; ``None`` where the errors were interpolated at equal L0.
    """

    case: str
    mse: tuple[Sequence[float], Sequence[float]]
    l0: tuple[Sequence[float], Sequence[float]] | None

    def change(self, pair: tuple[Sequence[float], Sequence[float]]) -> float | None:
        """Change of the mean over seeds, relative to the baseline's; ``None`` from zero."""
        if not pair[0]:
            return None
        arm, base = (math.fsum(values) / len(values) for values in pair)
        return arm / base - 1 if base else None

    def contrast(self, pair, factor: float) -> Interval:
        """Interval of ``arm - factor · baseline`` over seeds."""
        if not pair[0]:
            return Interval(math.nan, None, 0)
        return interval((a - factor * b for a, b in zip(*pair, strict=True)), JUDGING)

    def lower_mse(self, factor: float = 1.0) -> Verdict:
        return below(self.contrast(self.mse, factor))

    def as_sparse(self) -> Verdict:
        """Whether the arm has at most 5 % more active latents; at equal L0 it has."""
        if self.l0 is None:
            return Verdict.HOLDS
        if list(self.l0[0]) == list(self.l0[1]):
            return Verdict.HOLDS
        return below(self.contrast(self.l0, MATCHED))

    def equivalent(self) -> Verdict:
        """Whether the errors are within 10 %, of codes that are as sparse as each other."""
        near = self._within(self.mse, EQUIVALENT)
        if self.l0 is not None and self._within(self.l0, MATCHED - 1) is not Verdict.HOLDS:
            return Verdict.UNDECIDED  # at different L0 a different error says nothing
        return near

    def _within(self, pair, share: float) -> Verdict:
        high = below(self.contrast(pair, 1 + share))
        low = below(self.contrast(pair, 1 - share).negated())
        return every([high, low])


@dataclass(frozen=True)
class Claim:
    """A claim's verdict with what it rests on; ``cases`` has a row per case."""

    name: str
    statement: str
    rule: str
    verdict: Verdict
    cases: Sequence[Mapping[str, str | float | None]]

    def to_dict(self) -> dict:
        """For JSON."""
        return {
            "claim": self.name,
            "statement": self.statement,
            "rule": self.rule,
            "verdict": str(self.verdict),
            "cases": [dict(row) for row in self.cases],
        }

    def __str__(self) -> str:
        found = [row["verdict"] for row in self.cases]
        tally = ", ".join(f"{found.count(v)} {v}" for v in Verdict)
        return f"{self.name}: {self.verdict.upper()} ({tally}, of {len(found)} cases)"


def headline(pairs: Sequence[Pair], name: str = "headline") -> Claim:
    """A V-SAE against the ℓ1 SAE."""
    return Claim(
        name,
        "In every scenario the V-SAE achieves lower MSE, often by 20-30 %, while maintaining "
        "comparable or higher sparsity.",
        "lower MSE in every case, at least 20 % lower in most, at most 5 % more active latents in "
        "every case"
        if _as_run(pairs)
        else "at equal L0: lower MSE in every case, at least 20 % lower in most",
        every([*map(_better, pairs), most(pair.lower_mse(SIZE) for pair in pairs)]),
        _rows(pairs, _better),
    )


def a26(pairs: Sequence[Pair], name: str = "A26") -> Claim:
    """Learned Cholesky against a prior without correlations."""
    return Claim(
        name,
        "Learning a full covariance outperforms an unstructured prior.",
        "lower MSE at no more than 5 % more active latents, in every case"
        if _as_run(pairs)
        else "lower MSE at equal L0, in every case",
        every(map(_better, pairs)),
        _rows(pairs, _better),
    )


def a25(pairs: Sequence[Pair], sparser: Sequence[Pair]) -> Claim:
    """Isotropic at a large β against the ℓ1 SAE (``pairs``) and against itself (``sparser``).

    Args:
        pairs: Large β against ℓ1.
        sparser: Large β against the default β.
    """
    fewer = {p.case: below(p.contrast(p.l0, 1.0)) for p in sparser}

    def judge(pair: Pair) -> Verdict:
        return every([fewer.get(pair.case, Verdict.UNDECIDED), pair.equivalent()])

    return Claim(
        "A25",
        "With Σ = I and β large the V-SAE behaves like the ℓ1 SAE.",
        "in every case a larger β gives fewer active latents, and at L0 equal (within 5 %) the MSE "
        "is within 10 % of the ℓ1 SAE's; undecided where L0 differs",
        every(map(judge, pairs)),
        _rows(pairs, judge),
    )


def _better(pair: Pair) -> Verdict:
    return every([pair.lower_mse(), pair.as_sparse()])


def _as_run(pairs: Sequence[Pair]) -> bool:
    return any(pair.l0 is not None for pair in pairs)


def _rows(pairs: Sequence[Pair], judge: Callable[[Pair], Verdict]) -> list[dict]:
    return [
        {
            "case": pair.case,
            "mse_change": pair.change(pair.mse),
            "l0_change": None if pair.l0 is None else pair.change(pair.l0),
            "verdict": str(judge(pair)),
        }
        for pair in pairs
    ]


def ordered(
    name: str,
    statement: str,
    metric: str,
    cases: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    higher: bool,
) -> Claim:
    """Whether an arm's metric is above (``higher``) or below a baseline's in every case.

    Args:
        name: Of the claim.
        statement: In words.
        metric: What ``cases`` holds.
        cases: Per case, the arm's and the baseline's values, seed by seed.
        higher: Which direction is better.
    """

    def judge(pair: tuple[Sequence[float], Sequence[float]]) -> Verdict:
        gains = interval((arm - base for arm, base in zip(*pair, strict=True)), JUDGING)
        return below(gains.negated() if higher else gains)

    verdicts = {case: judge(pair) for case, pair in cases.items()}
    rows = [
        {
            "case": case,
            f"{metric}_difference": math.fsum(arm) / len(arm) - math.fsum(base) / len(base),
            "verdict": str(verdicts[case]),
        }
        for case, (arm, base) in cases.items()
    ]
    rule = f"{'higher' if higher else 'lower'} {metric.upper()} in every case"
    return Claim(name, statement, rule, every(verdicts.values()), rows)
