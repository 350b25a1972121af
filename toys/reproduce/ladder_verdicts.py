"""What decides in ``ladder``: questions, but for one asked before the numbers, and contrasts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from toys.reproduce.flat_matched import FAMILY, Outcome
from toys.reproduce.ladder_arms import ADDITIVE, EQUAL, FLAT, LADDERS, LATERAL, VARIATIONAL
from toys.reproduce.ladder_tables import RECOVERY, Results, beyond, label, value_of
from toys.reproduce.tables import Interval, interval, number

MATCHED = 0.1  # greatest relative difference of mean L0 at which arms are compared

COARSE = "Does the coarse level hold the clusters?"
FINE = "Are fine features found as well?"
WORTH = "Is as much explained at the L0?"
TIED = "Does consistency help?"
STOPPED = "Does the stopped gradient help?"
GRAPH = "Does a graph on the fine level help?"
STRONGER = "Is a weaker ℓ1 at the coarse level better?"
SLOW = "Does it matter how fast sparsity comes?"
READING = "Lateral or additive?"
COMBINED = "A crosscoder of a ladder?"

RULES = f"""\
- {COARSE} Mean F1 over clusters, each by one latent of the coarse level, against the flat ℓ1 SAE,
  where *any* latent may be the cluster's: the flat SAE has the wider choice.
- {FINE} Mean F1 over fine features, each by any latent, against the flat ℓ1 SAE. {WORTH} Explained
  variance, likewise.
- {TIED} Coarse F1, stopped view against not tied. {STOPPED} The same, against the moving view.
- {GRAPH} Fine F1 of the fine level, the graph against its shuffled twin; against none is reported.
- {STRONGER} Coarse F1 of the coarse level and fine F1 of the fine level, stopped ladders, λ halved
  at the coarse level against equal λ.
- {SLOW} Asked after a first run of all arms, which began and moved β faster.
  Fine F1 of the fine level and coarse F1 of the coarse one, a β that starts lower and grows
  half as fast against the faster one.
- {READING} Coarse F1 of stopped ladders, lateral against additive.
- {COMBINED} Coarse F1 of the coarse level, fine F1 and explained variance against the flat
  crosscoder, any latent.
- A question's answer is *better* or *worse* where the interval of the differences paired by seed
  leaves out zero, at 95 % for all contrasts of the question together; otherwise *undecided*: with
  few seeds and many contrasts to a question only large effects are decided. Arms
  whose mean L0 differs by more than {100 * MATCHED:g} % are *not comparable*.
