"""The figures of absorption and hedging: a dot is a model of one seed, a line an exact solution."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from toys.reproduce.recovery_absorption_arms import OURS, SOLUTIONS, label
from toys.reproduce.recovery_absorption_cases import (
    ABSORBED,
    ABSORPTION_CASES,
    BIASED,
    HEDGED,
    RANDOM,
)
from toys.reproduce.recovery_absorption_report import Key, models
from toys.reproduce.recovery_ceiling import TRUTH
from toys.reproduce.recovery_figures import OURS as RED
from toys.reproduce.recovery_figures import Drawn, write
from toys.reproduce.recovery_results import Results

MAP = matplotlib.colormaps["coolwarm_r"]  # red is absorbed, blue the truth
FARTHEST = 1.0  # the lean of the true solution, and less that of the absorbed one
LINES = {
    TRUTH: ("#1a6fb0", "truth", 3),
    ABSORBED: ("#b3262b", "absorbed", 3),
    HEDGED: ("#b3262b", "hedged", 3),
    BIASED: ("#e08214", "hedged with a bias", 12),
    RANDOM: ("0.5", "random", 12),
}
"""Of exact solutions: colour, name, and how far above the panel that is."""

Found = Mapping[Key, Sequence[Mapping]]


def draw_absorption(results: Results, folder: Path) -> list[Path]:
    """The figures of what was run; the PNGs."""
    cases = results.settings.absorption.cases
    found = {case: of for case in cases if (of := models(results, case))}
    trees = {case: of for case, of in found.items() if ABSORPTION_CASES[case].roots}
    pairs = {case: of for case, of in found.items() if case not in trees}
    pictures = {}
    if trees:
        pictures["absorption"] = absorption_figure(trees)
    if pairs:
        pictures["hedging"] = hedging_figure(pairs)
    return [write(folder, stem, drawn) for stem, drawn in pictures.items()]


def absorption_figure(found: Mapping[str, Found]) -> Drawn:
    """Recall of parents, each dot coloured by where their children end."""
    figure, axes = panels(found, 4.6)
    norm, shown = Normalize(-FARTHEST, FARTHEST), {}
    for axis, (case, of) in zip(axes, found.items(), strict=True):
        shown[case] = dots(axis, of, "parent_recall", norm)
        axis.set_title(ABSORPTION_CASES[case].label, pad=24)
        axis.set_xlabel("recall of parents by their own latents")
        axis.set_xlim(-0.05, 1.05)
    bar = figure.colorbar(ScalarMappable(norm, MAP), ax=axes, fraction=0.02, pad=0.01)
    bar.set_ticks([-FARTHEST, 0, FARTHEST], labels=["absorbed", "neither, or both", "true"])
    bar.set_label("where children end")
    figure.suptitle("Absorption: a dot is a model of one seed, a bar the mean, lines exact")
    return figure, shown


def hedging_figure(found: Mapping[str, Found]) -> Drawn:
    """Where the one atom points, in the plane of the two features."""
    figure, axes = panels(found, 5.6)
    shown = {}
    for axis, (case, of) in zip(axes, found.items(), strict=True):
        shown[case] = dots(axis, of, "direction", None)
        axis.set_title(ABSORPTION_CASES[case].label, pad=24)
        axis.set_xlabel("direction of the atom, degrees: the first feature is 0, the second 90")
        axis.set_xlim(-50, 140)
        axis.set_xticks([-45, 0, 45, 90, 135])
    figure.suptitle("Hedging: a dot is a model of one seed, a bar the mean, lines exact")
    return figure, shown


def panels(found: Mapping[str, Found], width: float) -> tuple[Figure, Sequence[Axes]]:
    """A panel per case, side by side, as high as its arms are many."""
    most = max(map(len, found.values()))
    size = 2.2 + width * len(found), 1.9 + 0.27 * most
    figure = Figure(figsize=size, layout="constrained")
    return figure, list(figure.subplots(1, len(found), squeeze=False)[0])


def dots(axis: Axes, found: Found, metric: str, norm: Normalize | None) -> dict:
    """A line per arm, ours in red; over exact solutions their names; the numbers shown."""
    arms = {key: rows for key, rows in found.items() if key[0] not in SOLUTIONS}
    shown = {}
    for at, (key, rows) in enumerate(arms.items()):
        values = [row[metric] for row in rows]
        leans = [row["lean"] for row in rows]
        colours = [MAP(norm(lean)) for lean in leans] if norm else ["0.35"] * len(rows)
        axis.scatter(values, [at] * len(rows), c=colours, s=34, edgecolor="0.2", linewidth=0.5,
                     zorder=3)  # fmt: skip
        axis.plot(sum(values) / len(values), at, "|", color="0.2", ms=15, mew=1.6, zorder=2)
        shown[label(*key)] = {metric: values, "lean": leans}
    for key, rows in found.items():
        if key[0] in SOLUTIONS and (key[0], metric) != (RANDOM, "direction"):  # of no one direction
            colour, name, high = LINES[key[0]]
            place = sum(row[metric] for row in rows) / len(rows)
            axis.axvline(place, color=colour, linewidth=1.2, linestyle="--", zorder=1)
            axis.annotate(name, (place, 1), xycoords=("data", "axes fraction"), xytext=(0, high),
                          textcoords="offset points", ha="center", color=colour,
                          fontsize=8)  # fmt: skip
            shown[label(*key)] = {metric: place}
    axis.set_yticks(range(len(arms)), [label(*key) for key in arms], fontsize=8)
    for text, key in zip(axis.get_yticklabels(), arms, strict=True):
        text.set_color(RED if key[0] in OURS else "0.1")
    axis.set_ylim(max(len(arms), 1) - 0.5, -0.5)
    axis.grid(axis="y", linewidth=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    return shown
