"""Figures of the synthetic parts, and the numbers behind each beside its PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from toys.reproduce.arguments import write_json
from toys.reproduce.html import DPI
from toys.reproduce.jobs import tensors_of
from toys.reproduce.recovery_arms import ARMS, COLOURS
from toys.reproduce.recovery_calibration import BINS, LEVELS
from toys.reproduce.recovery_data import Draw, problem
from toys.reproduce.recovery_plan import COVARIANCES, FAMILIES, latents_of
from toys.reproduce.recovery_results import LABELS, Results, label, mean
from toys.reproduce.recovery_structure import STRUCTURES
from toys.reproduce.recovery_synthetic import L1, SLAB
from toys.reproduce.recovery_tables import calibrated
from vsae import metrics

Drawn = tuple[Figure, dict]
OURS = "#c62828"


def draw_data_a(results: Results, folder: Path) -> list[Path]:
    """Features found, the way there, structure; the PNGs."""
    pictures = {
        "features": features(results),
        "efficiency": efficiency(results),
        "structure": structure(results),
    }
    return [write(folder, stem, drawn) for stem, drawn in pictures.items() if drawn is not None]


def draw_families(results: Results, folder: Path) -> list[Path]:
    """What is found, case by case; the PNG."""
    return [write(folder, "families", families(results))]


def draw_calibration(results: Results, folder: Path) -> list[Path]:
    """Probabilities and intervals, if there are any; the PNG."""
    drawn = calibration(results)
    return [] if drawn is None else [write(folder, "calibration", drawn)]


def write(folder: Path, stem: str, drawn: Drawn) -> Path:
    """A figure as PNG, and its numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}.png"
    drawn[0].savefig(path, dpi=DPI, metadata={"Software": None})
    write_json(path.with_suffix(".json"), drawn[1])
    return path


def features(results: Results) -> Drawn | None:
    """Cosines of features in trees and their latents, one seed, ours and the best of the field."""
    wide = results.settings.widths[0]
    ours, best = results.ours("data-a", wide), results.best_of_field("data-a", wide, "mcc")
    if not ours or best is None:
        return None
    figure = Figure(figsize=(12, 5.8), layout="constrained")
    axes = figure.subplots(1, 2)
    shown = {}
    for axis, name, row in zip(
        axes, (LABELS[SLAB], label(best[0])), (ours[0], best[1][0]), strict=True
    ):
        matrix, latents, bounds = matched_cosines(row)
        first = bounds.get("untied", (0, 0))[1]  # these both find
        tied = matrix[first:, latents[first:][latents[first:] >= 0]]
        shades = {"cmap": "Greys", "vmin": 0.3, "vmax": 1, "aspect": "auto"}
        image = axis.imshow(tied.numpy(), interpolation="nearest", **shades)
        for level, (low, high) in bounds.items():
            if low >= first:
                axis.axhline(high - first - 0.5, color=OURS, linewidth=0.5)
                axis.annotate(level, (0, (low + high) / 2 - first), xytext=(-4, 0), ha="right",
                              va="center", textcoords="offset points", fontsize=8)  # fmt: skip
        axis.set_title(f"{name}, seed {row['seed']}: MCC {row['mcc']:.3f}", fontsize=10)
        axis.set_xlabel("latents, each below the feature it is matched with")
        axis.set_xticks([])
        axis.set_yticks([])
        own = [float(matrix[f, k]) if k >= 0 else None for f, k in enumerate(latents.tolist())]
        shown[name] = {"diagonal": own, "levels": bounds}
    axes[0].set_ylabel("features in trees", labelpad=34)
    figure.colorbar(image, ax=axes, fraction=0.03, label="|cos|, white up to 0.3")
    figure.suptitle("Data A: on the dark diagonal what is found, beside it mixtures", fontsize=11)
    return figure, shown


