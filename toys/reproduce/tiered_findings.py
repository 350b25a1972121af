"""What the numbers say, by rules that were written before them."""

from collections.abc import Iterator, Mapping, Sequence

import torch

from toys.reproduce.flat_matched import METRICS
from toys.reproduce.tables import Interval, number
from toys.reproduce.tiered_arms import ARMS, BASES, LEARNED, NARROW, TIERED
from toys.reproduce.tiered_claims import COVERAGE, EV, GRADIENT, claims
from toys.reproduce.tiered_document import VARIANTS, WRITTEN
from toys.reproduce.tiered_runs import UNTRAINED
from toys.reproduce.tiered_tables import Results, finished, label

BALANCED = 2.0  # the greatest ratio of two tiers' shares of the active latents in a balanced code
NEAR = 1.05  # a learned scale this near to its floor has ended there


def findings(results: Results) -> list[str]:
    """Sentences, each with its numbers."""
    return [
        *(f"**The published numbers.** {claim}" for claim in claims()),
        *(f"**The published configuration.** {said}" for said in document(results)),
        *(f"**Ours.** {said}" for said in ours(results)),
        *(f"**Learned weights.** {said}" for said in learned(results)),
        *(f"**Coverage.** {said}" for said in coverage(results)),
        *(f"**Against flat SAEs.** {said}" for said in versus(results)),
    ]


def document(results: Results) -> Iterator[str]:
    """Which variants fail, when, and at what."""
    done, failed = [], []
    for name, variant in VARIANTS.items():
        stops = [row for row in results.of(name) if row["failed"]]
        if not stops:
            done.append(variant.label)
            continue
        updates = ", ".join(map(str, sorted({row["done"] for row in stops})))
        where = " or ".join(sorted({row["failed"] for row in stops}))
        failed.append(f"{variant.label} (after {updates} updates: {where})")
    yield f"Completed {len(done)} of {len(VARIANTS)}: {'; '.join(done) or 'none'}."
    yield f"Not finite: {'; '.join(failed) or 'none'}."
    rows = results.of(WRITTEN)
    if all(row["failed"] is None for row in rows):
        ev, l0 = results.mean(rows, "ev"), results.mean(rows, "l0")
        yield (
            f'"No step completed" is not what the configuration does in float32: explained '
            f"variance {ev}, L0 {l0} of {sum(NARROW)}: it is dense, not inactive."
        )
    yield cause(results)
    yield from start(results)


def cause(results: Results) -> str:
    """Whether the number format is what separates what fails from what does not."""
    failing = [name for name in VARIANTS if any(row["failed"] for row in results.of(name))]
    formats = {VARIANTS[name].dtype for name in failing}
    first = all(row["done"] == 0 for name in failing for row in results.of(name))
    if not failing or formats != {torch.float16}:
        return "Cause of a failure: not the number format alone." if failing else "Nothing fails."
    squares = results.settings.norm**2
    over = "above" if squares > torch.finfo(torch.float16).max else "below"
    alone = "Either alone is enough. " if {"half", "half_normalised"} <= set(failing) else ""
    epsilon = "is 0" if torch.tensor(1e-8).half() == 0 else "is not 0"
    return (
        f"All that fails is in float16{', and at its first update' if first else ''}: a squared "
        f"norm of {results.settings.norm:g}² = {squares:g} is {over} its greatest number, "
        f"{torch.finfo(torch.float16).max:g}, and AdamW's ε = 10⁻⁸ {epsilon} in it, so that a "
        f"gradient whose square underflows is divided by 0. {alone}That is a "
        "possible cause of what was published, not a proven one: its number format is not stated, "
        "the printed numbers are of bfloat16, which does not fail here, and its L0 of 0 is not "
        "reproduced."
    )


def start(results: Results) -> Iterator[str]:
    """The untrained published model, beside what was published of it."""
    raw, normalised = (
        [row["ev_before"] for row in results.of(name)] for name in (WRITTEN, "normalised")
    )
    before = raw + normalised
    inside = "between" if min(before) <= EV <= max(before) else "not between"
    within = any(min(found) <= EV <= max(found) for found in (raw, normalised))
    yield (
        f"Explained variance of the untrained model, over seeds: {number(min(raw))} to "
        f"{number(max(raw))} of raw inputs, {number(min(normalised))} to {number(max(normalised))} "
        f"of normalised ones; the published {EV:g} is {inside} these, "
        f"{'and within one of them' if within else 'but within neither'}."
    )
    norms = results.of(WRITTEN)[0]["gradient"]
    listed = ", ".join("not finite" if n is None else number(n) for n in norms)
    yield (
        f"Gradient norms of the tiers at the first update: {listed}; the norm of an input is "
        f'{results.settings.norm:g}. The "high gradient norm" of {GRADIENT:g} is of the size of '
        "the latter."
    )
    first, second, _ = NARROW
    yield (
        f"A tied decoder maps tier 2's {second} codes to {first} numbers, tier 1's, not to an "
        "activation: the published sum of tiers needs decoders of its own (E-D2)."
    )


