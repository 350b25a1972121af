"""What moves between latents bring: the recipe with and without them, on Data A and the copulas."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from toys.reproduce.recovery_bars import Bar, families, recovered
from toys.reproduce.recovery_figures import Drawn, write
from toys.reproduce.recovery_findings import RULE, all_three, moved, places
from toys.reproduce.recovery_plan import copulas, latents_of
from toys.reproduce.recovery_results import LABELS, Results
from toys.reproduce.recovery_synthetic import SLAB, STILL
from toys.reproduce.recovery_tables import COLUMNS, family_tables, levels_table, models_table
from toys.reproduce.tables import Table

SCORES = ("mcc", "f1", "share")
COLOURS = {SLAB: "#c62828", STILL: "#ef9a9a"}


def moves_bars(found: Results) -> list[Bar]:
    """Those of recovery, and of the copulas."""
    return [*recovered(found), *families(found)]


def moves_findings(found: Results) -> Iterator[str]:
    """With against without, case by case, and which features are still missed."""
    yield RULE
    yield from moved(found)
    for case in copulas(found.settings):
        latents = latents_of(case, found.settings)
        ours, still = found.ours(case, latents), found.ours(case, latents, arm=STILL)
        if ours and still:
            yield f"{case}, moves against none: {all_three(ours, still)}."
    yield from places(found)


def moves_tables(found: Results) -> dict[str, Table]:
    """Data A, its places in the trees, and the copulas."""
    tables = {"data_a": models_table(found, "data-a"), "levels": levels_table(found, "data-a")}
    small = replace(found.settings, small=tuple(copulas(found.settings)))
    return tables | dict(family_tables(Results(small, found.parts)))


def draw_moves(found: Results, folder: Path) -> list[Path]:
    """The figure; its path."""
    return [write(folder, "moves", moves_figure(found))]


def moves_figure(found: Results) -> Drawn:
    """Scores of Data A, shares by place in its trees and by copula: a line joins a seed's two."""
    figure, shown = Figure(figsize=(16, 4.6), layout="constrained"), {}
    axes = dict(zip(("scores", "trees", "copulas"), figure.subplots(1, 3), strict=True))
    for panel, by_arm in _values(found).items():
        axis, names = axes[panel], list(by_arm[SLAB])
        for place, name in enumerate(names):
            across = [place - 0.15, place + 0.15]  # without, with
            for pair in zip(by_arm[STILL][name], by_arm[SLAB][name], strict=False):
                axis.plot(across, pair, color="0.6", linewidth=0.8, marker=".", ms=3)
            for at, arm in zip(across, (STILL, SLAB), strict=True):
                values = by_arm[arm][name]
                if values:
                    centre = sum(values) / len(values)
                    axis.plot(at, centre, "o", color=COLOURS[arm], ms=9)
                    shown.setdefault(LABELS[arm], {})[f"{panel}, {name}"] = centre
        axis.set_xticks(range(len(names)), [name.removeprefix("copula-") for name in names])
        axis.grid(axis="y", linewidth=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes["scores"].set_title(f"Data A, {found.settings.widths[0]} latents")
    axes["trees"].set_title("the same, by place in the trees")
    axes["copulas"].set_title("copulas")
    axes["trees"].set_ylabel("share of features above cosine 0.9")
    for arm in (STILL, SLAB):
        axes["copulas"].plot([], [], "o", color=COLOURS[arm], ms=9, label=f"{LABELS[arm]}, mean")
    axes["copulas"].plot([], [], color="0.6", marker=".", ms=3, label="a seed")
    axes["copulas"].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)
    return figure, shown


def _values(found: Results) -> dict[str, dict[str, dict[str, list[float]]]]:
    """By panel, arm and name, the values of all seeds."""
    wide, shares = found.settings.widths[0], {"scores": {}, "trees": {}, "copulas": {}}
    for arm in (SLAB, STILL):
        rows = found.ours("data-a", wide, arm=arm)
        levels = list(rows[0]["levels"]) if rows else []
        shares["scores"][arm] = {COLUMNS[m]: [r[m] for r in rows] for m in SCORES}
        shares["trees"][arm] = {n: [r["levels"][n]["share"] for r in rows] for n in levels}
        shares["copulas"][arm] = {
            case: [r["share"] for r in found.ours(case, latents_of(case, found.settings), arm=arm)]
            for case in copulas(found.settings)
        }
    return shares
