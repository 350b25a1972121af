"""What is told of structure between gates that is known."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toys.reproduce.flat_matched import over_seeds
from toys.reproduce.recovery_figures import Drawn, write
from toys.reproduce.recovery_findings import RULE, all_three
from toys.reproduce.recovery_gates import FROM_L1, FROM_SLAB
from toys.reproduce.recovery_results import Results, differences, mean
from toys.reproduce.recovery_tables import COLUMNS
from toys.reproduce.tables import Cell, Table

GATES = """\
Where features are known to fire in pairs, blocks or trees, gates are told so: couplings are
the log-lifts of true firings times {gate_strength}, trees are the true ones. *From ℓ1*: they are
given to the latents that the ℓ1 phase found, and the slab trains under them, without moves, which
would change what a latent is; learned couplings are those of Data A. *From the slab*: given to the
latents that slab and moves found, after which all go on for {gate_later:g} times the rows of the
slab, at rates and sizes of their own. A latent stands for a feature from a cosine of {near:g} on.
*Shuffled* is the same structure of other latents. Edges are those of
latents matched to features (cosine above 0.7), of learned couplings, else of what fires together;
blocks are what positive edges connect, their index is 1 if found and 0 by chance."""

SHOWN = ("mcc", "share", "f1", "l0")
EDGES = {"together": ("precision", "recall"), "exclusive": ("precision", "recall")}
AGAINST = {
    "true": ("none", "true, shuffled"),
    "learned": ("none", "learned, shuffled"),
}
STARTS = (FROM_L1, FROM_SLAB)
PANELS = ("share", "f1")
COLOURS = {FROM_L1: "#1565c0", FROM_SLAB: "#c62828"}

Grouped = Mapping[tuple[str, str, str], list[dict]]
"""Models by case, start and structure, in order of seeds."""


def by_structure(results: Results) -> Grouped:
    """The finished models; a draw of which one failed is left out."""
    found: dict[tuple[str, str, str], list[dict]] = {}
    rows = [row for row in results.parts["gates"].rows if row["failed"] is None]
    for row in sorted(rows, key=lambda row: row["seed"]):
        for model in row["models"]:
            key = row["case"], row["start"], model["structure"]
            found.setdefault(key, []).append(model | {"seed": row["seed"]})
    return found


def gates_findings(results: Results) -> Iterator[str]:
    """Structure against none and against the same of other latents, case by case."""
    yield RULE
    found = by_structure(results)
    for (case, start, structure), models in found.items():
        for other in AGAINST.get(structure, ()):
            theirs = found.get((case, start, other), [])
            if differences(models, theirs, "mcc"):
                yield f"{case}, {start}, {structure} against {other}: {all_three(models, theirs)}."


def gates_tables(results: Results) -> dict[str, Table]:
    """A line per case, start and structure."""
    lines = []
    found = by_structure(results)
    for (case, start, structure), models in found.items():
        line: dict[str, Cell] = {"case": case, "told": start, "structure": structure}
        line |= {"seeds": len(models)} | {COLUMNS[c]: mean(models, c) for c in SHOWN}
        gains = differences(models, found.get((case, start, "none"), []), "f1")
        if structure != "none" and gains:
            line["F1 − none"] = over_seeds(gains)
        for kind, names in EDGES.items():
            for name in names:
                line[f"{kind}: {name}"] = mean(models, "edges", kind, name)
        lines.append(line | {"blocks": mean(models, "blocks")})
    return {"gates": Table("Structure of gates that is known", lines)}


def draw_gates(results: Results, folder: Path) -> list[Path]:
    """The figure; its path."""
    return [write(folder, "gates", gates_figure(results))]


def gates_figure(results: Results) -> Drawn:
    """A dot a seed and a bar the mean: what is found and what fires, by structure."""
    found = by_structure(results)
    cases = list(dict.fromkeys(case for case, _, _ in found))
    figure = Figure(figsize=(4.2 + 2.4 * len(cases), 7), layout="constrained")
    axes = figure.subplots(len(PANELS), max(len(cases), 1), sharey="row", squeeze=False)
    shown: dict[str, dict] = {}
    for row, metric in zip(axes, PANELS, strict=True):
        row[0].set_ylabel(COLUMNS[metric])
        for axis, case in zip(row, cases, strict=False):
            shown.setdefault(case, {})[COLUMNS[metric]] = _panel(axis, found, case, metric)
            axis.set_title(case)
    for start in STARTS:
        axes[0, -1].plot([], [], "o", color=COLOURS[start], label=f"told {start}")
    axes[0, -1].legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8, frameon=False)
    return figure, shown


def _panel(axis: Axes, found: Grouped, case: str, metric: str) -> dict[str, list[float]]:
    keys = [key for start in STARTS for key in found if key[:2] == (case, start)]
    shown = {}
    for place, (_, start, structure) in enumerate(keys):
        values = [model[metric] for model in found[case, start, structure]]
        axis.plot([place] * len(values), values, ".", color="0.55", ms=6)
        axis.plot(place, sum(values) / len(values), "_", color=COLOURS[start], ms=16, mew=3)
        shown[f"{structure}, {start}"] = values
    axis.set_xticks(range(len(keys)), [key[2] for key in keys], rotation=90, fontsize=8)
    axis.grid(axis="y", linewidth=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    return shown
