"""The tables of ``modadd``: the networks, and one table per score, arms down and streams across."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from toys.reproduce.flat_matched import over_seeds
from toys.reproduce.recovery_modadd import CHANCE
from toys.reproduce.recovery_modadd_arms import ARMS, FOUND, TRUE
from toys.reproduce.recovery_results import Results
from toys.reproduce.tables import Cell, Interval, Table

OWN = {
    "planarity": "Where latents lie: mean share of an atom's squared norm in its best plane",
    "in_plane": "Share of latents with more than 0.9 of the squared norm in one plane",
    "planes_found": "Planes found: share that latents inside them surround",
    "blocks": "Blocks: ARI of clusters of co-firing and of best planes; ARI, random labels 0",
    "ring": "Rings: r of code correlation and cosine of angle, latents of one plane",
    "ring_dealt": "Rings, control: the same with angles dealt to other latents of the plane",
    "accuracy": "Accuracy of the network on reconstructions of its last layer, all inputs",
    "l0": "L0",
    "ev": "Explained variance, held out",
}
"""Scores from an arm's own start, and the titles of their tables."""
KEPT = {
    "in_plane": "Started at the true rings: share of latents still inside a plane",
    "elbo": "Started at the true rings: ELBO, nats per held-out row, less that from the ℓ1 run",
    "l0": "Started at the true rings: L0",
}


@dataclass(frozen=True)
class Line:
    """Models that differ in their seed alone.

    Args:
        arm: Its name.
        start: Where they started; of chance what they are.
        strength: Of the arm's knob.
    """

    arm: str
    start: str
    strength: float | None

    @property
    def label(self) -> str:
        """As people read it."""
        return self.start if self.arm == CHANCE else f"{ARMS[self.arm][0]} = {self.strength:g}"


Column = tuple[str, str]
"""Network and stream."""
Found = dict[Column, dict[Line, list[Mapping]]]


def lines(results: Results, *, longer: bool = False) -> Found:
    """By stream the models of each line, in order of seeds."""
    found: Found = {}
    for row in results.parts["modadd"].rows:
        if (row["updates"] != results.settings.modadd.dense_steps) != longer:
            continue
        place = found.setdefault((row["network"], row["stream"]), {})
        for model in sorted(row["models"], key=lambda model: model["seed"]):
            line = Line(row["arm"], model["start"], model["strength"])
            place.setdefault(line, []).append(model)
    return found


def values(models: Sequence[Mapping], metric: str) -> list[float]:
    """Of the models that have one."""
    return [model[metric] for model in models if model.get(metric) is not None]


def network_table(results: Results) -> Table:
    """What is known of the networks."""
    rows: list[dict[str, Cell]] = []
    for row in results.parts["modadd"].rows:
        if row["arm"] == CHANCE and row["failed"] is None:
            known = row["facts"]
            line: dict[str, Cell] = {"network": row["network"], "stream": row["stream"]}
            line["accuracy of the network"] = known["accuracy"]
            line["key frequencies"] = ", ".join(map(str, known["frequencies"]))
            line["their share of the Fourier power"] = known["power"]
            line["variance of the stream in their planes"] = known["explained"]
            rows.append(line | {"greatest cosine between planes": known["overlap"]})
    return Table("Networks that add modulo 59, and the planes of their streams", rows)


def score_table(found: Found, metric: str, title: str, *, true: bool = False) -> Table:
    """One score: a row per line, a column per stream."""
    known = dict.fromkeys(line for by_line in found.values() for line in by_line)
    rows = []
    for line in known:
        if (line.start == TRUE) != true:
            continue
        cells = {
            f"{network}, {stream}": cell(by_line, line, metric)
            for (network, stream), by_line in found.items()
        }
        if any(value is not None for value in cells.values()):
            rows.append({"arm": line.label, "rows seen": rows_seen(found, line)} | cells)
    return Table(title, rows)


def rows_seen(found: Found, line: Line) -> int | None:
    """By a model and by what it went on from; nothing of what was not trained."""
    models = next(by_line[line] for by_line in found.values() if line in by_line)
    return models[0].get("seen")


def cell(by_line: Mapping[Line, Sequence[Mapping]], line: Line, metric: str) -> Interval | None:
    """Over seeds; of the ELBO from the true rings the gain on the other start."""
    own = by_line.get(line, [])
    if metric == "elbo":
        other = by_line.get(Line(line.arm, FOUND, line.strength), [])
        gains = gaps(own, other, metric)
        return over_seeds(gains) if gains else None
    return over_seeds(known) if (known := values(own, metric)) else None


def gaps(one: Sequence[Mapping], other: Sequence[Mapping], metric: str) -> list[float]:
    """Differences of a metric, seed by seed, where both have it."""
    theirs = {model["seed"]: model.get(metric) for model in other}
    return [
        model[metric] - theirs[model["seed"]]
        for model in one
        if model.get(metric) is not None and theirs.get(model["seed"]) is not None
    ]


def modadd_tables(results: Results) -> dict[str, Table]:
    """By the stem of their files."""
    found = lines(results)
    tables = {"modadd_networks": network_table(results)}
    for metric, title in OWN.items():
        tables[f"modadd_{metric}"] = score_table(found, metric, title)
    for metric, title in KEPT.items():
        tables[f"modadd_true_{metric}"] = score_table(found, metric, title, true=True)
    long, steps = lines(results, longer=True), results.settings.modadd.long_steps
    for metric in ("planarity", "blocks", "l0"):
        title = f"{OWN[metric].split(':')[0]} after {steps} updates"
        tables[f"modadd_long_{metric}"] = score_table(long, metric, title)
    return tables
