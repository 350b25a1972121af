"""What is told of the ablations: their differences to the recipe."""

from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

from toys.reproduce.flat_matched import over_seeds
from toys.reproduce.recovery_ablations import ABLATIONS, ONE_NOISE
from toys.reproduce.recovery_figures import Drawn, write
from toys.reproduce.recovery_findings import RULE, all_three
from toys.reproduce.recovery_results import Results, differences, mean
from toys.reproduce.recovery_synthetic import SLAB, STILL
from toys.reproduce.recovery_tables import COLUMNS
from toys.reproduce.tables import Cell, Table, number

NAMES = {SLAB: "the recipe", STILL: "no moves"} | {n: a.label for n, a in ABLATIONS.items()}
METRICS = ("mcc", "f1", "share")
SHOWN = ("mcc", "chance", "f1", "share", "l0", "f1_trimmed")
COLOUR, BASE = "#1565c0", "#c62828"


def by_arm(results: Results) -> dict[str, list]:
    """The finished models, in order of seeds, the recipe first."""
    rows = [row for row in results.parts["ablations"].rows if row["failed"] is None]
    found = {
        name: sorted((r for r in rows if r["arm"] == name), key=lambda row: row["seed"])
        for name in NAMES
    }
    return {name: of for name, of in found.items() if of}


def ablation_findings(results: Results) -> Iterator[str]:
    """Each ablation against the recipe, of the seeds that both have."""
    yield RULE
    found = by_arm(results)
    whole = found.get(SLAB, [])
    for name, rows in found.items():
        if name != SLAB and differences(rows, whole, "mcc"):
            floor = f", floors × {number(rows[0]['strength'])}" if name == ONE_NOISE else ""
            yield (
                f"{NAMES[name][0].upper()}{NAMES[name][1:]}{floor} (L0 {mean(rows, 'l0')}), "
                f"against the recipe (L0 {mean(whole, 'l0')}): {all_three(rows, whole)}; F1 "
                f"at L0 = 5 {mean(rows, 'f1_trimmed')} against {mean(whole, 'f1_trimmed')}."
            )


def ablation_tables(results: Results) -> dict[str, Table]:
    """Every ablation, means over seeds; and the floors that were tried."""
    found, lines = by_arm(results), []
    whole = found.get(SLAB, [])
    for name, rows in found.items():
        line: dict[str, Cell] = {"what is left": NAMES[name], "seeds": len(rows)}
        line |= {COLUMNS[c]: mean(rows, c) for c in SHOWN}
        for level in rows[0]["levels"]:
            line[f"{level}: share > 0.9"] = mean(rows, "levels", level, "share")
        for metric in METRICS[:2]:
            gains = differences(rows, whole, metric)
            if name != SLAB and gains:
                line[f"{COLUMNS[metric]} − recipe"] = over_seeds(gains)
        lines.append(line | {"rows seen": rows[0]["seen"], "s": mean(rows, "seconds")})
    floors: list[dict[str, Cell]] = [
        {"floors ×": row["strength"]}
        | {COLUMNS[c]: row.get(c) for c in ("mcc", "f1", "l0")}
        | {"failed": row["failed"]}
        for row in results.parts["ablations"].searched
    ]
    return {
        "ablations": Table("Data A, the recipe without some of its beliefs", lines),
        "floors": Table("One noise for all rows: its floors, on the choosing seed", floors),
    }


def draw_ablations(results: Results, folder: Path) -> list[Path]:
    """The figure; its path."""
    return [write(folder, "ablations", ablation_figure(results))]


def ablation_figure(results: Results) -> Drawn:
    """A dot a seed, and the mean; the line is the recipe's mean."""
    found, shown = by_arm(results), {}
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    for axis, metric in zip(figure.subplots(1, len(METRICS), sharey=True), METRICS, strict=True):
        for place, (name, rows) in enumerate(found.items()):
            values = [row[metric] for row in rows]
            centre, colour = sum(values) / len(values), BASE if name == SLAB else COLOUR
            axis.plot(values, [place] * len(values), ".", color="0.55", ms=6)
            axis.plot(centre, place, "|", color=colour, ms=18, mew=3)
            shown.setdefault(NAMES[name], {})[COLUMNS[metric]] = values
            if name == SLAB:
                axis.axvline(centre, color=BASE, linewidth=0.8, linestyle=":")
        axis.set_yticks(range(len(found)), [NAMES[name] for name in found])
        axis.set_title(COLUMNS[metric])
        axis.grid(axis="x", linewidth=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_ylim(max(len(found), 1) - 0.5, -0.5)
    figure.suptitle("Data A, the recipe and what is left of it: a dot is a seed, a bar the mean")
    return figure, shown
