"""The figures: lines against width or cost, and rows of dots beside their controls."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from toys.reproduce import hsae_points
from toys.reproduce.hsae_points import Point
from toys.reproduce.hsae_results import Results
from toys.reproduce.html import DPI

TAB = matplotlib.colormaps["tab10"].colors
FAMILIES = {"TopK": TAB[0], "BatchTopK": TAB[2], "Matryoshka": TAB[4]}
EXACT = "exact absorbed solution"
FAMILIES[EXACT] = (0.35, 0.35, 0.35)
TREES = (TAB[3], TAB[1], TAB[5])  # the lines of H-SAEs, in order
DASHED = ("matched L0", "total width", "all levels", EXACT)
MARKERS = {"H-SAE": "o", "TopK": "s", "BatchTopK": "^", "Matryoshka": "D", EXACT: ""}


def draw_all(results: Results, folder: Path) -> list[Path]:
    """Every figure of a run, and beside it its numbers; returns the PNGs."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for stem, (points, drawn) in FIGURES.items():
        found = list(points(results))
        hsae_points.table(found).write_csv(folder, stem)
        path = folder / f"{stem}.png"
        drawn(found).savefig(path, dpi=DPI, metadata={"Software": None})
        paths.append(path)
    return paths


def panels(points: Sequence[Point]) -> dict[str, dict[str, list[Point]]]:
    """Per panel and line, in order of appearance."""
    found: dict[str, dict[str, list[Point]]] = {}
    for point in points:
        found.setdefault(point.panel, {}).setdefault(point.line, []).append(point)
    return found


def against_width(points: Sequence[Point]) -> Figure:
    """Lines against top width."""
    return _lines(points, "top width m", _widths)


def against_cost(points: Sequence[Point]) -> Figure:
    """Lines against parameters or FLOPs."""
    return _lines(points, "", lambda axis, _: None)


def _widths(axis: Axes, points: Sequence[Point]) -> None:
    axis.xaxis.set_major_locator(FixedLocator(sorted({point.x for point in points})))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _lines(
    points: Sequence[Point], abscissa: str, ticks: Callable[[Axes, Sequence[Point]], None]
) -> Figure:
    found = panels(points)
    figure = Figure(figsize=(4.1 * len(found) + 2.6, 4.6), layout="constrained")
    axes = figure.subplots(1, len(found), squeeze=False)[0]
    styles = dict(styled(list(dict.fromkeys(point.line for point in points))))
    drawn = {}
    for axis, (title, lines) in zip(axes, found.items(), strict=True):
        for line, marks in lines.items():
            marks = sorted(marks, key=lambda point: point.x)
            drawn[line] = axis.errorbar(
                [p.x for p in marks],
                [p.value.mean for p in marks],
                yerr=[p.value.half_width or 0.0 for p in marks],
                markersize=4.5,
                linewidth=1.3,
                elinewidth=0.7,
                **styles[line],
            )
        _dress(axis, title, abscissa)
        ticks(axis, [p for marks in lines.values() for p in marks])
        window(axis, [p.value.mean for marks in lines.values() for p in marks])
    figure.legend(drawn.values(), drawn, loc="outside right center", fontsize=8, frameon=False)
    return figure


def window(axis: Axes, means: Sequence[float]) -> None:
    """The range of the means, with a margin: intervals may leave it."""
    margin = 0.08 * (max(means) - min(means)) or 0.05
    axis.set_ylim(min(means) - margin, max(means) + margin)


def styled(lines: Sequence[str]) -> Iterator[tuple[str, dict]]:
    """A colour per architecture, dashes for what was not published."""
    trees = list(dict.fromkeys(_family(line) for line in lines if line.startswith("H-SAE")))
    for line in lines:
        name = line.split(",")[0]
        dashed = any(part in line for part in DASHED)
        colour = FAMILIES.get(name)
        if colour is None:
            colour = TREES[trees.index(_family(line)) % len(TREES)]
        yield line, {"color": colour, "marker": MARKERS[name], "linestyle": "--" if dashed else "-"}


def _family(line: str) -> str:
    """What tells H-SAE lines apart: children, not the levels looked at."""
    return line if "a = " in line else "H-SAE"


def _dress(axis: Axes, title: str, abscissa: str) -> None:
    axis.set_xscale("log", base=2)
    axis.set_xlabel(abscissa or title.split("against ")[-1].split(",")[0])
    axis.set_title(title, fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)


def rows(points: Sequence[Point]) -> Figure:
    """Two panels beside each other, a row per line: its interval, a grey bar for the control."""
    found = panels(points)
    columns = min(2, len(found))
    heights = [len(lines) for lines in found.values()]
    below = [max(heights[n : n + columns]) for n in range(0, len(heights), columns)]
    figure = Figure(figsize=(6.6 * columns, 0.27 * sum(below) + 0.8 * len(below)))
    figure.set_layout_engine("constrained")
    grid = figure.subplots(len(below), columns, squeeze=False, height_ratios=below)
    for axis in grid.flat[len(found) :]:
        axis.remove()
    for axis, (title, lines) in zip(grid.flat, found.items(), strict=False):
        _rows(axis, {line: marks[0] for line, marks in lines.items()})
        axis.set_title(title, fontsize=9)
    return figure


def _rows(axis: Axes, lines: Mapping[str, Point]) -> None:
    for row, (line, point) in enumerate(lines.items()):
        colour = FAMILIES.get(line.split(": ")[-1].split(",")[0], TREES[0])
        width = point.value.half_width or 0.0
        style = {"markersize": 4.5, "elinewidth": 1, "color": colour}
        axis.errorbar(point.value.mean, row, xerr=width, fmt="o", **style)
        if point.chance is not None:
            axis.plot(point.chance.mean, row, marker="|", markersize=11, color="0.35")
    axis.set_yticks(range(len(lines)), list(lines), fontsize=7.5)
    axis.invert_yaxis()
    axis.grid(axis="y", linewidth=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    means = [point.value.mean for point in lines.values()]
    means += [point.chance.mean for point in lines.values() if point.chance]
    margin = 0.06 * (max(means) - min(means)) or 0.05
    axis.set_xlim(min(means) - margin, max(means) + margin)


Points = Callable[[Results], Iterator[Point]]
FIGURES: dict[str, tuple[Points, Callable[[Sequence[Point]], Figure]]] = {
    "figure3": (hsae_points.figure3, against_width),
    "cost": (hsae_points.cost, against_cost),
    "absorption": (hsae_points.absorption, against_width),
    "redundancy": (hsae_points.redundancy, rows),
    "structure": (hsae_points.structure, rows),
    "sweeps": (hsae_points.sweeps, rows),
}
"""By the stem of their files."""