def matched_cosines(row: Mapping) -> tuple[Tensor, Tensor, dict[str, list[int]]]:
    """Cosines, features by place in the trees; the latent of each, or -1; where places are."""
    draw = Draw(case="data-a", generator=row["seed"], rows=1_024, test=16)  # for its truth only
    found, atoms = problem(draw), tensors_of(row)["atoms"]
    truth = found.toy.dictionary
    groups = [group.nonzero().flatten() for group in found.groups.values()]
    order = torch.cat(groups)
    latents = metrics.match(atoms, truth, threshold=0.0).latents[order]
    ends = torch.tensor([len(group) for group in groups]).cumsum(0).tolist()
    bounds = {
        name: [low, high] for name, low, high in zip(found.groups, [0, *ends], ends, strict=False)
    }
    return metrics.cosine_similarities(atoms, truth).mT[order], latents, bounds


def efficiency(results: Results) -> Drawn:
    """MCC against rows seen, F1 against seconds."""
    figure = Figure(figsize=(13, 5.4), layout="constrained")
    axes, shown = figure.subplots(1, 2), {}
    lines = {k: rows for k, rows in results.keyed("data-a").items() if rows[0]["curve"]}
    colours = COLOURS | {SLAB: OURS, L1: "#ef9a9a"}
    for key, rows in lines.items():
        points = average(rows)
        style = {"color": colours[key[0]], "linewidth": 2.2 if key[0] not in ARMS else 1.1}
        style |= {"linestyle": "--" if key[3] in (0.75, 1.3) else "-", "marker": ".", "ms": 4}
        style["zorder"] = 2 if key[0] == L1 else 3  # the one begins as the other
        for axis, across, up in ((axes[0], "rows", "mcc"), (axes[1], "seconds", "f1")):
            axis.plot(
                [p[across] for p in points], [p[up] for p in points], label=label(key), **style
            )
        shown[label(key)] = points
    for axis, across, up in (
        (axes[0], "rows seen in training", "MCC"),
        (axes[1], "CPU seconds of training, one thread", "F1"),
    ):
        axis.set_xscale("log")
        axis.set_xlabel(across)
        axis.set_ylabel(up)
        axis.spines[["top", "right"]].set_visible(False)
    axes[1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)
    if ours := results.ours("data-a", results.settings.widths[0]):
        rows = results.settings.recipe.l1_rows
        axes[0].axvline(rows, color="0.6", linewidth=0.8, linestyle=":")
        axes[0].annotate("slab begins", (rows, axes[0].get_ylim()[0]), xytext=(3, 4),
                         textcoords="offset points", fontsize=8, color="0.4")  # fmt: skip
        axes[0].axhline(ours[0]["chance"], color="0.6", linewidth=0.8, linestyle="--")
    seeds = len(results.settings.seeds)
    figure.suptitle(
        f"Data A, {results.settings.widths[0]} latents, means over up to {seeds} seeds; ours "
        "begins with the ℓ1 phase; dashed grey: MCC of random atoms",
        fontsize=11,
    )
    return figure, shown


def average(rows: Sequence[Mapping]) -> list[dict]:
    """The looks of several seeds, averaged look by look."""
    looks = list(zip(*(row["curve"] for row in rows), strict=False))
    names = ("rows", "seconds", "mcc", "f1", "share", "l0")
    return [{n: sum(p[n] for p in look) / len(look) for n in names} for look in looks]


def structure(results: Results) -> Drawn | None:
    """Precision and recall of edges against chance, and the gain in MCC on the shuffled."""
    wide = results.settings.widths[0]
    found = {n: rows for n in STRUCTURES if (rows := results.ours("data-a", wide, n))}
    if "learned" not in found:
        return None
    figure, shown = Figure(figsize=(11, 4.4), layout="constrained"), {}
    for axis, kind in zip(figure.subplots(1, 2), ("together", "exclusive"), strict=True):
        shown[kind] = bars_of(axis, found, kind)
        axis.set_title(
            "features that fire together" if kind == "together" else "features that exclude",
            fontsize=10,
        )
    counts = ", ".join(f"{name} {len(rows)}" for name, rows in found.items())
    figure.suptitle(
        f"Edges between matched latents against the trees of Data A, with moves; seeds: {counts}",
        fontsize=11,
    )
    return figure, shown


