"""What the numbers of ``modadd`` say, by rules that were written before them."""

from collections.abc import Iterator, Mapping, Sequence

from toys.reproduce.flat_matched import Outcome, outcome, over_seeds
from toys.reproduce.recovery_modadd import CHANCE
from toys.reproduce.recovery_modadd_arms import FOUND, TRUE
from toys.reproduce.recovery_modadd_tables import Column, Found, Line, gaps, lines, values
from toys.reproduce.recovery_results import Results
from toys.reproduce.tables import Interval, number

BASE = Line(CHANCE, "random data points", None)
PAIRS = {"rings": "rings-shuffled", "blocks": "blocks-shuffled"}
SAME = 0.05  # relative difference up to which two L0 count as equal


def modadd_findings(results: Results) -> list[str]:
    """Sentences, each with its numbers."""
    found = lines(results)
    return [*decisive(found), *components(found), *structure(found, FOUND)]


def modadd_details(results: Results) -> list[str]:
    """More of them: arm by arm against chance, from the true rings, after more updates."""
    found = lines(results)
    said = [*above_chance(found), *structure(found, TRUE), *preferred(found)]
    steps = results.settings.modadd.long_steps
    longer = lines(results, longer=True)
    return [*said, *(f"After {steps} updates: {text}" for text in structure(longer, FOUND))]


def decisive(found: Found) -> Iterator[str]:
    """Which score decides, and what the others are without any training."""
    untrained = [
        [v for by_line in found.values() for v in values(by_line.get(BASE, []), metric)]
        for metric in ("blocks", "ring")
    ]
    if all(untrained):
        blocks, ring = (number(sum(known) / len(known)) for known in untrained)
        yield (
            "modadd: planarity is the score that decides. Latents whose atoms lie near one plane "
            "fire together whatever they are: untrained random data points, codes relu(atom · x), "
            f"have blocks {blocks} and ring {ring}, means over streams."
        )


def above_chance(found: Found) -> Iterator[str]:
    """Every arm from its own start against random data points."""
    for line in own_lines(found):
        said = sort_out(found, line, BASE, "planarity")
        whole = [
            v for by_line in found.values() for v in values(by_line.get(line, []), "planes_found")
        ]
        if whole:
            yield (
                f"modadd, {line.label}, planarity against random data points: {told(said)}; planes "
                f"found, the most of any stream and seed: {number(max(whole))}."
            )


def own_lines(found: Found) -> list[Line]:
    """Lines of trained models that were not told the truth by their start."""
    known = dict.fromkeys(line for by_line in found.values() for line in by_line)
    return [line for line in known if line.arm != CHANCE and line.start != TRUE]


def components(found: Found) -> Iterator[str]:
    """How many planes principal components are in."""
    cells = []
    for column, by_line in found.items():
        line = next((o for o in by_line if o.start.startswith("principal")), None)
        if line is not None:
            shares = values(by_line[line], "planes_found")
            cells.append(f"{named(column)} {number(shares[0])}")
    if cells:
        yield f"modadd, planes found by principal components: {'; '.join(cells)}."


def structure(found: Found, start: str) -> Iterator[str]:
    """True structure against the same structure of other latents."""
    for arm, control in PAIRS.items():
        for line in [o for o in known_lines(found) if o.arm == arm and o.start == start]:
            other = Line(control, start, line.strength)
            for metric in ("planarity", "blocks"):
                said = sort_out(found, line, other, metric)
                fair = {c: gain for c, gain in said.items() if alike(found[c], line, other)}
                if said:
                    yield (
                        f"modadd, {line.label}, from {start}, against shuffled, {metric}: "
                        f"{told(fair) if fair else 'not decided'}; {len(said) - len(fair)} of "
                        f"{len(said)} streams left out, L0 not within {100 * SAME:g} %."
                    )


def known_lines(found: Found) -> list[Line]:
    """All of them, each once."""
    return list(dict.fromkeys(line for by_line in found.values() for line in by_line))


def preferred(found: Found) -> Iterator[str]:
    """Whether the objective is higher at what training makes of the truth."""
    for line in [o for o in known_lines(found) if o.start == TRUE]:
        other = Line(line.arm, FOUND, line.strength)
        said = sort_out(found, line, other, "elbo")
        stays = [v for by_line in found.values() for v in values(by_line.get(line, []), "in_plane")]
        if said and stays:
            yield (
                f"modadd, {line.label}, started at the true rings: "
                f"{over_seeds(stays).mean:.2f} of latents still inside a plane; ELBO against that "
                f"from the ℓ1 run: {told(said)}."
            )


def sort_out(found: Found, one: Line, other: Line, metric: str) -> dict[Column, Interval]:
    """By stream the interval of the difference."""
    said = {}
    for column, by_line in found.items():
        gains = gaps(by_line.get(one, []), by_line.get(other, []), metric)
        if gains:
            said[column] = over_seeds(gains)
    return said


def told(said: Mapping[Column, Interval]) -> str:
    """On how many streams better and worse, and the mean difference."""
    ends = [outcome(gain) for gain in said.values()]
    better, worse = (ends.count(end) for end in (Outcome.BETTER, Outcome.WORSE))
    average = sum(gain.mean for gain in said.values()) / len(said)
    least = min(said, key=lambda column: said[column].mean)
    return (
        f"better on {better}, worse on {worse} of {len(said)} streams, mean {number(average)}, "
        f"least {number(said[least].mean)} ({named(least)})"
    )


def alike(by_line: Mapping[Line, Sequence[Mapping]], one: Line, other: Line) -> bool:
    """Whether two lines of a stream have the same mean L0."""
    own, theirs = (mean(by_line[line]) for line in (one, other))
    return abs(own - theirs) <= SAME * theirs


def mean(models: Sequence[Mapping]) -> float:
    """Of L0."""
    return over_seeds(values(models, "l0")).mean


def named(column: Column) -> str:
    """A stream as people read it."""
    return ", ".join(column)
