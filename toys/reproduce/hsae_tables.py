"""The tables but the five matched ones: figures, structure, sweeps, verdicts, rates, models."""

from collections.abc import Iterable, Iterator, Sequence

from toys.reproduce.hsae_claims import MEASURES
from toys.reproduce.hsae_data import TITLES
from toys.reproduce.hsae_figure5 import ABSORBING, VIEWED
from toys.reproduce.hsae_matched import own
from toys.reproduce.hsae_plan import lines, matched_width, reference
from toys.reproduce.hsae_recipes import FLATS, Flat, Recipe
from toys.reproduce.hsae_results import Results, cell, difference
from toys.reproduce.hsae_sweeps import variants
from toys.reproduce.hsae_verdicts import Claim
from toys.reproduce.tables import Cell, Table, interval

DRAWN = ("stories", "words", "white")
SWEEPS = {
    "subspace": "subspace",
    "depth": "depth",
    "depth_slots": "depth at equal slots",
    "orthogonality": "orthogonality",
    "ℓ1": "ℓ1",
    "presets": "presets",
    "variational": "variational",
}
"""Of each table's stem, the sweep."""


def held(results: Results, names: Iterable[str]) -> list[str]:
    """Those data sets that are in the run."""
    return [name for name in names if name in results.settings.data]


def figure3_table(results: Results, data: str) -> Table:
    """Every point of figure 3, H-SAE and flat, with what it costs."""
    rows = []
    for recipe in lines(results.settings, data):
        a, s = recipe.branching[0], recipe.subspaces[0]
        rows.append(
            {"arm": f"H-SAE, a = {a}, s = {s}", "m": recipe.roots} | own(results, data, recipe)
        )
    for recipe in tops(results, data):
        rows.append({"arm": recipe.label, "m": recipe.width} | own(results, data, recipe))
    return Table(f"Reconstruction against top width, {TITLES[data]}", rows)


def tops(results: Results, data: str) -> list[Flat]:
    """Flat SAEs as wide as the roots of a line, at every ``k`` that was run, in order."""
    widths = set(results.settings.sizes[data].widths)
    found = {row["recipe"] for row in results.rows if row["data"] == data}
    flat = [r for r in found if isinstance(r, Flat) and r.width in widths]
    order = list(FLATS)
    return sorted(flat, key=lambda r: (order.index(r.arm), r.k, r.width))


def beside(results: Results, data: str) -> Iterator[Recipe]:
    """Every H-SAE of the first line, and flat SAEs of its top and total width."""
    sizes = results.settings.sizes[data]
    for tree in lines(results.settings, data)[: len(sizes.widths)]:
        yield tree
        for width in dict.fromkeys((tree.roots, tree.latents)):
            yield from (Flat(arm=arm, width=width, k=sizes.k) for arm in FLATS)


def absorption_table(results: Results) -> Table:
    """Figure 5a, roots alone and all levels, beside the exact solutions."""
    rows = [line for data in held(results, ABSORBING) for line in _absorption(results, data)]
    title = "Absorption: what one latent per parent leaves to others (0: none; read beside F1)"
    return Table(title, rows)


def _absorption(results: Results, data: str) -> Iterator[dict[str, Cell]]:
    for recipe in beside(results, data):
        if results.of(data, recipe):
            yield {"data": TITLES[data], "arm": recipe.label} | _absorbed(results, data, recipe)
    for name in dict.fromkeys(row["name"] for row in results.exact if row["data"] == data):
        rows = [r for r in results.exact if (r["data"], r["name"]) == (data, name)]
        line: dict[str, Cell] = {"data": TITLES[data], "arm": name, "latents": rows[0]["latents"]}
        line |= {"L0": interval(row["l0"] for row in rows)}
        line |= {
            column: interval(row[metric] for row in rows) for metric, column in ABSORPTION.items()
        }
        yield line


ABSORPTION = {
    "absorption_top": "roots alone",
    "absorption_top_chance": "roots alone, chance",
    "absorption_top_f1": "roots alone, F1",
    "absorption": "all levels",
    "absorption_chance": "all levels, chance",
    "absorption_f1": "all levels, F1",
    "absorption_full": "all levels, full absorption",
    "absorption_protocol": "all levels, several main latents",
}


def _absorbed(results: Results, data: str, recipe: Recipe) -> dict[str, Cell]:
    line: dict[str, Cell] = {"m": recipe.tree.roots, "latents": recipe.latents}
    line["L0"] = results.cell(data, recipe, "l0")
    return line | {
        column: results.cell(data, recipe, metric) for metric, column in ABSORPTION.items()
    }


def redundancy_table(results: Results) -> Table:
    """Figure 5b."""
    rows = []
    for data in held(results, VIEWED):
        for recipe in reference_and_flats(results, data):
            line: dict[str, Cell] = {"data": TITLES[data], "arm": recipe.label}
            line |= {"m": recipe.tree.roots, "latents": recipe.latents}
            for metric, column in REDUNDANCY.items():
                line[column] = results.cell(data, recipe, metric)
            rows.append(line)
    title = "Differing features between two views of one thing (normalised: 1 is chance)"
    return Table(title, rows)


REDUNDANCY = {
    "difference_top": "k most active roots: |difference|",
    "difference_top_chance": "of shuffled pairs",
    "redundancy_top": "normalised",
    "difference": "all levels: |difference|",
    "difference_chance": "all levels, shuffled pairs",
    "redundancy": "all levels, normalised",
}