def bars_of(axis: Axes, found: Mapping[str, Sequence[Mapping]], kind: str) -> dict:
    """One panel: per structure its precision, recall and the chance of precision."""
    shown = {}
    for at, (name, rows) in enumerate(found.items()):
        for shift, column in enumerate(("precision", "recall", "density")):
            cell = mean(rows, "structure_found", kind, column)
            if cell is None:
                continue
            axis.bar(
                at + 0.26 * (shift - 1),
                cell.mean,
                0.24,
                yerr=cell.half_width,
                color=f"C{shift}",
                label={"density": "chance"}.get(column, column) if at == 0 else None,
            )
            shown[f"{name}, {column}"] = cell.mean
    names = {"none": "none\n(read off after)", "true": "true trees\n(read off after)"}
    axis.set_xticks(range(len(found)), [names.get(n, n) for n in found], fontsize=8)
    axis.set_ylim(0, 1.05)
    axis.set_ylabel("of edges; chance is near 0")
    axis.legend(fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    return shown


def families(results: Results) -> Drawn:
    """Share of features found and F1, case by case, arm by arm."""
    cases = [case for case in results.settings.small if results.keyed(case)]
    figure = Figure(figsize=(12, 1.6 + 0.3 * len(cases)), layout="constrained")
    axes, shown = figure.subplots(1, 2, sharey=True), {}
    for axis, metric in zip(axes, ("share", "f1"), strict=True):
        for at, case in enumerate(cases):
            for key, rows in results.keyed(case).items():
                cell = mean(rows, metric)
                if key[1] != latents_of(case, results.settings) or cell is None:
                    continue
                ours = key[0] not in ARMS
                colour = OURS if ours else COLOURS[key[0]]
                filled = colour if key[0] != L1 else "none"
                axis.plot(cell.mean, at, "o" if ours else "s", color=colour, mfc=filled, ms=5)
                shown[f"{metric}, {case}, {label(key)}"] = cell.mean
        axis.set_xlabel({"share": "share of features above cosine 0.9", "f1": "F1"}[metric])
        axis.grid(axis="y", linewidth=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(cases)), cases, fontsize=8)
    for arm in (SLAB, L1, *FAMILIES, *COVARIANCES):
        ours = arm not in ARMS
        colour = OURS if ours else COLOURS[arm]
        axes[1].plot([], [], "o" if ours else "s", color=colour, label=LABELS[arm],
                     mfc="none" if arm == L1 else colour)  # fmt: skip
    axes[1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)
    return figure, shown


def calibration(results: Results) -> Drawn | None:
    """Reliability of firing probabilities, and coverage of intervals."""
    found = calibrated(results)
    if not found:
        return None
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    shown = {}
    for case, rows in found.items():
        curves = [c for row in rows if (c := row["calibration"]["reliability"]) is not None]
        points = [pooled(curves, at) for at in range(BINS)]
        known = [point for point in points if point is not None]
        left.plot([p for p, _ in known], [o for _, o in known], "o-", label=case)
        cells = [
            mean(rows, "calibration", "intervals", "coverage", at) for at in range(len(LEVELS))
        ]
        held = [(level, c.mean) for level, c in zip(LEVELS, cells, strict=True) if c is not None]
        right.plot([level for level, _ in held], [share for _, share in held], "o-", label=case)
        shown[case] = {"reliability": known, "coverage": held}
    for axis, across, up in (
        (left, "stated probability that a latent fires", "share of rows on which it does"),
        (right, "stated level of an interval", "share that hold the amplitude"),
    ):
        axis.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle="--")
        axis.set_xlabel(across)
        axis.set_ylabel(up)
        axis.legend(fontsize=8, frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, shown


def pooled(curves: Sequence[Mapping], at: int) -> tuple[float, float] | None:
    """Stated and observed frequency of one bin, all seeds together; nothing of an empty one."""
    total = sum(curve["counts"][at] for curve in curves)
    if not total:
        return None
    filled = [curve for curve in curves if curve["counts"][at]]
    stated, seen = (
        sum(curve["counts"][at] * curve[name][at] for curve in filled) / total
        for name in ("predicted", "observed")
    )
    return stated, seen
