"""Quality against L0, every arm a line that is named where it ends; the numbers beside each PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, StrMethodFormatter

from toys.reproduce.arguments import write_json
from toys.reproduce.flat_arms import ARMS
from toys.reproduce.flat_controls import CONTROLS
from toys.reproduce.flat_data import TITLES
from toys.reproduce.flat_matched import METRICS, over_seeds
from toys.reproduce.flat_tables import CHANCE, Results, label
from toys.reproduce.html import DPI
from toys.reproduce.tables import interval

PANELS = {
    "frontier": (("toy", "ev"), ("stories", "ev")),
    "recovery": (("toy", "mcc"), ("toy", "f1")),
    "network": (("stories", "ce_recovered"), ("stories", "dead")),
}
"""Figures by the stem of their files."""
MARKERS = "os^vD<>pPX*h"
TICKS = (1, 2, 3, 5, 10, 20, 30, 50, 100)
LEADER = {"arrowstyle": "-", "lw": 0.4, "alpha": 0.6, "relpos": (0.0, 0.5), "shrinkA": 1.0}
MARGIN = 0.07  # above and below what a panel shows, as a share of it
GAP = 0.042  # between two names, as a share of the panel's height
_COLOURS = (*matplotlib.colormaps["tab10"].colors, "#7a0019", "#1a237e", "#33691e")
STYLES = {
    arm: {"color": _COLOURS[n % len(_COLOURS)], "marker": MARKERS[n % len(MARKERS)]}
    for n, arm in enumerate(ARMS)
} | {arm: {"color": "0.35", "marker": "", "linestyle": ":"} for arm in CONTROLS}


def draw_all(results: Results, folder: Path) -> list[Path]:
    """Every figure of a run; returns the PNGs."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for stem, panels in PANELS.items():
        figure, shown = draw(results, panels)
        path = folder / f"{stem}.png"
        figure.savefig(path, dpi=DPI, metadata={"Software": None})
        write_json(path.with_suffix(".json"), shown)
        paths.append(path)
    return paths


def draw(results: Results, panels: Sequence[tuple[str, str]]) -> tuple[Figure, dict]:
    """A panel per data and metric."""
    figure = Figure(figsize=(7.2 * len(panels), 5.6), layout="constrained")
    shown: dict[str, dict] = {}
    for axis, (data, metric) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        lines = curves(results, data, metric)
        shown[f"{metric} {data}"] = lines
        for arm, points in lines.items():
            _line(axis, arm, points)
        marks = [shown.setdefault("chance", _chance(axis, results))] if metric == "mcc" else []
        _dress(axis, data, metric)
        axis.set_ylim(*window(lines, marks))
        _name(axis, lines)
    seeds = len(results.settings.seeds)
    figure.suptitle(f"Means and 95 % intervals over {seeds} seeds, held-out rows", fontsize=11)
    return figure, shown


def curves(results: Results, data: str, metric: str) -> dict[str, list[dict]]:
    """Per arm, in order of L0: means and half-widths of L0 and the metric at each strength."""
    lines = {}
    for arm in (*ARMS, *CONTROLS):
        rows = [row for row in results.of(data, arm) if row.get(metric) is not None]
        strengths = dict.fromkeys(row["strength"] for row in rows)
        points = [_point([r for r in rows if r["strength"] == s], s, metric) for s in strengths]
        if points:
            lines[arm] = sorted(points, key=lambda point: point["l0"])
    return lines


def _point(rows: Sequence[Mapping], strength: float, metric: str) -> dict:
    l0, value = (over_seeds([row[name] for row in rows]) for name in ("l0", metric))
    return {
        "strength": strength,
        "l0": l0.mean,
        "l0_ci95": l0.half_width or 0.0,
        "value": value.mean,
        "value_ci95": value.half_width or 0.0,
    }


def _line(axis: Axes, arm: str, points: Sequence[dict]) -> None:
    axis.errorbar(
        [p["l0"] for p in points],
        [p["value"] for p in points],
        xerr=[p["l0_ci95"] for p in points],
        yerr=[p["value_ci95"] for p in points],
        markersize=5,
        linewidth=1.4,
        elinewidth=0.7,
        label=label(arm),
        **STYLES[arm],
    )


def _chance(axis: Axes, results: Results) -> float:
    level = interval(results.chance.values()).mean
    axis.axhline(level, color="0.35", linestyle="--", linewidth=1)
    axis.annotate(
        CHANCE, (0.02, level), xycoords=("axes fraction", "data"), fontsize=8, va="bottom"
    )
    return level


def window(lines: Mapping[str, Sequence[dict]], marks: Sequence[float]) -> tuple[float, float]:
    """The range of the arms' means and of ``marks``, with a margin; controls may lie outside."""
    means = [point["value"] for arm in lines if arm in ARMS for point in lines[arm]]
    low, high = min([*means, *marks]), max([*means, *marks])
    margin = MARGIN * (high - low) or MARGIN
    return low - margin, high + margin


def _dress(axis: Axes, data: str, metric: str) -> None:
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator(TICKS))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("L0: mean active latents per row")
    axis.set_ylabel(METRICS[metric].label)
    axis.set_title(TITLES[data], fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)


def _name(axis: Axes, lines: Mapping[str, Sequence[dict]]) -> None:
    """Names at the right, in the order in which the lines end, pushed apart, tied by thin lines."""
    low, high = axis.get_ylim()
    ends = sorted(lines, key=lambda arm: lines[arm][-1]["value"])
    wanted = [(lines[arm][-1]["value"] - low) / (high - low) for arm in ends]
    outside = {arm for arm, place in zip(ends, wanted, strict=True) if not 0 <= place <= 1}
    for arm, place in zip(ends, spread(wanted, GAP), strict=True):
        last = lines[arm][-1]
        axis.annotate(
            f"{label(arm)} (off the panel)" if arm in outside else label(arm),
            (last["l0"], last["value"]),
            xytext=(1.03, place),
            textcoords="axes fraction",
            color=STYLES[arm]["color"],
            fontsize=9,
            va="center",
            annotation_clip=False,
            arrowprops=None if arm in outside else LEADER | {"color": STYLES[arm]["color"]},
        )


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """The places in [0, 1] nearest to the wanted ones (least squares) that are ``gap`` apart.

    Without the gaps this is isotonic regression: neighbours that are too near are pooled.

    Args:
        wanted: In ascending order.
        gap: The least distance.

    Example:
        >>> [round(place, 2) for place in spread([0.2, 0.5, 0.5], 0.1)]
        [0.2, 0.45, 0.55]
    """
    pools: list[list[float]] = []
    for index, place in enumerate(wanted):
        pools.append([place - index * gap])
        while len(pools) > 1 and _mean(pools[-2]) > _mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    room = 1 - gap * (len(wanted) - 1)
    level = [min(max(_mean(pool), 0.0), room) for pool in pools for _ in pool]
    return [place + index * gap for index, place in enumerate(level)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
