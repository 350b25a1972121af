"""The bars of the stories: ours against BatchTopK at L0 12, on every layer."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

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
    by_length,
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
    """Three, each to be met on every layer."""
    found = curves(results)
    if not any(line.name == OURS for line in found):
        return []
    layers = results.settings.layers
    each = {layer: at_layer(found, stable, layer) for layer in layers}
    text = "; ".join(f"layer {layer}: {known or 'no common L0'}" for layer, known in each.items())
    rules = {
        "unexplained variance": f"mean ≤ {LESS:g} times that of the better start of BatchTopK",
        "CE recovered": "higher mean than BatchTopK's",
        "found again": f"≥ {AGAIN:g} of atoms in another seed",
    }
    bars = []
    for name, rule in rules.items():
        met = sum(known is not None and known.met[name] for known in each.values())
        bars.append(
            Bar(
                f"Stories, L0 {AT:g}, {name}",
                f"the recommended recipe, on every layer: {rule}",
                f"{met} of {len(layers)} layers" + (f"; {text}" if not bars else ""),
                met == len(layers),
            )
        )
    return bars


@dataclass(frozen=True)
class Standing:
    """The recommended recipe against BatchTopK on one layer.

    Args:
        ratio: Of unexplained variance, ours to theirs.
        gain: Of CE recovered.
        again: Share of our atoms that another seed finds, at that L0; and theirs; and that of two
            draws of data points.
    """

    ratio: Interval
    gain: Interval
    again: tuple[float | None, float | None, float | None]

    @property
    def met(self) -> dict[str, bool]:
        """Which bars it is above."""
        ours = self.again[0]
        return {
            "unexplained variance": self.ratio.mean <= LESS,
            "CE recovered": self.gain.mean > 0,
            "found again": ours is not None and ours >= AGAIN,
        }

    def __str__(self) -> str:
        shares = ["none" if share is None else number(share) for share in self.again]
        return (
            f"unexplained × {self.ratio}, CE + {self.gain}, found again {shares[0]} (BatchTopK "
            f"{shares[1]}, random data points {shares[2]})"
        )


def at_layer(
    found: Mapping[Line, list[dict]], stable: Sequence[Mapping], layer: int
) -> Standing | None:
    """Nothing unless two seeds reach the L0 of the bar in both."""
    line, base = Line(layer, OURS, DATA), better_start(found, layer)
    ratios, gains = against(found.get(line, []), found.get(base, []))
    if base is None or len(ratios) < 2:
        return None
    again = stability_at(stable, line, AT), stability_at(stable, base, AT)
    control = next((entry["control"] for entry in stable if entry["line"] == line), None)
    return Standing(over_seeds(ratios), over_seeds(gains), (*again, control))


def against(ours: Sequence[Mapping], theirs: Sequence[Mapping]) -> tuple[list[float], list[float]]:
    """Ratio of unexplained variance and gain in CE recovered, of the seeds that reach it both."""
    ev, ce = ([by_seed(p, m, AT) for p in (ours, theirs)] for m in ("ev", "ce_recovered"))
    seeds = sorted(set(ev[0]) & set(ev[1]))
    ratios = [(1 - ev[0][seed]) / (1 - ev[1][seed]) for seed in seeds]
    return ratios, [ce[0][seed] - ce[1][seed] for seed in seeds]


def better_start(found: Mapping[Line, list[dict]], layer: int) -> Line | None:
    """BatchTopK's curve from the start that explains more."""
    lines = [o for o in found if o.layer == layer and o.name == NAMES["batch_topk"]]
    known = {line: value.mean for line in lines if (value := at(found[line], "ev"))}
    return max(known, key=lambda line: known[line], default=None)


def at(points: Sequence[Mapping], metric: str) -> Interval | None:
    """A metric at the L0 of the bar, over the seeds that reach it; nothing of fewer than two."""
    values = by_seed(points, metric, AT).values()
    return over_seeds([*values]) if len(values) > 1 else None


def lengths(results: Results) -> Iterator[str]:
    """Ours against BatchTopK of every length of training, on the layer in the middle."""
    found = by_length(results)
    ours = found.get((RECOMMENDED, 1.0), [])
    for (arm, length), points in found.items():
        ratios, gains = against(ours, points)
        if arm != RECOMMENDED and len(ratios) > 1:
            yield (
                f"Layer {results.settings.middle}, L0 {AT:g}, ours against BatchTopK trained "
                f"{length:g} times as long: unexplained variance × {over_seeds(ratios)}, CE "
                f"recovered + {over_seeds(gains)}."
            )


def story_findings(results: Results) -> Iterator[str]:
    """Which law the evidence prefers, layer by layer: each law at its better noise floor."""
    base, *others = LAWS
    for layer in sorted({at for at, _ in laws(results)}):
        gaps = {
            (one, other): advantage(results, one, other, layer)
            for one, other in permutations(LAWS, 2)
        }
        numbers = ", ".join(f"{n} − {base} {gaps[n, base]}" for n in others if gaps[n, base])
        yield (
            f"Evidence of amplitude laws, layer {layer}: {_preferred(gaps)} ({numbers} nats per "
            "row)."
        )


def _preferred(gaps: Mapping[tuple[str, str], Interval | None]) -> str:
    """The law that is ahead of all others; else those that none is ahead of, and those behind."""
    known = {pair: gap for pair, gap in gaps.items() if gap is not None}
    named = [law for law in LAWS if any(law in pair for pair in known)]
    ahead = {pair for pair, gap in known.items() if gap.low > 0}
    for law in named:
        if all((law, other) in ahead for other in named if other != law):
            return f"{law} preferred"
    behind = [law for law in named if any(loser == law for _, loser in ahead)]
    level = [law for law in named if law not in behind]
    if len(level) < 2 or not behind:
        return "undecided"
    return f"undecided between {_and(level)}; behind: {_and(behind)}"


def _and(names: Sequence[str]) -> str:
    return " and ".join(names)


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
