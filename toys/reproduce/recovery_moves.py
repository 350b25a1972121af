"""What moves between latents bring: the recipe with and without them, on Data A and the copulas."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from toys.reproduce.recovery_bars import Bar, families, recovered
from toys.reproduce.recovery_figures import Drawn, write
from toys.reproduce.recovery_findings import RULE, all_three, moved, places
from toys.reproduce.recovery_plan import copulas, latents_of
from toys.reproduce.recovery_results import LABELS, Results, mean
from toys.reproduce.recovery_synthetic import SLAB, STILL
from toys.reproduce.recovery_tables import family_tables, levels_table, models_table
from toys.reproduce.tables import Table

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
    """Share of features found, by place in the trees and by copula: bars means, dots seeds."""
    figure, shown = Figure(figsize=(13, 4.6), layout="constrained"), {}
    left, right = figure.subplots(1, 2)
    wide, cases = found.settings.widths[0], copulas(found.settings)
    for at, arm in enumerate((SLAB, STILL)):
        rows = found.ours("data-a", wide, arm=arm)
        names = list(rows[0]["levels"]) if rows else []
        panels = [(left, [[r["levels"][n]["share"] for r in rows] for n in names])]
        by_case = [found.ours(c, latents_of(c, found.settings), arm=arm) for c in cases]
        panels.append((right, [[r["share"] for r in each] for each in by_case]))
        for axis, groups in panels:
            for place, values in enumerate(groups):
                across = place + 0.38 * (at - 0.5)
                axis.bar(across, sum(values) / max(1, len(values)), 0.36, color=COLOURS[arm])
                axis.plot([across] * len(values), values, ".", color="black", ms=4)
            axis.bar(0, 0, color=COLOURS[arm], label=LABELS[arm])
        shown[LABELS[arm]] = {
            "levels": {n: _mean(rows, "levels", n, "share") for n in names},
            "cases": {c: _mean(each, "share") for c, each in zip(cases, by_case, strict=True)},
        }
    left.set_xticks(range(len(names)), names)
    right.set_xticks(range(len(cases)), [case.removeprefix("copula-") for case in cases])
    left.set_title(f"Data A, {wide} latents, by place in the trees", fontsize=10)
    right.set_title("copulas", fontsize=10)
    left.set_ylabel("share of features above cosine 0.9")
    for axis in (left, right):
        axis.set_ylim(0, 1.05)
        axis.spines[["top", "right"]].set_visible(False)
    right.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)
    return figure, shown


def _mean(rows, *path: str) -> float | None:
    found = mean(rows, *path)
    return None if found is None else found.mean