def ours(results: Results) -> Iterator[str]:
    """Whether they train, how the active latents are shared out, and what each change does."""
    for arm in (TIERED, LEARNED):
        yield trains(results, arm)
    for arm in (TIERED, LEARNED, "equal", "rising", "narrow"):
        if rows := finished(results.middle(arm)):
            yield allocation(results, arm, rows)
    base = results.middle(TIERED)
    for arm in ("at_once", "unclipped", "layer_norm", "raw"):
        if rows := finished(results.middle(arm)):
            yield (
                f"{label(arm)}: L0 {results.mean(rows, 'l0')}, explained variance "
                f"{results.mean(rows, 'ev')}; ours as it is: {results.mean(base, 'l0')}, "
                f"{results.mean(base, 'ev')}."
            )


def trains(results: Results, arm: str) -> str:
    """Whether all models of an arm stayed finite, and every tier active."""
    rows = results.of(arm)
    least = min(min(row["tier_l0"]) for row in finished(rows))
    return (
        f"{label(arm)}: {len(finished(rows))} of {len(rows)} models finite after "
        f"{results.settings.steps} updates at a raw norm of {results.settings.norm:g}; least L0 of "
        f"a tier {number(least)}: {'active in every tier' if least > 0 else 'a tier is dead'}."
    )


def allocation(results: Results, arm: str, rows: Sequence[Mapping]) -> str:
    """Each tier's share of the active latents."""
    shares = [results.share(rows, i).mean for i in range(len(rows[0]["tier_l0"]))]
    even = min(shares) * BALANCED >= max(shares)
    return (
        f"Allocation, {label(arm)}: {' / '.join(map(number, shares))} % of the active latents: "
        f"{'balanced' if even else 'not balanced'} (no share over {BALANCED:g} times another)."
    )


def learned(results: Results) -> Iterator[str]:
    """Where learned scales and weights end."""
    floor, rows = results.settings.floor, finished(results.of(LEARNED))
    ends = [scale for row in rows for scale in row["looks"][-1]["learned"]]
    at_floor = sum(scale <= NEAR * floor for scale in ends)
    yield (
        f"Laplace scales: {at_floor} of {len(ends)} end within {100 * (NEAR - 1):.0f} % of their "
        f"floor, {floor:g} (from {number(rows[0]['looks'][0]['learned'][0])}): under a point "
        "posterior it is the floor that decides."
    )
    rows = finished(results.of("softmax"))
    if rows:
        tiers = range(len(rows[0]["tier_l0"]))
        most = max(tiers, key=lambda i: results.last(rows, "l1", i).mean)
        weights = " / ".join(number(results.last(rows, "learned", i).mean) for i in tiers)
        sizes = " / ".join(number(results.last(rows, "l1", i).mean) for i in tiers)
        yield (
            f"Softmax weights end at {weights} where ℓ1 is {sizes}: the tier of the greatest ℓ1, "
            f"{most + 1}, has {number(100 * results.last(rows, 'learned', most).mean)} % of the "
            f"weight; L0 {results.mean(rows, 'l0')} against "
            f"{results.mean(results.middle(TIERED), 'l0')} with fixed weights of the same sum."
        )


def coverage(results: Results) -> Iterator[str]:
    """Each tier against its controls."""
    rows = finished(results.middle(TIERED))
    for tier in range(len(rows[0]["coverage"])):
        own = results.mean(rows, "coverage", tier)
        parts = [f"rows shuffled {results.mean(rows, 'shuffled', tier)}"]
        for arm in (UNTRAINED, *BASES):
            other = results.mean(finished(results.middle(arm)), "coverage", tier)
            parts.append(f"{label(arm)} {other}, {_higher(own, other)}")
        yield (
            f"Tier {tier + 2} by tier {tier + 1}: {own}; {'; '.join(parts)}. (The claim was "
            f"{COVERAGE:g} % higher; any tier is computed from the one below, so some is by "
            "construction.)"
        )


def _higher(own: Interval | None, other: Interval | None) -> str:
    if own is None or other is None:
        return "not to be compared: a tier does not vary"
    if own.low <= other.high and other.low <= own.high:
        return "intervals overlap"
    percent = 100 * (own.mean / other.mean - 1)
    return f"ours {number(abs(percent))} % {'higher' if percent > 0 else 'lower'}"


def versus(results: Results) -> Iterator[str]:
    """Ours against flat arms of equal width, at matched L0."""
    for metric in ("ev", "ce_recovered"):
        for (arm, base), found in results.contrasts(metric).items():
            at = ", ".join(f"{l0:g}" for l0 in found.common) or "no common L0"
            yield (
                f"{METRICS[metric].label}, {label(arm)} against {ARMS[base].label} at L0 {at}: "
                f"{found.outcome}" + ("." if found.gain is None else f" ({found.gain}).")
            )
