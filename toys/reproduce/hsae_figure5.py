"""Figure 5 as claims: absorption, its growth with width, and redundancy between two views."""

import math
from collections.abc import Iterator

from toys.reproduce.hsae_data import TITLES
from toys.reproduce.hsae_matched import against_flats
from toys.reproduce.hsae_plan import MATCHED, tree
from toys.reproduce.hsae_recipes import FLATS, Flat
from toys.reproduce.hsae_results import Results, Values, difference
from toys.reproduce.hsae_verdicts import AtLeast, Claim, Comparison

ABSORBING = ("published", "park-2", "absorption")
VIEWED = ("published", "park-2", "words", "white")


HOW = (
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
    ("absorption_top", "top", "roots alone, equal top width, matched L0"),
    ("absorption", "total", "all levels, equal total width, matched L0"),
)


def absorption(results: Results) -> Iterator[Claim]:
    """Figure 5a, as published and with what it left out."""
    for metric, match, how in HOW:
        same = how.endswith("matched L0")
        data = [name for name in ABSORBING if name in MATCHED or not same]
        yield Claim(
            name=f"absorption, {how}",
            source="fig. 5a (C13)",
            text=f"less absorption than a flat SAE: {how}",
            table="absorption",
            comparisons=against_flats(results, metric, match, same_l0=same, data=data),
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


def redundancy_at_l0(results: Results) -> Claim:
    """Figure 5b among codes that say as much."""
    alike = [name for name in VIEWED if name in MATCHED]
    return Claim(
        name="redundancy, matched L0",
        source="fig. 5b (C14, C26)",
        text="fewer differing features between two views of one thing than a flat SAE, matched L0: "
        "all levels, total width, normalised",
        table="redundancy",
        comparisons=against_flats(results, "redundancy", "total", same_l0=True, data=alike),
        rule=AtLeast(),
    )
