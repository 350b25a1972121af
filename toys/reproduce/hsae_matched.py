"""The five tables: an H-SAE against flat SAEs with as much of one thing."""

from collections.abc import Iterable, Iterator

from toys.reproduce.flat_arms import Size
from toys.reproduce.flat_matched import FAMILY
from toys.reproduce.hsae_cost import flat_parameters
from toys.reproduce.hsae_data import TITLES
from toys.reproduce.hsae_plan import MATCHED, MATCHES, compared, matched_width, references
from toys.reproduce.hsae_recipes import FLATS, Flat, Hierarchical
from toys.reproduce.hsae_results import Results, Values, cell, difference, gain
from toys.reproduce.hsae_verdicts import Comparison, better
from toys.reproduce.tables import Cell, Table

METRICS = {
    "stories": ("unexplained", "lost_ce"),
    "white": ("unexplained",),
    "park-2": ("unexplained",),
}
NAMES = {"unexplained": "1 − EV", "lost_ce": "1 − CE score"}


def five_tables(results: Results) -> dict[str, Table]:
    """At equal ``k`` by what fixes the width, then all widths at the L0 of the H-SAE."""
    found = {
        f"matched_{match}": Table(
            f"Matched {name}, equal k (flat SAEs have fewer active latents)",
            list(_lines(results, [match], False)),
        )
        for match, name in MATCHES.items()
    }
    found["matched_l0"] = Table(
        "Matched L0, and in turn each of the others", list(_lines(results, list(MATCHES), True))
    )
    return found


def _lines(results: Results, matches: list[str], same_l0: bool) -> Iterator[dict[str, Cell]]:
    settings = results.settings
    for data in compared(settings):
        for tree in references(results.settings, data):
            yield {"data": TITLES[data], "arm": f"H-SAE, a = {tree.branching[0]}"} | own(
                results, data, tree
            )
            for match in matches:
                for arm in FLATS:
                    yield _against(results, data, tree, arm, match, same_l0)


def own(results: Results, data: str, recipe: Hierarchical | Flat) -> dict[str, Cell]:
    """Sizes and metrics of a model as it was run."""
    rows = results.of(data, recipe)
    line: dict[str, Cell] = {"k": recipe.k, "latents": recipe.latents}
    line |= {"L0": results.cell(data, recipe, "l0")}
    if rows and rows[0]["failed"] is None:
        line |= {"parameters": rows[0]["parameters"], "FLOPs/row": rows[0]["flops"]}
    metrics = METRICS.get(data, ("unexplained",))
    return line | {NAMES[m]: results.cell(data, recipe, m) for m in metrics}


def _against(
    results: Results,
    data: str,
    tree: Hierarchical,
    arm: str,
    match: str,
    same_l0: bool,
) -> dict[str, Cell]:
    size = results.sizes[data]
    width = matched_width(match, tree, size)
    line: dict[str, Cell] = {"data": TITLES[data], "arm": FLATS[arm].label}
    if same_l0:
        line |= {"width from": MATCHES[match]} | at_l0_line(results, data, tree, arm, width, size)
    else:
        line |= own(results, data, Flat(arm=arm, width=width, k=tree.k))
    for metric in METRICS[data]:
        theirs = flat_values(results, data, tree, arm, width, metric, same_l0)
        mine = results.values(data, tree, metric)
        lead = difference(theirs, mine)  # of errors: positive is in favour of the H-SAE
        found = gain(lead, 1 - FAMILY / family(results, metric))
        line[f"{NAMES[metric]}: flat − H-SAE"] = found
        line[f"H-SAE lower {NAMES[metric]}"] = str(better(found))
    return line


def family(results: Results, metric: str) -> int:
    """Comparisons of one metric in one way of matching, over all data: those of one claim."""
    settings = results.settings
    measured = [data for data in compared(settings) if metric in METRICS[data]]
    return len(FLATS) * sum(len(references(settings, data)) for data in measured)


def at_l0_line(
    results: Results, data: str, tree: Hierarchical, arm: str, width: int, size: Size
) -> dict[str, Cell]:
    """Sizes and metrics of a flat SAE at the L0 of an H-SAE; FLOPs at a ``k`` of that L0."""
    l0 = cell(results.at_l0_of(data, tree, arm, width, "l0"))
    line: dict[str, Cell] = {"latents": width, "L0": l0}
    if l0 is not None:
        line["parameters"] = flat_parameters(width, size.d_model)
        line["FLOPs/row"] = 2 * round((width + l0.mean) * size.d_model)
    for metric in METRICS[data]:
        line[NAMES[metric]] = cell(results.at_l0_of(data, tree, arm, width, metric))
    return line


def flat_values(
    results: Results,
    data: str,
    tree: Hierarchical,
    arm: str,
    width: int,
    metric: str,
    same_l0: bool,
) -> Values:
    """Of a flat SAE, at the ``k`` or at the L0 of an H-SAE."""
    if same_l0:
        return results.at_l0_of(data, tree, arm, width, metric)
    return results.values(data, Flat(arm=arm, width=width, k=tree.k), metric)


def against_flats(
    results: Results, metric: str, match: str, *, same_l0: bool, data: Iterable[str] = MATCHED
) -> list[Comparison]:
    """Of an error: flat minus H-SAE, for every flat architecture and reference."""
    found = []
    for name in (name for name in data if name in results.settings.data):
        for one in references(results.settings, name):
            width = matched_width(match, one, results.sizes[name])
            mine = results.values(name, one, metric)
            for arm in FLATS:
                theirs = flat_values(results, name, one, arm, width, metric, same_l0)
                case = f"a = {one.branching[0]}, {FLATS[arm].label}"
                found.append(
                    Comparison(data=TITLES[name], case=case, lead=difference(theirs, mine))
                )
    return found
