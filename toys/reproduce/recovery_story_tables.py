"""The stories' tables: frontiers at common L0, stability across seeds, evidence of laws."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from toys.reproduce.flat_matched import at_l0, over_seeds, points_of
from toys.reproduce.jobs import tensors_of
from toys.reproduce.recovery_recommended import RECOMMENDED
from toys.reproduce.recovery_results import Results, mean
from toys.reproduce.recovery_stories import CONTROLS, DATA, L1, data_points
from toys.reproduce.recovery_text import Reading, text
from toys.reproduce.tables import Cell, Interval, Table
from vsae import metrics
from vsae.errors import EmptyDataError

NAMES = {
    "batch_topk": "BatchTopK + AuxK",
    "matryoshka": "Matryoshka + AuxK",
    L1: "ours, ℓ1",
    RECOMMENDED: "ours, recommended",
}


@dataclass(frozen=True)
class Line:
    """A curve of fidelity against L0.

    Args:
        layer: Of the network.
        name: As people read it; ours begin with "ours".
        start: Where its atoms start.
    """

    layer: int
    name: str
    start: str


def finished(results: Results) -> list[Mapping]:
    """Every model on the stories that did not fail, of whatever length of training."""
    return [row for row in results.parts["stories"].rows if row["failed"] is None]


def models(results: Results) -> list[Mapping]:
    """Those of the usual length."""
    return [row for row in finished(results) if row["length"] == 1]


def slab_models(results: Results) -> list[Mapping]:
    """The slabs that followed an ℓ1 phase."""
    slabs = [slab for row in finished(results) for slab in row.get("slabs", [])]
    return [slab for slab in slabs if slab["failed"] is None]


def line_of(model: Mapping, how: str) -> Line:
    """The curve that a point of a model belongs to; of our ℓ1 phase each dictionary is one."""
    name = NAMES.get(model["arm"], "")
    if model["arm"] == L1:
        name = f"{name}, λ = {model['strength']:g}"
    name = f"{name}, {how}" if how == "refitted" else name
    return Line(model["layer"], name, model["start"])


def curves(results: Results) -> dict[Line, list[dict]]:
    """Points of every curve, with their seeds."""
    found: dict[Line, list[dict]] = {}
    for model in models(results):
        for point in model["points"]:
            line = line_of(model, point["how"])
            found.setdefault(line, []).append(point | {"seed": model["seed"], "failed": None})
    return dict(sorted(found.items(), key=lambda item: (item[0].layer, item[0].name)))


def by_seed(points: Sequence[Mapping], metric: str, l0: float) -> dict[int, float]:
    """A metric at an L0, of every seed whose own sweep reaches it."""
    found = {seed: at_l0(points_of(points, seed, metric), l0) for seed in seeds_of(points)}
    return {seed: value for seed, value in found.items() if value is not None}


def seeds_of(points: Sequence[Mapping]) -> list[int]:
    """The seeds that a curve has points of."""
    return sorted({point["seed"] for point in points})


def common_table(results: Results) -> Table:
    """Explained variance and CE recovered where the sweeps reach a common L0."""
    lines = []
    for line, points in curves(results).items():
        row: dict[str, Cell] = {"layer": line.layer, "arm": line.name, "atoms start at": line.start}
        row["seeds"] = len(seeds_of(points))
        for metric, name in (("ev", "EV"), ("ce_recovered", "CE recovered")):
            for l0 in results.settings.common:
                values = by_seed(points, metric, l0).values()
                row[f"{name}, L0 {l0:g}"] = over_seeds([*values]) if values else None
        lines.append(row)
    return Table(
        "Stories, held out: linear in log L0 inside each seed's sweep, of the seeds that reach it",
        lines,
    )


def by_length(results: Results) -> dict[tuple[str, float], list[dict]]:
    """Points of ours and of BatchTopK by length of training, on the layer in the middle."""
    found: dict[tuple[str, float], list[dict]] = {}
    for model in finished(results):
        wanted = (results.settings.middle, DATA) == (model["layer"], model["start"])
        if wanted and model["arm"] in ("batch_topk", RECOMMENDED):
            more = {name: model[name] for name in ("seed", "failed", "seen", "seconds")}
            points = [p | more for p in model["points"] if p["how"] == "as it is"]
            found.setdefault((model["arm"], model["length"]), []).extend(points)
    return dict(sorted(found.items()))


def lengths_table(results: Results, l0: float) -> Table:
    """What more rows, or fewer, are worth: one layer, at one L0."""
    lines = []
    for (arm, _), points in by_length(results).items():
        line: dict[str, Cell] = {"arm": NAMES[arm], "rows seen": points[0]["seen"]}
        line["CPU s, mean"] = mean(points, "seconds")
        for metric, name in (("ev", "EV"), ("ce_recovered", "CE recovered")):
            values = by_seed(points, metric, l0)
            line["seeds"] = len(values)
            line[f"{name}, L0 {l0:g}"] = over_seeds([*values.values()]) if values else None
        lines.append(line)
    return Table(f"Stories, layer {results.settings.middle}: training for longer, or less", lines)


def dictionaries(results: Results) -> dict[tuple, list[Mapping]]:
    """Models that differ in their seed alone."""

    def key(model: Mapping) -> tuple:
        parts = ("layer", "arm", "start", "law", "strength")
        return tuple(str(model[part]) for part in parts)

    ordered = sorted(models(results), key=key)
    return {name: list(group) for name, group in groupby(ordered, key)}


def stability(results: Results) -> list[dict]:
    """Per dictionary, over seeds: the share of atoms found again, and that of data points."""
    found = []
    for group in dictionaries(results).values():
        runs = [tensors_of(model)[model["tensor"]] for model in group]
        first = group[0]
        reading = Reading(layer=first["layer"], stories=results.settings.stories)
        controls = [
            data_points(text(reading), len(runs[0]), CONTROLS + model["seed"]) for model in group
        ]
        try:
            shares = metrics.seed_stability(runs, controls)
        except EmptyDataError:  # one seed
            continue
        found.append(
            {
                "line": line_of(first, "as it is"),
                "strength": first["strength"],
                "l0": mean(group, "points", 0, "l0"),
                "dead": mean(group, "dead"),
                "best": shares.best,
                "one_to_one": shares.one_to_one,
                "control": shares.control_best,
                "chance": shares.chance,
            }
        )
    return found


def stability_table(found: Sequence[Mapping]) -> Table:
    """How much of a dictionary another seed finds."""
    lines = []
    for entry in found:
        line: dict[str, Cell] = {"layer": entry["line"].layer, "arm": entry["line"].name}
        line |= {"atoms start at": entry["line"].start, "strength": entry["strength"]}
        line |= {"L0": entry["l0"], "dead, %": entry["dead"], "found again": entry["best"]}
        line |= {"one to one": entry["one_to_one"], "random data points": entry["control"]}
        lines.append(line | {"random directions": entry["chance"]})
    return Table("Stories: share of atoms with a partner above cosine 0.9 in another seed", lines)


def stability_at(found: Sequence[Mapping], line: Line, l0: float) -> float | None:
    """Of a curve, at an L0: linear in log L0 between its dictionaries."""
    plain = Line(line.layer, line.name.removesuffix(", refitted"), line.start)
    points = [(entry["l0"].mean, entry["best"]) for entry in found if entry["line"] == plain]
    if len(points) == 1 and "λ" in plain.name:  # one dictionary, whatever k is
        return points[0][1]
    return at_l0(points, l0)


def laws(results: Results) -> dict[tuple[int, float], dict[str, list[Mapping]]]:
    """Slabs by layer and noise, then by law."""
    found: dict[tuple[int, float], dict[str, list[Mapping]]] = {}
    for model in slab_models(results):
        key = (model["layer"], model["strength"])
        found.setdefault(key, {}).setdefault(model["law"], []).append(model)
    return found


def laws_table(results: Results) -> Table:
    """Held-out evidence of amplitude laws."""
    lines = []
    for (layer, noise), by_law in sorted(laws(results).items()):
        for law, group in by_law.items():
            line: dict[str, Cell] = {"layer": layer, "floor of σ": noise, "law": law}
            line["bound on log evidence"] = mean(group, "evidence")
            line["σ of the bound"] = mean(group, "sigma")
            line |= {
                "L0": mean(group, "l0"),
                "dead, %": mean(group, "dead"),
            }
            lines.append(line | {"EV": mean(group, "ev")})
    return Table("Amplitude laws: nats per held-out row, raw activations", lines)


def best_evidence(group: Sequence[Mapping]) -> dict[int, float]:
    """Per seed, the greatest bound over noises."""
    found: dict[int, float] = {}
    for model in group:
        found[model["seed"]] = max(found.get(model["seed"], -1e30), model["evidence"])
    return found


def advantage(results: Results, one: str, other: str, layer: int) -> Interval | None:
    """By how many nats a law's best bound is above another's, over seeds."""
    by_law = [
        best_evidence(
            [m for (at, _), g in laws(results).items() if at == layer for m in g.get(law, [])]
        )
        for law in (one, other)
    ]
    gains = [by_law[0][seed] - by_law[1][seed] for seed in by_law[0] if seed in by_law[1]]
    return over_seeds(gains) if gains else None
