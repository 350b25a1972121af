"""The words' figure: WordNet's concepts, how well each is detected, and what a code is worth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap

import matplotlib
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from toys.reproduce.flat_matched import at_l0, over_seeds
from toys.reproduce.recovery_arms import COLOURS
from toys.reproduce.recovery_figures import Drawn, write
from toys.reproduce.recovery_results import Results
from toys.reproduce.recovery_words_arms import CONTROL, L1, OURS, SLAB, WORD_ARMS, WORD_LABELS
from toys.reproduce.recovery_words_data import Split, Words, words
from toys.reproduce.recovery_words_findings import best_of_field
from toys.reproduce.recovery_words_tables import level, models
from toys.reproduce.tables import Interval

AT = 8.0  # the L0 of the trees
RED = {
    OURS: "#c62828",
    L1: "#ef9a9a",
    f"{SLAB} none": "#6a1b9a",
    f"{SLAB} tree": "#ad1457",
    CONTROL: "0.55",
}
MAP = matplotlib.colormaps["YlGnBu"]
WIDTH = 14  # characters of a cell
NARROW = 0.011  # of the height, below which a cell has no name


def draw_words(results: Results, folder: Path) -> list[Path]:
    """The figure, if the part was run."""
    drawn = concepts(results) if models(results) else None
    return [] if drawn is None else [write(folder, "words", drawn)]


def concepts(results: Results) -> Drawn | None:
    """Two trees of concepts, the field's best and ours, coloured by F1; beside them two frontiers.

    Nothing where no arm of the field, or not ours, reaches the L0 of the trees.
    """
    best = best_of_field(results, "f1", AT)
    if best is None or level(results, models(results)[OURS], "f1", AT) is None:
        return None
    seed = results.settings.seeds[0]
    found = words(Split(seed=seed, least=results.settings.words.least))
    cells = icicle(found)
    figure = Figure(figsize=(17, 9.5), layout="constrained")
    grid = figure.add_gridspec(2, 3, width_ratios=(1, 1, 0.8))
    norm, shown = Normalize(0, 0.8), {}
    for column, name in enumerate((best, OURS)):
        axis = figure.add_subplot(grid[:, column])
        f1 = per_concept(results, models(results)[name], len(found.names))
        _tree(axis, found, cells, f1, norm)
        axis.set_title(f"{WORD_LABELS[name]}: mean F1 {sum(f1) / len(f1):.2f} at L0 {AT:g}")
        shown[name] = dict(zip(found.names, f1, strict=True))
    mappable = ScalarMappable(norm, MAP)
    label = "F1 of the concept's best latent, on words it was not chosen on"
    figure.colorbar(mappable, ax=figure.axes, location="bottom", fraction=0.025, label=label)
    for row, metric in enumerate(("f1", "ev")):
        shown[metric] = _frontier(figure.add_subplot(grid[row, 2]), results, metric)
    return figure, shown


def icicle(found: Words) -> list[tuple[float, float, int]]:
    """Of each concept the top, the height, both as shares of the words, and the depth.

    Children lie within their parent, the greatest first.
    """
    sizes = (found.members.double().mean(0)).tolist()
    parents = found.parents.tolist()
    cells: list[tuple[float, float, int]] = [(0.0, 0.0, 0)] * len(sizes)
    below = dict.fromkeys(range(-1, len(sizes)), 0.0)  # of each parent, what is taken
    for node in sorted(range(len(sizes)), key=lambda n: -sizes[n]):  # parents before children
        above = parents[node]
        top, depth = (cells[above][0], cells[above][2] + 1) if above >= 0 else (0.0, 0)
        cells[node] = (top + below[above], sizes[node], depth)
        below[above] += sizes[node]
    return cells


def per_concept(results: Results, rows: Sequence[Mapping], count: int) -> list[float]:
    """F1 of each concept at the L0 of the trees, mean over seeds."""
    found = []
    for concept in range(count):
        known = []
        for seed in results.settings.seeds:
            own = [row for row in rows if row["seed"] == seed]
            value = at_l0([(row["l0_asked"], row["concepts"][concept]) for row in own], AT)
            known += [] if value is None else [value]
        found.append(sum(known) / len(known))
    return found


def _tree(
    axis: Axes,
    found: Words,
    cells: Sequence[tuple[float, float, int]],
    f1: Sequence[float],
    norm: Normalize,
) -> None:
    for name, (top, height, depth), value in zip(found.names, cells, f1, strict=True):
        colour = MAP(norm(value))
        axis.add_patch(
            Rectangle((depth, top), 1, height, facecolor=colour, edgecolor="white", linewidth=0.8)
        )
        if height >= NARROW:
            axis.annotate(
                f"{_short(name, lines=1 + int(height >= 3 * NARROW))} {value:.2f}",
                (depth + 0.04, top + height / 2),
                va="center",
                fontsize=6.2,
                color="white" if norm(value) > 0.6 else "0.1",
            )
    axis.set_xlim(0, 1 + max(depth for _, _, depth in cells))
    axis.set_ylim(1, 0)
    axis.axis("off")


def _short(name: str, *, lines: int) -> str:
    """A synset's name without its offset, in so many lines of a cell's width."""
    parts = wrap(name.rsplit(".", 1)[0].replace("_", " "), WIDTH)
    return "\n".join(parts[:lines]) + ("…" if len(parts) > lines else "")


def _frontier(axis: Axes, results: Results, metric: str) -> dict[str, dict[str, float]]:
    shown = {}
    for name, rows in models(results).items():
        if name not in WORD_ARMS and name not in RED:
            continue
        points = _levels(results, rows, metric)
        if not points:
            continue
        ours = name in RED
        axis.errorbar(
            list(points),
            [cell.mean for cell in points.values()],
            [cell.half_width or 0.0 for cell in points.values()],
            color=RED[name] if ours else COLOURS[name],
            marker="o" if ours else "s",
            linewidth=2.0 if ours else 1.0,
            markersize=4,
            capsize=2,
            label=WORD_LABELS[name],
        )
        shown[name] = {f"L0 {l0:g}": cell.mean for l0, cell in points.items()}
    if metric == "f1":
        shown["permuted"] = _null(axis, results)
    axis.set_xscale("log")
    axis.set_xticks(
        results.settings.words.common, [f"{v:g}" for v in results.settings.words.common]
    )
    axis.minorticks_off()
    axis.set_xlabel("L0")
    axis.set_title(
        {"f1": "concept F1 (dotted: words permuted)", "ev": "EV of held-out words"}[metric],
        fontsize=10,
    )
    axis.spines[["top", "right"]].set_visible(False)
    if metric == "ev":
        axis.legend(fontsize=7, frameon=False)
    return shown


def _levels(results: Results, rows: Sequence[Mapping], metric: str) -> dict[float, Interval]:
    known = {l0: level(results, rows, metric, l0) for l0 in results.settings.words.common}
    return {l0: cell for l0, cell in known.items() if cell is not None}


def _null(axis: Axes, results: Results) -> dict[str, float]:
    """Of all arms the highest chance: what every line is above, or is not."""
    chances = {
        l0: max(
            (cells[l0].mean for rows in models(results).values()
             if l0 in (cells := _levels(results, rows, "f1_null"))),
            default=None,
        )
        for l0 in results.settings.words.common
    }  # fmt: skip
    known = {l0: value for l0, value in chances.items() if value is not None}
    axis.plot(list(known), list(known.values()), ":", color="0.3")
    return {f"L0 {l0:g}": over_seeds([value]).mean for l0, value in known.items()}
