"""The claims of the document, each with the comparisons that bear on it."""

import math
from collections.abc import Iterable, Iterator

from toys.reproduce.hsae_data import TITLES
from toys.reproduce.hsae_matched import flat_values
from toys.reproduce.hsae_plan import MATCHED, matched_width, references, tree
from toys.reproduce.hsae_recipes import FLATS, Flat
from toys.reproduce.hsae_results import Results, Values, difference
from toys.reproduce.hsae_sweeps import Variant, variants
from toys.reproduce.hsae_verdicts import AtLeast, Claim, Comparison, NoEffect

ABSORBING = ("published", "park-2", "absorption")
VIEWED = ("published", "park-2", "words", "white")
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
        *hierarchy(results),
        *ablations(results),
        whitening(results),
    ]


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


def absorption(results: Results) -> Iterator[Claim]:
    """Figure 5a, as published and with what it left out."""
    for metric, match, how in (
        ("absorption_top", "top", "roots alone, equal top width, equal k, as published"),
        (
            "absorption_top_protocol",
            "top",
            "roots alone, equal top width, several main latents, equal k",
        ),
        (
            "absorption",
            "total",
            "all levels, equal total width, equal k (the H-SAE has up to twice the active latents)",
        ),
    ):
        yield Claim(
            name=f"absorption, {how}",
            source="fig. 5a (C13)",
            text=f"less absorption than a flat SAE: {how}",
            table="absorption",
            comparisons=against_flats(results, metric, match, same_l0=False, data=ABSORBING),
            rule=AtLeast(),
        )
    yield Claim(
        name="absorption, growth",
        source="fig. 5a (C13)",
        text="absorption grows more slowly with top width than a flat SAE's, roots alone, equal k",
        table="absorption",
        comparisons=growth(results),
        rule=AtLeast(),
    )


def growth(results: Results) -> list[Comparison]:
    """Slope per doubling of the top width: flat minus H-SAE."""
    settings, found = results.settings, []
    for data in (name for name in ABSORBING if name in settings.data):
        sizes = settings.sizes[data]
        if len(sizes.widths) < 2:
            continue
        mine = slope(
            {
                m: results.values(
                    data, tree(settings, data, m, sizes.children[0]), "absorption_top"
                )
                for m in sizes.widths
            }
        )
        for arm in FLATS:
            theirs = slope(
                {
                    m: results.values(data, Flat(arm=arm, width=m, k=sizes.k), "absorption_top")
                    for m in sizes.widths
                }
            )
            lead = difference(theirs, mine)
            found.append(Comparison(data=TITLES[data], case=FLATS[arm].label, lead=lead))
    return found


def slope(by_width: dict[int, Values]) -> Values:
    """Least-squares slope against log2 of the width, by seed.

    Example:
        >>> slope({2: {0: 1.0}, 4: {0: 3.0}})
        {0: 2.0}
    """
    at = [math.log2(m) for m in by_width]
    centre = sum(at) / len(at)
    spread = sum((t - centre) ** 2 for t in at)
    seeds = set.intersection(*(set(values) for values in by_width.values()))
    return {
        seed: sum((t - centre) * v[seed] for t, v in zip(at, by_width.values(), strict=True))
        / spread
        for seed in sorted(seeds)
    }


def redundancy(results: Results, metric: str, match: str, how: str) -> Claim:
    """Figure 5b."""
    return Claim(
        name=f"redundancy, {how}",
        source="fig. 5b (C14)",
        text=f"fewer differing features between two views of one thing than a flat SAE, equal k: "
        f"{how}",
        table="redundancy",
        comparisons=against_flats(results, metric, match, same_l0=False, data=VIEWED),
        rule=AtLeast(),
    )


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