def reference_and_flats(results: Results, data: str) -> Iterator[Recipe]:
    """An H-SAE, flat SAEs of its top width and of its total width."""
    tree = reference(results.settings, data)
    yield tree
    for match in ("top", "total"):
        width = matched_width(match, tree, results.sizes[data])
        yield from (Flat(arm=arm, width=width, k=tree.k) for arm in FLATS)


STRUCTURE = (*MEASURES, "coverage", "lift", "probe", "child_cosine", "offset_cosine")


def structure_table(results: Results) -> Table:
    """Parents and children against the control, trees and inferred trees."""
    rows = []
    for data in results.settings.data:
        for recipe in structured(results, data):
            edges = results.cell(data, recipe, "edges")
            if edges is None:
                continue
            line: dict[str, Cell] = {"data": TITLES[data], "arm": recipe.label}
            line |= {"latents": recipe.latents, "k": recipe.k, "edges": edges}
            for metric in STRUCTURE:
                line[metric] = results.cell(data, recipe, metric)
                line[f"{metric}, control"] = results.cell(data, recipe, f"{metric}_chance")
            rows.append(line)
    return Table("Parents and children, beside shuffled parents", rows)


def structured(results: Results, data: str) -> list[Recipe]:
    """The reference, deeper trees, and flat SAEs of its total width at every ``k`` run."""
    tree = reference(results.settings, data)
    deep = [v.recipe for v in variants(results.settings) if v.data == data and v.sweep == "depth"]
    wide = {
        r["recipe"] for r in results.rows if r["data"] == data and isinstance(r["recipe"], Flat)
    }
    flats = sorted(
        (r for r in wide if isinstance(r, Flat) and r.width == tree.latents),
        key=lambda r: (list(FLATS).index(r.arm), r.k),
    )
    return [*dict.fromkeys([tree, *(r for r in deep if r.tree.depth > 1)]), *flats]


SWEPT = {
    "l0": "L0",
    "ev": "EV",
    "ce_recovered": "CE recovered",
    "dead_top": "dead roots, %",
    "dead": "dead latents, %",
    "mcc": "MCC",
    "elbo": "ELBO, nats/row",
    "link": "link",
    "link_chance": "link, control",
    "family": "family",
    "recovery": "recovery",
}


def sweep_table(results: Results, sweep: str) -> Table:
    """A line per variant, and its difference in EV from what it is compared with."""
    rows = []
    for variant in variants(results.settings):
        if variant.sweep != sweep:
            continue
        data, recipe = variant.data, variant.recipe
        line: dict[str, Cell] = {"data": TITLES[data], "variant": variant.name}
        line["latents"] = recipe.latents
        for metric, column in SWEPT.items():
            if (found := results.cell(data, recipe, metric)) is not None:
                line[column] = found
        for metric, column in (("ev", "EV − base"), ("elbo", "ELBO − base")):
            mine, base = (results.values(data, r, metric) for r in (recipe, variant.base))
            if mine and base:
                lead = cell(difference(mine, base))
                line[column] = "base" if recipe == variant.base else lead
        rows.append(line)
    return Table(f"Sweep: {sweep}", rows)


def hedging_table(results: Results) -> Table:
    """How far the roots' atoms mix the two features, beside the exact optimum of one latent."""
    rows: list[dict[str, Cell]] = []
    for recipe in beside(results, "hedging"):
        mixed = results.cell("hedging", recipe, "hedging")
        line: dict[str, Cell] = {"arm": recipe.label, "m": recipe.tree.roots}
        rows.append(line | {"latents": recipe.latents, "lesser |cosine|": mixed})
    exact = [row["hedging"] for row in results.exact if row["data"] == "hedging"]
    rows.append(
        {"arm": "exact optimum of one latent", "m": 1, "latents": 1}
        | {"lesser |cosine|": interval(exact)}
    )
    return Table("Hedging: how much of the other feature a root's atom has", rows)


def verdict_table(found: Sequence[Claim], title: str) -> Table:
    """A line per claim."""
    return Table(
        title,
        [
            {
                "claim": claim.text,
                "source": claim.source,
                "verdict": str(claim.verdict),
                "comparisons": claim.count(),
                "table": claim.table,
            }
            for claim in found
        ],
    )


def comparison_table(found: Iterable[Claim]) -> Table:
    """A line per comparison, so that every verdict can be checked."""
    rows = [
        {
            "claim": claim.name,
            "data": comparison.data,
            "case": comparison.case,
            "in favour of the claim": lead,
            "must be": claim.rule.text,
            "verdict": str(said),
        }
        for claim in found
        for comparison, lead, said in zip(
            claim.deciding, claim.gains(), claim.verdicts(), strict=True
        )
    ]
    return Table("Every comparison, at the level of its claim (Bonferroni)", rows)


def rates_table(results: Results) -> Table:
    """What was searched, and chosen."""
    rows: dict[tuple[str, Recipe], dict[str, Cell]] = {}
    for row in results.searched:
        recipe = row["recipe"]
        line = rows.setdefault(
            (row["data"], recipe), {"data": TITLES[row["data"]]} | recipe.describe()
        )
        line[f"objective at lr {row['lr']:g}"] = row["objective"]
    return Table("Learning rates: final training objective, validation seed", list(rows.values()))


def models_table(results: Results) -> Table:
    """A line per model."""
    return Table(
        "Models",
        [
            {"data": row["data"]}
            | row["recipe"].describe()
            | {name: value for name, value in row.items() if name not in ("data", "recipe")}
            for row in results.rows
        ],
    )
