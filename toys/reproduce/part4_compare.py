"""Means and paired differences of a part's rows, and verdicts by rules stated beforehand."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from toys.reproduce.hsae_verdicts import Verdict, no_effect, on_par
from toys.reproduce.tables import Interval, interval, number

MARGIN = 0.02
"""Of explained variance; less is as good as the same."""
NEAR = 0.1
"""The share by which an arm's L0 may differ from its target."""

RULE = (
    "Differences are paired by seed. With R² and the margin {margin:g}: an arm *substitutes* for "
    "another if the 95 % t-interval over seeds of the difference lies wholly above minus the "
    "margin, and fails to if wholly below it; it is *better* if wholly above 0, *worse* if wholly "
    "below; undecided otherwise. An arm whose mean L0 on held-out rows is more than {near:.0f} % "
    "from the target has missed it, and a comparison of which one side missed it says so; every "
    "code is also cut to the target's number of greatest entries per row, which no arm can miss "
    "from above. Each comparison stands on its own, without a correction for their number."
)


def rule() -> str:
    """How differences are judged."""
    return RULE.format(margin=MARGIN, near=100 * NEAR)


def chosen(rows: Iterable[Mapping], **named: str | int | float | bool) -> list[Mapping]:
    """The rows that have these values and did not fail.

    Example:
        >>> len(chosen([{"arm": "l1", "failed": None}, {"arm": "l1", "failed": "…"}], arm="l1"))
        1
    """
    return [
        row
        for row in rows
        if not row["failed"] and all(row.get(name) == value for name, value in named.items())
    ]


def value(row: Mapping, *path: str | int) -> float | None:
    """What the names lead to, if anything."""
    found: object = row
    for name in path:
        if isinstance(found, Mapping):
            found = found.get(name)
        elif isinstance(found, Sequence) and isinstance(name, int) and name < len(found):
            found = found[name]
        else:
            return None
    return None if found is None else float(found)


def mean(rows: Iterable[Mapping], *path: str | int) -> Interval | None:
    """Over the rows that have the value."""
    known = [v for row in rows if (v := value(row, *path)) is not None]
    return interval(known) if known else None


def paired(rows: Sequence[Mapping], others: Sequence[Mapping], *path: str | int) -> Interval | None:
    """Of the differences, seed by seed, where both have the value; ``None`` if nowhere.

    Example:
        >>> one = [{"seed": 0, "r2": 0.9}, {"seed": 1, "r2": 0.8}]
        >>> other = [{"seed": 1, "r2": 0.5}]
        >>> str(paired(one, other, "r2"))
        '0.3'
    """
    theirs = {row["seed"]: value(row, *path) for row in others}
    found = [
        mine - theirs[row["seed"]]
        for row in rows
        if (mine := value(row, *path)) is not None and theirs.get(row["seed"]) is not None
    ]
    return interval(found) if found else None


def missed(rows: Sequence[Mapping], target: int | float) -> bool:
    """Whether the mean L0 is not near the target.

    Example:
        >>> missed([{"l0": 17.0}], 16.0), missed([{"l0": 18.0}], 16.0)
        (False, True)
    """
    found = mean(rows, "l0")
    return found is None or abs(found.mean - target) > NEAR * target


def called(difference: Interval | None) -> str:
    """Better, worse or undecided; the same where every pair is.

    Example:
        >>> called(Interval(0.1, 0.05, 3)), called(Interval(-0.1, 0.2, 3)), called(None)
        ('better', 'undecided', 'not run')
    """
    if difference is None:
        return "not run"
    if difference.half_width == 0 and difference.mean == 0:
        return "the same"
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "undecided"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement about two arms, by explained variance.

    Args:
        says: With ``{one}`` and ``{other}``.
        one: An arm.
        other: Another.
        substitutes: Whether as good up to the margin is enough.
        no_effect: Whether it claims that there is no difference beyond the margin.
    """

    says: str
    one: str
    other: str
    substitutes: bool = False
    no_effect: bool = False

    def judge(self, difference: Interval | None) -> Verdict:
        """By the rule."""
        if self.no_effect:
            return no_effect(difference, MARGIN)
        return on_par(difference, MARGIN if self.substitutes else 0.0)


def judged(
    claims: Sequence[Claim], rows: Sequence[Mapping], targets: Iterable[int]
) -> Iterator[str]:
    """A sentence per claim and target, with both readings of R²."""
    for claim in claims:
        for target in targets:
            one, other = (chosen(rows, arm=arm, target=target) for arm in (claim.one, claim.other))
            if one and other:
                yield _sentence(claim, one, other, target)


def _sentence(claim: Claim, one: Sequence[Mapping], other: Sequence[Mapping], target: int) -> str:
    names = {"one": one[0]["label"], "other": other[0]["label"]}
    plain, short = paired(one, other, "r2"), paired(one, other, "cut", str(target), "r2")
    late = [rows[0]["label"] for rows in (one, other) if missed(rows, target)]
    verdicts = [claim.judge(plain), claim.judge(short)]
    text = (
        f"{claim.says.format(**names)}, at L0 {target}: **{verdicts[0]}** (R² "
        f"{mean(one, 'r2')} against {mean(other, 'r2')}, difference {plain}); cut to {target} "
        f"entries: {verdicts[1]} ({short})."
    )
    reached = ", ".join(f"{rows[0]['label']} {mean(rows, 'l0')}" for rows in (one, other))
    return text + (f" The target was missed: L0 {reached}." if late else "")


def against_null(rows: Sequence[Mapping], *path: str) -> str:
    """Of a score with a null distribution: above, below or within it, on how many seeds."""
    above = below = 0
    for row in rows:
        found = value(row, *path, "value")
        low, high = (value(row, *path, "null_interval", i) for i in (0, 1))
        if found is not None and low is not None and high is not None:
            above, below = above + (found > high), below + (found < low)
    total = f"of {len(rows)} seeds"
    return f"above chance on {above} {total}" + (f", below on {below}" if below else "")


def share(found: Interval | None, digits: int = 3) -> str:
    """A mean alone."""
    return "–" if found is None else number(found.mean, digits=digits)
