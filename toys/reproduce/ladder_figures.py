"""Figures of ``ladder``: heat-maps of levels, recovery, recruitment, rings."""

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from toys.reproduce.arguments import write_json
from toys.reproduce.html import DPI
from toys.reproduce.jobs import tensors_of
from toys.reproduce.ladder_arms import OF_WORLD
from toys.reproduce.ladder_data import RINGS
from toys.reproduce.ladder_tables import WORLD, Results, label
from vsae.plots.heatmap import block_order, correlation_heatmap

TUNED = ("additive-stopped", "variational")
SHOWN = ("additive-stopped", "lateral-stopped", "variational", "flat")


def draw_all(results: Results, folder: Path) -> list[Path]:
    """Every figure of a run, and its numbers beside it; returns the PNGs."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "recovery": recovery(results),
        "correlations": correlations(results),
        "recruitment": recruited(results),
    }
    if "rings" in results.settings.worlds:
        figures |= {f"rings_{arm}": rings(results, arm) for arm in TUNED}
    paths = []
    for stem, (figure, shown) in figures.items():
        path = folder / f"{stem}.png"
        figure.savefig(path, dpi=DPI, metadata={"Software": None})
        write_json(path.with_suffix(".json"), shown)
        paths.append(path)
    return paths


def recovery(results: Results) -> tuple[Figure, dict]:
    """Coarse and fine F1 of every arm, with intervals over seeds; a panel per toy and level."""
    worlds, shown = results.settings.worlds, {}
    heights = [len(OF_WORLD[world]) for world in worlds]
    figure = Figure(figsize=(11, 1.5 + 0.32 * sum(heights)), layout="constrained")
    axes = figure.subplots(len(worlds), 2, squeeze=False, height_ratios=heights, sharex=True)
    for pair, world in zip(axes, worlds, strict=True):
        for axis, level in zip(pair, ("coarse", "fine"), strict=True):
            shown[f"{world} {level}"] = _dots(axis, results, world, level)
            axis.set_title(f"{WORLD[world]}: {level} features", fontsize=10)
            axis.spines[["top", "right"]].set_visible(False)
        pair[1].set_yticklabels([])
    axes[-1][0].set_xlabel("mean F1")
    axes[-1][1].set_xlabel("mean F1")
    axes[0][0].legend(fontsize=8, loc="lower left")
    return figure, shown


def _dots(axis: Axes, results: Results, world: str, level: str) -> dict:
    arms, found = OF_WORLD[world], {}
    for n, (column, name) in enumerate(
        ((f"{level}_f1", "own level"), (f"{level}_f1_any", "any latent"))
    ):
        for place, arm in enumerate(arms):
            mean = results.mean(world, arm, column)
            if mean is None:
                continue
            found.setdefault(arm, {})[column] = [mean.mean, mean.half_width]
            axis.errorbar(
                mean.mean,
                place + 0.12 * (2 * n - 1),
                xerr=mean.half_width or 0.0,
                fmt="os"[n],
                color=f"C{n}",
                markersize=4.5,
                elinewidth=0.8,
                label=f"by {name}" if place == 0 else None,
            )
    axis.set_yticks(range(len(arms)), [label(arm) for arm in arms], fontsize=8)
    axis.set_ylim(len(arms) - 0.5, -0.5)
    axis.set_xlim(0, 1)
    axis.grid(axis="x", color="0.9")
    return found


def first(results: Results, world: str, arm: str) -> dict[str, Tensor]:
    """What the first seed's model left for figures."""
    row = results.of(world, arm)[0]
    start = f"{row['seed']}_"
    return {
        name.removeprefix(start): value
        for name, value in tensors_of(row).items()
        if name.startswith(start)
    }


def correlations(results: Results) -> tuple[Figure, dict]:
    """Correlations between latents that fire, by the cluster that each goes with; first seed."""
    world = results.settings.worlds[0]
    figure, shown = Figure(figsize=(12, 6.2), layout="constrained"), {}
    axes = figure.subplots(2, len(SHOWN))
    for column, arm in enumerate(SHOWN):
        found = first(results, world, arm)
        for axis, level in zip(axes[:, column], ("fine", "coarse"), strict=True):
            labels = found.get("labels" if level == "fine" else "coarse_labels")
            live = None if labels is None else labels >= 0
            if live is None or not live.any():
                axis.set_axis_off()
                continue
            matrix = found[level][live][:, live]
            correlation_heatmap(axis, matrix, labels=labels[live].long(), limit=0.5)
            axis.set_title(f"{label(arm)}, {level if arm != 'flat' else 'all'}", fontsize=10)
            shown[f"{arm} {level}"] = {"labels": labels[live].tolist(), "matrix": _list(matrix)}
    return figure, shown


def recruited(results: Results) -> tuple[Figure, dict]:
    """P(fine | coarse) of latents that fire, both by the cluster they go with; first seed."""
    world, arms = results.settings.worlds[0], [a for a in SHOWN if a != "flat"]
    figure, shown = Figure(figsize=(12, 4.6), layout="constrained"), {}
    for axis, arm in zip(figure.subplots(1, len(arms)), arms, strict=True):
        found = first(results, world, arm)
        fine, coarse = (found[name].long() for name in ("labels", "coarse_labels"))
        rows, columns = (block_order(part)[(part < 0).sum() :] for part in (fine, coarse))
        matrix = found["probability"][rows][:, columns]
        image = axis.imshow(matrix.numpy(), vmin=0, vmax=1, aspect="auto", cmap="viridis")
        axis.set_title(label(arm), fontsize=10)
        axis.set_xlabel("coarse latent, by cluster")
        axis.set_ylabel("fine latent, by cluster")
        shown[arm] = {"probability": _list(matrix), "fine": fine[rows].tolist()}
        shown[arm]["coarse"] = coarse[columns].tolist()
    figure.colorbar(image, ax=figure.axes, label="P(fine fires | coarse fires)")
    return figure, shown


def rings(results: Results, arm: str) -> tuple[Figure, dict]:
    """Latents on their rings, at their mean angle, further out the sharper; first seed."""
    figure, shown = Figure(figsize=(12, 6.2), layout="constrained"), {}
    axes = figure.subplots(2, RINGS // 2, subplot_kw={"projection": "polar"})
    found = first(results, "rings", arm)
    fine = results.settings.sizes.levels[0]
    place, angle, sharp = (found[f"tuning_{n}"] for n in ("ring", "angle", "sharpness"))
    fires = torch.cat([found["labels"], found["coarse_labels"]]) >= 0
    for ring, axis in enumerate(axes.flat):
        for n, part in enumerate((slice(fine), slice(fine, None))):
            own = (place[part] == ring) & fires[part]
            axis.plot(
                angle[part][own], sharp[part][own], "o^"[n], color=f"C{n}", markersize=6 + 3 * n
            )
        axis.set_ylim(0, 1.05)
        axis.set_xticklabels([])
        axis.set_yticks([0.5, 1.0], ["", ""])
        axis.set_title(f"ring {ring + 1}", fontsize=9)
    figure.suptitle(
        f"{label(arm)}: fine latents (circles) and coarse ones (triangles)", fontsize=11
    )
    shown[arm] = {n: found[f"tuning_{n}"].tolist() for n in ("ring", "angle", "sharpness")}
    shown[arm]["fires"] = fires.tolist()
    return figure, shown


def _list(matrix: Tensor) -> list:
    return np.nan_to_num(matrix.numpy().round(4), nan=0.0).tolist()
