"""Which models are trained: the lines of the figures, and the flat SAEs they are matched with."""

from collections.abc import Iterator, Mapping
from functools import cache

import torch

from toys.reproduce.flat_arms import Size
from toys.reproduce.hsae_cost import cost, width_of_operations, width_of_parameters
from toys.reproduce.hsae_data import problem
from toys.reproduce.hsae_recipes import FLATS, Flat, Hierarchical, Recipe
from toys.reproduce.hsae_settings import VALIDATION, Settings

MATCHES = {
    "top": "top width",
    "total": "total width",
    "parameters": "parameters",
    "operations": "FLOPs",
}
"""How the width of a flat SAE follows from an H-SAE; a fifth table matches L0 at each of them."""
MATCHED = ("stories", "white", "park-2")  # data of the five tables
WIDE = ("published", "park-2", "absorption")  # data on which all widths are matched in total too


def compared(settings: Settings) -> list[str]:
    """The data of the five tables that are in the run."""
    return [data for data in MATCHED if data in settings.data]


def tree(settings: Settings, data: str, roots: int, child: tuple[int, int]) -> Hierarchical:
    """An H-SAE of two levels."""
    a, s = child
    return Hierarchical(k=settings.sizes[data].k, roots=roots, branching=(a,), subspaces=(s,))


def lines(settings: Settings, data: str) -> list[Hierarchical]:
    """The H-SAEs of figure 3."""
    sizes = settings.sizes[data]
    return [tree(settings, data, m, child) for child in sizes.children for m in sizes.widths]


def references(settings: Settings, data: str) -> list[Hierarchical]:
    """The H-SAEs that flat ones are matched with; but for the stories, only the first."""
    sizes = settings.sizes[data]
    children = sizes.children if data == "stories" else sizes.children[:1]
    return [tree(settings, data, sizes.reference, child) for child in children]


def reference(settings: Settings, data: str) -> Hierarchical:
    """The first of them, which the sweeps vary."""
    return references(settings, data)[0]


@cache
def matched_width(match: str, recipe: Hierarchical, size: Size) -> int:
    """Latents of the flat SAE that has as much of what is matched as an H-SAE."""
    if match == "top":
        return recipe.roots
    if match == "total":
        return recipe.latents
    with torch.random.fork_rng(devices=[]):
        paid = cost(recipe.build(size), recipe.k)
    if match == "parameters":
        return width_of_parameters(paid.parameters, size.d_model)
    return width_of_operations(paid.operations, size.d_model, recipe.k)


def size_of(settings: Settings, data: str) -> Size:
    """Width and units of the data."""
    return problem(data, settings, VALIDATION).size


def equal_k(settings: Settings, data: str) -> Iterator[Flat]:
    """Flat SAEs of as many selected latents as an H-SAE selects roots, as published."""
    sizes, size = settings.sizes[data], size_of(settings, data)
    widths: dict[int, None] = dict.fromkeys(sizes.widths)
    for recipe in references(settings, data):
        widths |= dict.fromkeys(matched_width(match, recipe, size) for match in MATCHES)
    if data in WIDE:
        widths |= dict.fromkeys(recipe.latents for recipe in lines(settings, data))
    for width in widths:
        yield from (Flat(arm=arm, width=width, k=sizes.k) for arm in FLATS)


def equal_l0(settings: Settings, data: str, l0: Mapping[Recipe, float]) -> Iterator[Flat]:
    """Flat SAEs whose ``k`` is the L0 of an H-SAE, or the two integers around it.

    Args:
        settings: Of the run.
        data: Its name.
        l0: Of the H-SAEs, as measured on held-out rows, mean over seeds.
    """
    size = size_of(settings, data)
    for recipe in references(settings, data):
        widths = [matched_width(match, recipe, size) for match in MATCHES]
        for width in dict.fromkeys(widths):
            for k in around(l0[recipe], settings.tolerance, width):
                yield from (Flat(arm=arm, width=width, k=k) for arm in FLATS)
    for recipe in lines(settings, data) if data == "stories" else ():
        k = around(l0[recipe], settings.tolerance, recipe.roots)[-1]
        yield from (Flat(arm=arm, width=recipe.roots, k=k) for arm in FLATS)


def around(l0: float, tolerance: float, width: int) -> list[int]:
    """The integer that is an L0 up to the tolerance, or those below and above; at most ``width``.

    Example:
        >>> around(7.9, 0.05, 64), around(2.4, 0.05, 64), around(2.4, 0.05, 2)
        ([8], [2, 3], [2])
    """
    near = max(1, round(l0))
    if abs(near - l0) <= tolerance * l0:
        return [min(near, width)]
    low = max(1, int(l0))
    return sorted({min(low, width), min(low + 1, width)})