- A read-out shows structure where it lies outside its null's 95 % range in every seed, on the side
  that means it: block score and nestedness above, recruited fine latents below."""


@dataclass(frozen=True)
class Contrast:
    """An arm against another in one metric, on one toy.

    Args:
        question: What it answers.
        world: The toy.
        arm: Its name.
        base: Of the other.
        metric: Column of the arm.
        other: Column of the other.
    """

    question: str
    world: str
    arm: str
    base: str
    metric: str
    other: str


@dataclass(frozen=True)
class Verdict:
    """What a contrast decides.

    Args:
        question, world, arm, base: As of :class:`Contrast`.
        metric: As people read it.
        gain: Interval of the differences.
        outcome: What it says.
    """

    question: str
    world: str
    arm: str
    base: str
    metric: str
    gain: Interval | None
    outcome: Outcome


def contrasts(worlds: Sequence[str]) -> Iterator[Contrast]:
    """Every contrast of the rules."""
    for world in (w for w in ("clusters", "rings") if w in worlds):
        for arm in (*LADDERS, *EQUAL, VARIATIONAL):
            yield Contrast(COARSE, world, arm, FLAT, "coarse_f1", "coarse_f1_any")
            yield Contrast(FINE, world, arm, FLAT, "fine_f1_any", "fine_f1_any")
            yield Contrast(WORTH, world, arm, FLAT, "ev", "ev")
        for name in (LATERAL, ADDITIVE):
            stopped = f"{name}-stopped"
            yield Contrast(TIED, world, stopped, f"{name}-none", *_both("coarse_f1"))
            yield Contrast(STOPPED, world, stopped, f"{name}-moving", *_both("coarse_f1"))
            for level in ("coarse_f1", "fine_f1"):
                yield Contrast(STRONGER, world, stopped, f"{name}-equal", *_both(level))
            for base in (f"{name}-shuffled", stopped):
                yield Contrast(GRAPH, world, f"{name}-knn", base, *_both("fine_f1"))
        yield from _fast(world, f"{LATERAL}-stopped", f"{LATERAL}-fast")
        arms = f"{LATERAL}-stopped", f"{ADDITIVE}-stopped"
        yield Contrast(READING, world, *arms, *_both("coarse_f1"))
    if "layers" in worlds:
        yield from _fast("layers", "crosscoder-ladder", "crosscoder-fast")
        arms = "crosscoder-ladder", "crosscoder"
        yield Contrast(COMBINED, "layers", *arms, "coarse_f1", "coarse_f1_any")
        yield Contrast(COMBINED, "layers", *arms, *_both("fine_f1_any"))
        yield Contrast(COMBINED, "layers", *arms, *_both("ev"))


def _fast(world: str, arm: str, base: str) -> Iterator[Contrast]:
    for level in ("coarse_f1", "fine_f1"):
        yield Contrast(SLOW, world, arm, base, *_both(level))


def _both(column: str) -> tuple[str, str]:
    return column, column


def verdicts(results: Results) -> list[Verdict]:
    """All of them, each at a level shared by the contrasts of its question."""
    asked = list(contrasts(results.settings.worlds))
    return [_decide(results, one, sum(c.question == one.question for c in asked)) for one in asked]


def _decide(results: Results, one: Contrast, family: int) -> Verdict:
    mine, theirs = (results.of(one.world, arm) for arm in (one.arm, one.base))
    found = [
        (value_of(a, one.metric), value_of(b, one.other)) for a, b in zip(mine, theirs, strict=True)
    ]
    named = RECOVERY[one.metric]
    gaps = [a - b for a, b in found if a is not None and b is not None]
    gain = interval(gaps, 1 - FAMILY / family) if len(gaps) == len(found) else None
    outcome = outcome_of(gain, l0_gap(mine, theirs))
    return Verdict(one.question, one.world, one.arm, one.base, named, gain, outcome)


def l0_gap(mine: Sequence[Mapping], theirs: Sequence[Mapping]) -> float:
    """Relative difference of mean L0."""
    first, second = (sum(row["l0"] for row in rows) / len(rows) for rows in (mine, theirs))
    return abs(first / second - 1) if second else float("inf")


def outcome_of(gain: Interval | None, gap: float) -> Outcome:
    """What the interval says, of arms of one L0."""
    if gain is None or gap > MATCHED:
        return Outcome.APART
    if gain.low > 0:
        return Outcome.BETTER
    return Outcome.WORSE if gain.high < 0 else Outcome.UNDECIDED


def findings(results: Results, decided: Sequence[Verdict]) -> list[str]:
    """Sentences, from the numbers."""
    said = []
    for question in dict.fromkeys(v.question for v in decided):
        for world in dict.fromkeys(v.world for v in decided if v.question == question):
            said.append(
                _sentence([v for v in decided if (v.question, v.world) == (question, world)])
            )
    for world in results.settings.worlds:
        said += list(_structure(results, world))
    return said


def _sentence(own: Sequence[Verdict]) -> str:
    """A question's answers on one toy, arms of one outcome together, with their mean gains."""
    bases, scores = ({getattr(v, name) for v in own} for name in ("base", "metric"))
    shared = [own[0].metric] * (len(scores) == 1)
    shared += [f"against {label(own[0].base)}"] * (len(bases) == 1)
    parts = []
    for outcome in dict.fromkeys(v.outcome for v in own):
        arms = [_arm(v, len(bases) > 1, len(scores) > 1) for v in own if v.outcome == outcome]
        parts.append(f"{outcome}: {', '.join(arms)}")
    about = "; ".join([own[0].world, *shared])
    return f"**{own[0].question}** ({about}) {'; '.join(parts)}."


def _arm(v: Verdict, based: bool, scored: bool) -> str:
    name = label(v.arm) + f" against {label(v.base)}" * based + f" in {v.metric}" * scored
    return f"{name} ({'no value' if v.gain is None else number(v.gain.mean)})"


READ = {
    "fine_blocks": ("Blocks", "above"),
    "nested": ("Nestedness", "above"),
    "recruited": ("Recruitment", "below"),
}


def _structure(results: Results, world: str) -> Iterator[str]:
    for column, (name, side) in READ.items():
        shown, not_shown = [], []
        for arm in dict.fromkeys(row["arm"] for row in results.rows if row["world"] == world):
            rows = results.of(world, arm)
            if column in rows[0]:
                known = [row[column] for row in rows if row[column]]
                every = len(known) == len(rows) and all(_on_side(k, side) for k in known)
                (shown if every else not_shown).append(label(arm))
        if shown or not_shown:
            rest = f"; not of {', '.join(not_shown)}" if not_shown else ""
            what = f"of {', '.join(shown)}" if shown else "of no arm"
            yield f"**{name}** ({world}) {side} the null in every seed {what}{rest}."


def _on_side(found: Mapping, side: str) -> bool:
    return beyond(found) and (found["value"] > found["null_mean"]) == (side == "above")
