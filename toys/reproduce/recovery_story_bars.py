"""The bars of the stories: ours against BatchTopK at L0 12, on every layer."""

from collections.abc import Iterator, Mapping, Sequence

from toys.reproduce.flat_matched import over_seeds
from toys.reproduce.recovery_bars import Bar
from toys.reproduce.recovery_laws import LAWS
from toys.reproduce.recovery_recommended import RECOMMENDED
from toys.reproduce.recovery_results import Results
from toys.reproduce.recovery_stories import DATA
from toys.reproduce.recovery_story_tables import (
    NAMES,
    Line,
    advantage,
    by_seed,
    curves,
    laws,
    stability_at,
)
from toys.reproduce.tables import Interval, number

OURS = NAMES[RECOMMENDED]
AT = 12.0  # the L0
LESS = 0.6  # of BatchTopK's unexplained variance
AGAIN = 0.5  # of the atoms, in another seed


def story_bars(results: Results, stable: Sequence[Mapping]) -> list[Bar]:
    """The recommended recipe has to be above all three, on every layer."""
    found = curves(results)
    if not any(line.name == OURS for line in found):
        return []
    above, text = verdict(results, found, stable, OURS)
    layers = len(results.settings.layers)
    return [
        Bar(
            f"Stories, L0 {AT:g}",
            f"the recommended recipe, on every layer: mean unexplained variance ≤ {LESS:g} times "
            f"that of the better start of BatchTopK, higher mean CE recovered, and ≥ {AGAIN:g} of "
            "atoms found again in another seed",
            f"{above} of {layers} layers; {text}",
            above == layers,
        )
    ]


def verdict(
    results: Results, found: Mapping[Line, list[dict]], stable: Sequence[Mapping], name: str
) -> tuple[int, str]:
    """On how many layers an arm is above all three, and its numbers."""
    above, parts = 0, []
    for layer in results.settings.layers:
        line = next((o for o in found if o == Line(layer, name, DATA)), None)
        theirs, ours = better_start(found, layer), level(found, line)
        if line is None or ours is None or theirs is None:
            parts.append(f"layer {layer}: no common L0")
            continue
        less, gain = (1 - ours[0]) / (1 - theirs[0]), ours[1] - theirs[1]
        again = stability_at(stable, line, AT)
        above += less <= LESS and gain > 0 and again is not None and again >= AGAIN
        share = "none" if again is None else number(again)
        parts.append(f"layer {layer}: × {number(less)}, CE {number(gain)}, again {share}")
    return above, "; ".join(parts)


def better_start(found: Mapping[Line, list[dict]], layer: int) -> tuple[float, float] | None:
    """BatchTopK's level from the start that explains more."""
    lines = [o for o in found if o.layer == layer and o.name == NAMES["batch_topk"]]
    return max((v for o in lines if (v := level(found, o))), default=None)


def level(found: Mapping[Line, list[dict]], line: Line | None) -> tuple[float, float] | None:
    """Mean EV and CE recovered at the L0 of the bar; nothing if a sweep does not reach it."""
    if line is None:
        return None
    ev, ce = (at(found[line], metric) for metric in ("ev", "ce_recovered"))
    return None if ev is None or ce is None else (ev.mean, ce.mean)


def at(points: Sequence[Mapping], metric: str) -> Interval | None:
    """A metric at the L0 of the bar, over the seeds that reach it; nothing of fewer than two."""
    values = by_seed(points, metric, AT).values()
    return over_seeds([*values]) if len(values) > 1 else None


def story_findings(results: Results) -> Iterator[str]:
    """Which law the evidence prefers, layer by layer: each law at its better noise."""
    names = list(LAWS)
    for layer in sorted({at for at, _ in laws(results)}):
        gaps = {
            (one, other): advantage(results, one, other, layer)
            for one in names
            for other in names
            if one != other
        }
        ahead = [
            name
            for name in names
            if all(gap is not None and gap.low > 0 for (one, _), gap in gaps.items() if one == name)
        ]
        said = f"{ahead[0]} preferred" if ahead else "undecided"
        base = names[0]
        numbers = ", ".join(
            f"{name} − {base} {gaps[name, base]}" for name in names[1:] if gaps[name, base]
        )
        yield f"Evidence of amplitude laws, layer {layer}: {said} ({numbers} nats per row)."


def starts(results: Results) -> Iterator[str]:
    """What the start is worth to BatchTopK, and to ours."""
    found = curves(results)
    for layer in results.settings.layers:
        for name in (NAMES["batch_topk"], NAMES["matryoshka"]):
            lines = [o for o in found if o.layer == layer and o.name == name]
            values = {o.start: at(found[o], "ev") for o in lines}
            text = "; ".join(f"from {start} {value}" for start, value in values.items() if value)
            if text:
                yield f"EV at L0 {AT:g}, layer {layer}, {name}: {text}."
