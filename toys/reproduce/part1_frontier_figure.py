"""The frontier: MSE against L0, one panel per case."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toys.reproduce.part1_arms import ARMS
from toys.reproduce.part1_figures import COLOURS, save
from toys.reproduce.part1_tables import FAMILY, level, select


def draw(rows: Sequence[dict], data: str, size: str, path: Path) -> Path:
    """A panel per case, a line per arm over its sweep, intervals both ways."""
    cases = list(dict.fromkeys(row["case"] for row in rows))
    columns = min(3, len(cases))
    height = -(-len(cases) // columns)
    figure = Figure(figsize=(4.3 * columns + 0.5, 3.4 * height + 1.4), layout="constrained")
    axes = figure.subplots(height, columns, squeeze=False)
    shown = {"data": data, "K": size, "cases": {}}
    for axis, case in zip(axes.flat, cases, strict=False):
        shown["cases"][case] = _panel(axis, select(rows, case=case))
        axis.set_title(case.replace("case", "case "), fontsize=10)
    for axis in axes[:, 0]:
        axis.set_ylabel("MSE per neuron")
    for axis in axes[-1]:
        axis.set_xlabel("L0: active latents per row")
    handles, names = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.suptitle(f"Frontier, {size}, {FAMILY[data]}: mean and 95 % interval over seeds")
    return save(figure, shown, path)


def _panel(axis: Axes, rows: Sequence[dict]) -> dict:
    shown = {}
    for arm in dict.fromkeys(row["arm"] for row in rows):
        points = []
        for strength in dict.fromkeys(row["strength"] for row in select(rows, arm=arm)):
            found = select(rows, arm=arm, strength=strength)
            l0, mse = level(found, "l0"), level(found, "mse")
            points.append(
                {"strength": strength, "l0": l0.mean, "l0_ci95": l0.half_width or 0.0}
                | {"mse": mse.mean, "mse_ci95": mse.half_width or 0.0}
            )
        shown[ARMS[arm].label] = points
        axis.errorbar(
            [p["l0"] for p in points],
            [p["mse"] for p in points],
            xerr=[p["l0_ci95"] for p in points],
            yerr=[p["mse_ci95"] for p in points],
            color=COLOURS[arm],
            label=ARMS[arm].label,
            marker="o" if arm == "l1" else ".",
            linewidth=1.6 if arm == "l1" else 1.0,
            elinewidth=0.6,
        )
    axis.set_yscale("log")
    axis.set_xlim(left=0)
    axis.spines[["top", "right"]].set_visible(False)
    return shown
