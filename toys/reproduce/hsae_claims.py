"""The claims of the document, each with the comparisons that bear on it."""

from collections.abc import Iterator

from toys.reproduce.hsae_data import TITLES
from toys.reproduce.hsae_figure5 import absorption, redundancy, redundancy_at_l0
from toys.reproduce.hsae_matched import against_flats, flat_values
from toys.reproduce.hsae_plan import references, tree
from toys.reproduce.hsae_recipes import FLATS
from toys.reproduce.hsae_results import Results, difference
from toys.reproduce.hsae_sweeps import Variant, variants
from toys.reproduce.hsae_verdicts import AtLeast, Claim, Comparison, NoEffect

TRUE = ("published", "park-2", "park-3", "words", "white")
FEW_DEAD = 1.0  # per cent


def claims(results: Results) -> list[Claim]:
    """All of them, in the order of the document."""
    return [
        *reconstruction(results),
        *absorption(results),
        redundancy(results, "redundancy_top", "top", "normalised by the null"),
        redundancy(results, "difference_top", "top", "as published"),
        redundancy(results, "redundancy", "total", "all levels, total width, normalised"),
        redundancy_at_l0(results),
        *hierarchy(results),
        *ablations(results),
        whitening(results),
    ]


def reconstruction(results: Results) -> Iterator[Claim]:
    """Figure 3."""
    for how, same in (("equal k, as published", False), ("matched L0", True)):
        short = "equal k" if not same else "matched L0"
        table = "matched_l0" if same else "matched_top"
        yield Claim(
            name=f"reconstruction, {short}",
            source="fig. 3b (C12)",
            text=f"lower 1 − EV than a flat SAE of equal top width, {how}",
            table=table,
            comparisons=against_flats(results, "unexplained", "top", same_l0=same),
            rule=AtLeast(),
        )
        yield Claim(
            name=f"CE, {short}",
            source="fig. 3a (C12)",
            text=f"lower 1 − CE score than a flat SAE of equal top width, {how}",
            table=table,
            comparisons=against_flats(results, "lost_ce", "top", same_l0=same, data=["stories"]),
            rule=AtLeast(),
        )
        yield Claim(
            name=f"four times the width, {short}",
            source="§4 (C12)",
            text=f"the widest family on par with flat SAEs of 4 × the top latents (within "
            f"{results.settings.margin:g} of EV), {how}",
            table="figure3_stories",
            comparisons=four_times(results, same),
            rule=AtLeast(results.settings.margin),
        )


def four_times(results: Results, same_l0: bool) -> list[Comparison]:
    """Flat minus H-SAE in 1 − EV, the flat four times as wide as the roots."""
    settings, found = results.settings, []
    sizes = settings.sizes["stories"]
    for m in sizes.widths:
        if 4 * m not in sizes.widths:
            continue
        one = tree(settings, "stories", m, sizes.children[-1])
        mine = results.values("stories", one, "unexplained")
        for arm in FLATS:
            theirs = flat_values(results, "stories", one, arm, 4 * m, "unexplained", same_l0)
            case = f"{m} roots against {4 * m}, {FLATS[arm].label}"
            lead = difference(theirs, mine)
            found.append(Comparison(data=TITLES["stories"], case=case, lead=lead))
    return found


MEASURES = {
    "recovery": "true edges that are found",
    "purity": "P(true child on | child latent on)",
    "family": "children whose best match is a child of their parent's",
    "link": "error taken away by a child, against a sibling in its place",
}


def hierarchy(results: Results) -> Iterator[Claim]:
    """Are parents and children related as they should be, beyond shuffled parents?"""
    for metric, what in MEASURES.items():
        found = []
        for data in results.settings.data:
            for one in references(results.settings, data):
                lead = results.excess(data, one, metric)
                if lead:
                    case = f"a = {one.branching[0]}"
                    found.append(Comparison(data=TITLES[data], case=case, lead=lead))
        yield Claim(
            name=f"hierarchy, {metric}",
            source="§4.1",
            text=f"a hierarchy is learned: {what}, above its control",
            table="structure",
            comparisons=found,
            rule=AtLeast(),
        )


def ablations(results: Results) -> Iterator[Claim]:
    """Appendix B, with numbers."""
    margin, everything = results.settings.margin, variants(results.settings)
    for sweep, name in (("orthogonality", "orthogonality"), ("ℓ1", "ℓ1")):
        chosen = [
            v
            for v in everything
            if v.sweep == sweep and v.recipe != v.base and "AuxK" not in v.name
        ]
        yield Claim(
            name=f"{name} has no effect",
            source="appendix B.2",
            text=f"{name} makes no visible difference to 1 − EV or to the link of children",
            table=f"sweep_{name}",
            comparisons=[c for v in chosen for c in effects(results, v)],
            rule=NoEffect(margin),
        )
    chosen = [v for v in everything if v.sweep == "orthogonality" and v.name != "none"]
    for metric, what in (("dead_top", "roots"), ("dead", "latents of all levels")):
        yield Claim(
            name=f"dead, {what}",
            source="appendix A.3 (C18)",
            text=f"fewer than {FEW_DEAD:g} % of the {what} dead with orthogonality or AuxK, on the "
            "held-out rows",
            table="sweep_orthogonality",
            comparisons=[few_dead(results, v, metric) for v in chosen],
            rule=AtLeast(),
        )
        yield Claim(
            name=f"fewer dead, {what}",
            source="§3.2 (C18)",
            text=f"fewer of the {what} dead with orthogonality or AuxK than without",
            table="sweep_orthogonality",
            comparisons=[fewer_dead(results, v, metric) for v in chosen],
            rule=AtLeast(),
        )


def effects(results: Results, variant: Variant) -> list[Comparison]:
    """Variant minus base."""
    found = []
    for metric, name in (("ev", "EV"), ("link", "link")):
        one, base = (
            results.values(variant.data, r, metric) for r in (variant.recipe, variant.base)
        )
        case = f"{variant.name}: {name}"
        found.append(Comparison(data=TITLES[variant.data], case=case, lead=difference(one, base)))
    return found


def few_dead(results: Results, variant: Variant, metric: str) -> Comparison:
    """How far below the bound, in per cent."""
    dead = results.values(variant.data, variant.recipe, metric)
    lead = {seed: FEW_DEAD - share for seed, share in dead.items()}
    return Comparison(data=TITLES[variant.data], case=variant.name, lead=lead)


def fewer_dead(results: Results, variant: Variant, metric: str) -> Comparison:
    """Base minus variant, in per cent."""
    mine, base = (results.values(variant.data, r, metric) for r in (variant.recipe, variant.base))
    lead = difference(base, mine)
    return Comparison(data=TITLES[variant.data], case=variant.name, lead=lead)


def whitening(results: Results) -> Claim:
    """Appendix B.3: whitened minus raw."""
    one = references(results.settings, "white")[0]
    found = []
    for metric in ("purity", "family", "link"):
        white, raw = (results.excess(data, one, metric) for data in ("white", "words"))
        lead = difference(white, raw)
        case = f"{metric}, whitened − raw"
        found.append(Comparison(data="GloVe nouns", case=case, lead=lead))
    return Claim(
        name="whitening",
        source="appendix B.3 (C17)",
        text="features are meaningful only in the causal inner product: more structure, whitened",
        table="structure",
        comparisons=found,
        rule=AtLeast(),
    )
