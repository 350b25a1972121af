"""Figures of ``tiered``: training, the published configuration, quality against L0."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toys.reproduce.arguments import write_json
from toys.reproduce.flat_matched import METRICS, over_seeds
from toys.reproduce.html import DPI
from toys.reproduce.tiered_arms import COMPARED, LEARNED, TIERED
from toys.reproduce.tiered_document import VARIANTS
from toys.reproduce.tiered_tables import Results, finished, label

TRAINING = ((TIERED, "l0"), (LEARNED, "l0"), (LEARNED, "learned"), ("softmax", "learned"))
AXES = {
    "l0": "active latents of the tier",
    "learned": "scale b of the tier",
    "softmax": "weight w of the tier",
}
PANELS = ("ev", "ce_recovered")


def draw_all(results: Results, folder: Path) -> list[Path]:
    """Every figure of a run, and its numbers beside it; returns the PNGs."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for stem, draw in (("training", training), ("document", document), ("frontier", frontier)):
        figure, shown = draw(results)
        path = folder / f"{stem}.png"
        figure.savefig(path, dpi=DPI, metadata={"Software": None})
        write_json(path.with_suffix(".json"), shown)
        paths.append(path)
    return paths


def training(results: Results) -> tuple[Figure, dict]:
    """Tiers over training: active latents, learned scales, learned weights; a line per seed."""
    figure, shown = Figure(figsize=(12, 7.6), layout="constrained"), {}
    for axis, (arm, what) in zip(figure.subplots(2, 2).flat, TRAINING, strict=True):
        looks = [row["looks"] for row in finished(results.middle(arm))]
        shown[f"{what} {arm}"] = looks
        for seed, run in enumerate(looks):
            _tiers(axis, run, what, named=not seed)
        axis.set_yscale("log")
        axis.set_title(label(arm), fontsize=10)
        axis.set_xlabel("update")
        axis.set_ylabel(AXES["softmax" if arm == "softmax" else what])
        axis.spines[["top", "right"]].set_visible(False)
        if what == "learned" and arm == LEARNED:
            axis.axhline(results.settings.floor, color="0.4", linestyle=":", label="floor")
        if what == "l0" and arm == TIERED:
            for start in results.settings.starts[1:]:
                axis.axvline(start, color="0.8", linewidth=0.8, zorder=0)
        axis.legend(fontsize=9)
    return figure, shown


def _tiers(axis: Axes, run: Sequence[Mapping], what: str, *, named: bool) -> None:
    steps = [look["step"] for look in run]
    for tier in range(len(run[0][what])):
        values = [look[what][tier] or math.nan for look in run]  # no zero on a log scale
        name = f"tier {tier + 1}" if named else None
        axis.plot(steps, values, color=f"C{tier}", linewidth=1.2, label=name)


def document(results: Results) -> tuple[Figure, dict]:
    """Loss of the published configuration, over its first; a cross where it is not finite."""
    figure = Figure(figsize=(10.5, 5), layout="constrained")
    axis, shown, failed = figure.subplots(), {}, 0
    for n, (name, variant) in enumerate(VARIANTS.items()):
        row = results.of(name)[0]
        shown[name] = {key: row[key] for key in ("failed", "done", "looks")}
        if row["failed"]:
            note = f"{variant.label}: not finite at update {row['done']}, {row['failed']}"
            _cross(axis, 1.08 + 0.06 * failed, note)
            failed += 1
            continue
        losses = [look["loss"] / row["looks"][0]["loss"] for look in row["looks"]]
        steps, dashes = [look["step"] for look in row["looks"]], ("-", "--", ":")[n // 5]
        axis.plot(steps, losses, dashes, color=f"C{n % 5}", linewidth=1.5, label=variant.label)
    axis.set_xlabel("update")
    axis.set_ylabel("loss over that of the first update")
    axis.set_ylim(0, 1.06 + 0.06 * failed)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure, shown


def _cross(axis: Axes, height: float, note: str) -> None:
    axis.plot([0], [height], "x", color="0.1", markersize=8)
    offset = {"xytext": (10, 0), "textcoords": "offset points"}
    axis.annotate(note, (0, height), fontsize=9, va="center", **offset)


def frontier(results: Results) -> tuple[Figure, dict]:
    """Quality against L0 at equal width, arms by strength; means and intervals over seeds."""
    figure = Figure(figsize=(12, 4.8), layout="constrained")
    shown: dict[str, dict] = {}
    for axis, metric in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for n, arm in enumerate(COMPARED):
            points = _points(results, arm, metric)
            shown.setdefault(metric, {})[arm] = points
            axis.errorbar(
                [p["l0"] for p in points],
                [p["value"] for p in points],
                xerr=[p["l0_ci95"] for p in points],
                yerr=[p["value_ci95"] for p in points],
                marker="os^v"[n],
                markersize=5,
                linewidth=1.4,
                elinewidth=0.7,
                label=label(arm),
            )
        axis.set_xlabel("L0: mean active latents per row")
        axis.set_ylabel(METRICS[metric].label)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=9, loc="lower right")
    return figure, shown


def _points(results: Results, arm: str, metric: str) -> list[dict]:
    points = []
    for strength in dict.fromkeys(row["strength"] for row in results.of(arm)):
        rows = finished(results.of(arm, strength))
        if rows:
            l0, value = (over_seeds([row[name] for row in rows]) for name in ("l0", metric))
            point = {"strength": strength, "l0": l0.mean, "value": value.mean}
            widths = {"l0_ci95": l0.half_width, "value_ci95": value.half_width}
            points.append(point | {name: w or 0.0 for name, w in widths.items()})
    return sorted(points, key=lambda point: point["l0"] or math.inf)
