"""Part 1's figures: PNG, with the numbers they show beside them under the same stem."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toys.reproduce import part1_document as document
from toys.reproduce.arguments import write_json
from toys.reproduce.part1_arms import ARMS
from toys.reproduce.part1_runs import SHOWN, problem
from toys.reproduce.part1_tables import FAMILY, label, level, select

PATTERNS = {
    "case1": "independent,\nvariances 1 : 0.2",
    "case4": "anti-correlated pairs",
    "case5": "correlated groups and\nanti-correlated pairs",
    "case6": "correlation matrix",
}
ROWS = ("l1", "isotropic", "graph")
COLOURS = dict(zip(ARMS, matplotlib.colormaps["tab20"].colors, strict=False))
BARS = {"mse": "MSE per neuron", "l0": "L0 (active of 32)", "mcc": "MCC"}


def draw_all(rows: Sequence[dict], folder: Path) -> list[Path]:
    """Every figure of a run; returns the PNGs."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for data in dict.fromkeys(row["data"] for row in rows):
        found = select(rows, data=data)
        paths.append(save(*bars(found, data), folder / f"arms_{data}.png"))
        paths.append(save(*reconstructions(found, data), folder / f"reconstructions_{data}.png"))
    return paths


def save(figure: Figure, shown: dict, path: Path) -> Path:
    """The figure as PNG and what it shows as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    write_json(path.with_suffix(".json"), shown)
    return path


def bars(rows: Sequence[dict], data: str) -> tuple[Figure, dict]:
    """MSE, L0 and MCC of every arm in every case, with intervals; the printed values as marks."""
    cases = list(dict.fromkeys(row["case"] for row in rows))
    runs = list(dict.fromkeys((row["arm"], row["strength"]) for row in rows))
    figure = Figure(figsize=(12, 9), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True)
    shown = {"data": data, "cases": cases, "arms": {label(*run): {} for run in runs}}
    width = 0.85 / len(runs)
    for number, (arm, strength) in enumerate(runs):
        found = select(rows, arm=arm, strength=strength)
        places = np.arange(len(cases)) + (number - (len(runs) - 1) / 2) * width
        for axis, metric in zip(axes, BARS, strict=True):
            cells = [level(select(found, case=case), metric) for case in cases]
            heights = {"mean": [c.mean for c in cells], "ci95": [c.half_width or 0 for c in cells]}
            shown["arms"][label(arm, strength)][metric] = heights
            _bar(axis, places, width, heights, (arm, strength))
    for axis, metric in zip(axes[:2], ("mse", "l0"), strict=True):  # wide intervals are cut off
        tallest = max(max(arm[metric]["mean"]) for arm in shown["arms"].values())
        axis.set_ylim(0, 1.2 * tallest)
        _printed(axis, cases, metric)
    shown["chance"] = _chance(axes[2], rows, cases)
    for axis, title in zip(axes, BARS.values(), strict=True):
        axis.set_ylabel(title)
        axis.spines[["top", "right"]].set_visible(False)
    axes[2].set_xticks(range(len(cases)), [case.replace("case", "case ") for case in cases])
    legends = [axis.get_legend_handles_labels() for axis in (axes[0], axes[2])]
    entries = {
        name: mark for marks, names in legends for mark, name in zip(marks, names, strict=True)
    }
    figure.legend(
        entries.values(), entries, loc="outside lower center", ncols=3, frameon=False, fontsize=9
    )
    figure.suptitle(f"Part 1, {FAMILY[data]}: mean and 95 % interval over seeds")
    return figure, shown


def _bar(axis: Axes, places: np.ndarray, width: float, heights: dict, run: tuple) -> None:
    arm, strength = run
    axis.bar(
        places,
        heights["mean"],
        width,
        yerr=heights["ci95"],
        label=label(arm, strength),
        color=COLOURS[arm],
        hatch=None if strength == ARMS[arm].strength else "////",
        edgecolor="white",
        linewidth=0.3,
        error_kw={"elinewidth": 0.8},
    )


def _printed(axis: Axes, cases: Sequence[str], metric: str) -> None:
    marks = (("sae", "o"), ("vae", "D"))
    for who, marker in marks:
        heights = [getattr(document.TABLE[case], f"{who}_{metric}") for case in cases]
        axis.plot(
            np.arange(len(cases)) - 0.45,
            heights,
            marker,
            color="black",
            markersize=4,
            fillstyle="none",
            label=f"printed in document A: {who.upper()}",
        )


def _chance(axis: Axes, rows: Sequence[dict], cases: Sequence[str]) -> list[float]:
    first = select(rows, arm=rows[0]["arm"], strength=rows[0]["strength"])
    levels = [level(select(first, case=case), "mcc_chance").mean for case in cases]
    for place, height in enumerate(levels):
        axis.hlines(height, place - 0.45, place + 0.45, "black", "dashed", label="MCC by chance")
    axis.set_ylim(0, 1.02)
    return levels


def reconstructions(rows: Sequence[dict], data: str) -> tuple[Figure, dict]:
    """Document A's figure 3.5: the truth as concept and as sampled rows, then reconstructions."""
    seed = rows[0]["seed"]
    figure = Figure(figsize=(11, 11.5), layout="constrained")
    axes = figure.subplots(2 + len(ROWS), len(PATTERNS))
    shown = {"data": data, "seed": seed, "cases": {}}
    for column, (case, title) in zip(axes.T, PATTERNS.items(), strict=True):
        truth = problem(data, case, seed)
        x = truth.test[:SHOWN].numpy()
        concept = truth.toy.correlation.numpy()
        found = {arm: _restored(rows, arm, case, seed) for arm in ROWS}
        shown["cases"][case] = {"correlation": concept.tolist(), "x": x.tolist()} | {
            arm: restored.tolist() for arm, restored in found.items()
        }
        column[0].set_title(title, fontsize=10)
        correlations = column[0].imshow(concept, cmap="RdBu_r", vmin=-1, vmax=1)
        limit = float(np.abs(x).max())
        for axis, values in zip(column[1:], (x, *found.values()), strict=True):
            vectors = axis.imshow(values, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto")
        for axis, restored in zip(column[2:], found.values(), strict=True):
            axis.set_xlabel(f"MSE of these rows {np.square(restored - x).mean():.4f}", fontsize=8)
        figure.colorbar(correlations, ax=column[0], shrink=0.8)
        figure.colorbar(vectors, ax=list(column[1:]), shrink=0.5)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    whose = {"gaussian": "of features", "copula": "of their copula"}[data]
    names = (f"truth: correlation\n{whose}", f"truth: {SHOWN} sampled\nactivations (rows)")
    for axis, name in zip(axes[:, 0], (*names, *map(_short, ROWS)), strict=True):
        axis.set_ylabel(name, fontsize=10)
    figure.suptitle(f"Reconstructions of held-out rows, seed {seed}: {FAMILY[data]}")
    return figure, shown


def _short(arm: str) -> str:
    return ARMS[arm].label.replace(", ", ",\n")


def _restored(rows: Sequence[dict], arm: str, case: str, seed: int) -> np.ndarray:
    chosen = select(rows, arm=arm, case=case, seed=seed, strength=ARMS[arm].strength)
    return np.array(chosen[0]["restored"])
