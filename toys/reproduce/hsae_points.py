"""The numbers behind each figure: panels of named points with intervals, written as CSV."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from toys.reproduce.hsae_claims import TRUE
from toys.reproduce.hsae_cost import flat_parameters
from toys.reproduce.hsae_data import TITLES
from toys.reproduce.hsae_figure5 import ABSORBING, VIEWED
from toys.reproduce.hsae_matched import METRICS, NAMES
from toys.reproduce.hsae_plan import lines, reference
from toys.reproduce.hsae_recipes import FLATS, Flat, Hierarchical, Recipe
from toys.reproduce.hsae_results import Results, cell
from toys.reproduce.hsae_sweeps import variants
from toys.reproduce.hsae_tables import held, reference_and_flats
from toys.reproduce.tables import Interval, Table, interval


@dataclass(frozen=True, kw_only=True)
class Point:
    """One mark.

    Args:
        panel: Title of its panel.
        line: Which line, or row of dots, it belongs to.
        x: Abscissa; 0 where rows are named.
        value: Ordinate.
        chance: Level of the control, if any.
    """

    panel: str
    line: str
    x: float
    value: Interval
    chance: Interval | None = None

    def record(self) -> dict:
        """A row of the CSV."""
        named = {"panel": self.panel, "line": self.line, "x": self.x, "value": self.value}
        return named | {"chance": self.chance}


def table(points: Iterable[Point]) -> Table:
    """For the file beside the figure."""
    return Table("points", [point.record() for point in points])


def figure3(results: Results) -> Iterator[Point]:
    """1 − EV, and 1 − CE score where there is a network, against top width."""
    for data in held(results, ("stories", "white")):
        sizes = results.settings.sizes[data]
        for metric in METRICS.get(data, ("unexplained",)):
            panel = f"{NAMES[metric]}, {TITLES[data]}"
            trees = lines(results.settings, data)
            drawn = [
                (tree_name(one), one.roots, results.values(data, one, metric)) for one in trees
            ]
            for arm, flat in FLATS.items():
                for one in trees[: len(sizes.widths)]:
                    equal = results.values(data, Flat(arm=arm, width=one.roots, k=one.k), metric)
                    drawn.append((f"{flat.label}, equal k", one.roots, equal))
                for one in trees[: len(sizes.widths)]:
                    same = results.at_l0_of(data, one, arm, one.roots, metric)
                    drawn.append((f"{flat.label}, matched L0", one.roots, same))
            for line, m, values in drawn:
                if (value := cell(values)) is not None:
                    yield Point(panel=panel, line=line, x=float(m), value=value)


def tree_name(recipe: Hierarchical) -> str:
    """A line of figure 3."""
    return f"H-SAE, a = {recipe.branching[0]}, s = {recipe.subspaces[0]}"


def cost(results: Results) -> Iterator[Point]:
    """1 − EV against parameters and FLOPs: H-SAEs, and every flat width at the reference's L0."""
    data, size = "stories", results.sizes["stories"]
    if data not in results.settings.data:
        return
    tree = reference(results.settings, data)
    seen = {row["recipe"] for row in results.rows if row["data"] == data}
    widths = sorted({recipe.width for recipe in seen if isinstance(recipe, Flat)})
    for n, name in enumerate(("parameters", "FLOPs per row")):
        panel = f"1 − EV against {name}, {TITLES[data]}"
        for one in lines(results.settings, data):
            value = results.cell(data, one, "unexplained")
            paid = results.cell(data, one, ("parameters", "flops")[n])
            if value is not None and paid is not None:
                yield Point(panel=panel, line=tree_name(one), x=paid.mean, value=value)
        for arm, width in product(FLATS, widths):
            l0, value = (
                cell(results.at_l0_of(data, tree, arm, width, metric))
                for metric in ("l0", "unexplained")
            )
            if value is not None and l0 is not None:
                paid = flat_parameters(width, size.d_model), 2 * (width + l0.mean) * size.d_model
                line = f"{FLATS[arm].label}, matched L0"
                yield Point(panel=panel, line=line, x=float(paid[n]), value=value)


def absorption(results: Results) -> Iterator[Point]:
    """Figure 5a: roots alone and all levels, flat SAEs of equal top and of equal total width."""
    for data in held(results, ABSORBING):
        sizes = results.settings.sizes[data]
        for tree in lines(results.settings, data):
            places: list[tuple[str, Recipe, str]] = [
                ("H-SAE, roots alone", tree, "absorption_top"),
                ("H-SAE, all levels", tree, "absorption"),
            ]
            for arm, flat in FLATS.items():
                for how, width in (("top", tree.roots), ("total", tree.latents)):
                    recipe = Flat(arm=arm, width=width, k=sizes.k)
                    places.append((f"{flat.label}, {how} width", recipe, "absorption"))
            for line, recipe, metric in places:
                value = results.cell(data, recipe, metric)
                if value is not None:
                    yield Point(panel=TITLES[data], line=line, x=float(tree.roots), value=value)
            yield from _exact(results, data, tree)


def _exact(results: Results, data: str, tree: Hierarchical) -> Iterator[Point]:
    """What a solution scores that absorbs all it can, whatever the width."""
    name = "exact absorbed solution"
    rows = [row for row in results.exact if (row["data"], row["name"]) == (data, name)]
    if rows:
        value = interval(row["absorption"] for row in rows)
        yield Point(panel=TITLES[data], line=name, x=float(tree.roots), value=value)


def redundancy(results: Results) -> Iterator[Point]:
    """Figure 5b, normalised: roots alone, and all levels."""
    for data in held(results, VIEWED):
        for n, recipe in enumerate(reference_and_flats(results, data)):
            name = f"{recipe.label}, {recipe.latents} latents"
            for metric, how in (("redundancy_top", "roots alone"), ("redundancy", "all levels")):
                value = results.cell(data, recipe, metric)
                if value is not None and (n == 0 or metric == "redundancy"):
                    line = f"{name}: {how}" if n == 0 else name
                    yield Point(panel=TITLES[data], line=line, x=0.0, value=value)


def structure(results: Results) -> Iterator[Point]:
    """Purity, family and link beside their controls; trees, and inferred trees of total width."""
    for metric in ("family", "purity", "recovery", "link"):
        for data in held(results, ("stories", *TRUE)):
            tree = reference(results.settings, data)
            everything: list[Recipe] = [tree]
            everything += [Flat(arm=a, width=tree.latents, k=tree.k) for a in FLATS]
            for recipe in everything:
                value = results.cell(data, recipe, metric)
                chance = results.cell(data, recipe, f"{metric}_chance")
                if value is not None:
                    line = f"{TITLES[data]}: {recipe.label}"
                    yield Point(panel=metric, line=line, x=0.0, value=value, chance=chance)


def sweeps(results: Results) -> Iterator[Point]:
    """Explained variance of every variant."""
    for variant in variants(results.settings):
        value = results.cell(variant.data, variant.recipe, "ev")
        if value is not None:
            line = f"{variant.sweep}: {variant.name}"
            panel = f"EV, {TITLES[variant.data]}"
            yield Point(panel=panel, line=line, x=0.0, value=value)
