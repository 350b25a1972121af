"""The reviewers' requests, each answered by a claim of its own and a table."""

from collections.abc import Iterator

from toys.reproduce.hsae_data import TITLES
from toys.reproduce.hsae_matched import against_flats
from toys.reproduce.hsae_results import Results, difference
from toys.reproduce.hsae_sweeps import variants
from toys.reproduce.hsae_verdicts import AtLeast, Claim, Comparison, NoEffect


def reviews(results: Results) -> list[Claim]:
    """C21 to C26, in order."""
    return [*widths(results), *capacity(results), *deeper(results), subspace(results)]


def widths(results: Results) -> Iterator[Claim]:
    """C21, C22: total width, against every flat architecture."""
    for same, how, table in (
        (False, "equal k", "matched_total"),
        (True, "matched L0", "matched_l0"),
    ):
        yield Claim(
            name=f"C21-22: total width, {how}",
            source="reviews",
            text=f"lower 1 − EV than TopK, BatchTopK and Matryoshka of equal total width, {how}",
            table=table,
            comparisons=against_flats(results, "unexplained", "total", same_l0=same),
            rule=AtLeast(),
        )


def capacity(results: Results) -> Iterator[Claim]:
    """C25, C26: parameters, FLOPs, active latents."""
    for match, name in (("parameters", "parameters"), ("operations", "FLOPs")):
        for same, how, table in (
            (False, "equal k", f"matched_{match}"),
            (True, "matched L0", "matched_l0"),
        ):
            number = "C25" if not same else "C25-26"
            yield Claim(
                name=f"{number}: {name}, {how}",
                source="reviews",
                text=f"lower 1 − EV than flat SAEs of equal {name}, {how}",
                table=table,
                comparisons=against_flats(results, "unexplained", match, same_l0=same),
                rule=AtLeast(),
            )


def deeper(results: Results) -> Iterator[Claim]:
    """C23: three levels against two."""
    for sweep, how in (("depth", "equal k"), ("depth at equal slots", "equal slots")):
        found = []
        for variant in variants(results.settings):
            if variant.sweep == sweep and variant.recipe.tree.depth == 3:
                one, base = (
                    results.values(variant.data, r, "ev") for r in (variant.recipe, variant.base)
                )
                found.append(
                    Comparison(
                        data=TITLES[variant.data], case=variant.name, lead=difference(one, base)
                    )
                )
        yield Claim(
            name=f"C23: depth, {how}",
            source="reviews",
            text=f"three levels explain more than two, {how}",
            table="sweep_depth" if sweep == "depth" else "sweep_depth_slots",
            comparisons=found,
            rule=AtLeast(),
        )


def subspace(results: Results) -> Claim:
    """C24: is the choice of s without consequence?"""
    found = []
    for variant in variants(results.settings):
        if variant.sweep == "subspace" and variant.recipe != variant.base:
            one, base = (
                results.values(variant.data, r, "ev") for r in (variant.recipe, variant.base)
            )
            found.append(
                Comparison(
                    data=TITLES[variant.data],
                    case=f"{variant.name} against s = {variant.base.subspaces[0]}",
                    lead=difference(one, base),
                )
            )
    return Claim(
        name="C24: subspace",
        source="reviews",
        text="the subspace dimension s makes no difference to explained variance",
        table="sweep_subspace",
        comparisons=found,
        rule=NoEffect(results.settings.margin),
    )
