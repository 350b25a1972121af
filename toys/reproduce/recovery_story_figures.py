"""The stories' figure: explained variance against L0, a panel per layer."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from toys.reproduce.flat_matched import over_seeds
from toys.reproduce.recovery_arms import COLOURS
from toys.reproduce.recovery_figures import OURS, write
from toys.reproduce.recovery_recommended import RECOMMENDED
from toys.reproduce.recovery_results import Results
from toys.reproduce.recovery_stories import RANDOM
from toys.reproduce.recovery_story_tables import NAMES, Line, curves

PALE = "#ef9a9a"  # ours that is not recommended
STYLES = {NAMES[arm]: COLOURS[arm] for arm in ("batch_topk", "matryoshka")}
STYLES |= {NAMES[RECOMMENDED]: OURS}


def draw_stories(results: Results, folder: Path) -> list[Path]:
    """Frontiers in explained variance and in CE recovered."""
    found = curves(results)
    if not found:
        return []
    return [
        write(folder, f"stories_{metric}", frontier(results, found, metric))
        for metric in ("ev", "ce_recovered")
    ]


def frontier(
    results: Results, found: Mapping[Line, list[dict]], metric: str
) -> tuple[Figure, dict]:
    """Unexplained share against L0 on logarithmic axes; dashed from a random start."""
    layers = results.settings.layers
    figure = Figure(figsize=(4.2 * len(layers) + 3, 4.6), layout="constrained")
    axes, shown = figure.subplots(1, len(layers), squeeze=False)[0], {}
    for axis, layer in zip(axes, layers, strict=True):
        for line, points in found.items():
            if line.layer != layer or not drawn(line):
                continue
            spots = averaged(points, metric)
            ours = line.name.startswith("ours")
            axis.plot(
                [l0 for l0, _ in spots],
                [max(1 - value, 1e-4) for _, value in spots],
                marker="o" if ours else "s",
                linestyle="--" if line.start == RANDOM else "-",
                linewidth=1.8 if ours else 1.0,
                markersize=3,
                color=STYLES.get(line.name, PALE),
                label=f"{line.name}, from {line.start}",
            )
            shown[f"layer {layer}, {line.name}, from {line.start}"] = spots
        dress(axis, f"layer {layer}")
    what = {"ev": "unexplained variance", "ce_recovered": "loss not recovered"}[metric]
    axes[0].set_ylabel(f"{what}, held out")
    handles, labels = axes[layers.index(results.settings.middle)].get_legend_handles_labels()
    axes[-1].legend(
        handles, labels, loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False
    )
    return figure, shown


def dress(axis: Axes, title: str) -> None:
    """Logarithmic axes with numbers that people read."""
    axis.set_xscale("log")
    axis.set_yscale("log")
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_locator(LogLocator(subs=(1, 2, 5)))
        side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        side.set_minor_formatter(NullFormatter())
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("L0")
    axis.spines[["top", "right"]].set_visible(False)


def drawn(line: Line) -> bool:
    """Our ℓ1 phase refitted only, of which codes as they are make one point."""
    return line.name.endswith("refitted") == ("ℓ1" in line.name)


def averaged(points: list[dict], metric: str) -> list[tuple[float, float]]:
    """Means over seeds of L0 and metric, the points of each seed taken in order."""
    by_seed: dict[int, list[dict]] = {}
    for point in points:
        by_seed.setdefault(point["seed"], []).append(point)
    groups = zip(*(sorted(p, key=lambda x: x["l0"]) for p in by_seed.values()), strict=False)
    return [
        (over_seeds([p["l0"] for p in group]).mean, over_seeds([p[metric] for p in group]).mean)
        for group in groups
    ]
