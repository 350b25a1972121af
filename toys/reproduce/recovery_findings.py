"""What the numbers say of the synthetic parts, by rules that were written before them."""

import itertools
from collections.abc import Iterator, Mapping, Sequence

from toys.recovery_cases import RECOVERY_CASES
from toys.reproduce.flat_matched import outcome, over_seeds
from toys.reproduce.recovery_arms import ARMS
from toys.reproduce.recovery_calibration import LEVELS
from toys.reproduce.recovery_ceiling import TRUTH
from toys.reproduce.recovery_plan import COVARIANCES, latents_of
from toys.reproduce.recovery_results import (
    STRUCTURE_LABELS,
    TRUTH_PRUNED,
    Results,
    differences,
    label,
    mean,
)
from toys.reproduce.recovery_structure import STRUCTURES
from toys.reproduce.recovery_synthetic import SLAB, STILL
from toys.reproduce.recovery_tables import calibrated
from toys.reproduce.tables import number

RULE = (
    "Rule: better or worse is said where the 95 % t-interval over seeds of the difference, seed by "
    "seed, is wholly on one side of 0, each comparison on its own; undecided otherwise. The arm of "
    "the field that ours is compared with is the one, at its strength, of the highest mean."
)


def on_data_a(results: Results) -> Iterator[str]:
    """Sentences on Data A, each with its numbers."""
    yield RULE
    yield from against_field(results, "data-a")
    yield from phases(results)
    yield from structures(results)
    yield from places(results)
    yield from ceilings(results)


def ceilings(results: Results) -> Iterator[str]:
    """What the truth scores where fewer firings are asked for than there are."""
    wide, narrow = results.settings.widths
    whole = results.ours("data-a", wide, arm=TRUTH)
    few = results.ours("data-a", narrow, arm=TRUTH_PRUNED)
    if whole and few:
        yield (
            f"The truth itself at L0 = 5: F1 {mean(whole, 'f1_trimmed')} with its smallest firings "
            f"dropped, {mean(whole, 'f1_silenced')} with its most frequent features silenced. Its "
            f"{narrow} features of greatest mean square have L0 {mean(few, 'l0')}."
        )


def on_families(results: Results) -> Iterator[str]:
    """Sentences on the families, each with its numbers."""
    yield RULE
    yield from by_family(results)
    yield from other_widths(results)
    yield from covariances(results)


def against_field(results: Results, case: str) -> Iterator[str]:
    """Ours without structure against the best arm of the field."""
    ours = results.ours(case, latents_of(case, results.settings))
    for metric, name in (("mcc", "MCC"), ("f1", "F1"), ("share", "share > 0.9")):
        best = results.best_of_field(case, latents_of(case, results.settings), metric)
        if not ours or best is None:
            continue
        yield (
            f"{case}, {name}: ours {mean(ours, metric)} against {label(best[0])} "
            f"{mean(best[1], metric)}: {compared(ours, best[1], metric)}."
        )


def compared(one: Sequence[Mapping], other: Sequence[Mapping], metric: str) -> str:
    """The difference of two arms, and what it decides."""
    gain = over_seeds(differences(one, other, metric))
    return f"{outcome(gain)} ({gain}; {gain.count} seeds)"


def phases(results: Results) -> Iterator[str]:
    """What the slab adds to the ℓ1 phase."""
    wide = results.settings.widths[0]
    slab, first = results.ours("data-a", wide), results.ours("data-a", wide, arm="ours-l1")
    if slab and first:
        for metric in ("mcc", "f1"):
            yield (
                f"Slab ({slab[0]['seen']} rows, L0 {mean(slab, 'l0')}) against the ℓ1 phase alone "
                f"({first[0]['seen']} rows, L0 {mean(first, 'l0')}), {metric.upper()}: "
                f"{compared(slab, first, metric)}."
            )
        trimmed = [mean(rows, "f1_trimmed") for rows in (first, slab)]
        if None not in trimmed:
            yield (
                f"F1 at L0 = 5: {trimmed[0]} of the ℓ1 phase alone, its smallest codes dropped; "
                f"{trimmed[1]} of the slab, its least sure firings dropped."
            )


def structures(results: Results) -> Iterator[str]:
    """What structure in the prior adds to none."""
    wide = results.settings.widths[0]
    for arm, name in itertools.product((SLAB, STILL), STRUCTURES):
        none, rows = results.ours("data-a", wide, arm=arm), results.ours("data-a", wide, name, arm)
        if name == "none" or not rows or not none:
            continue
        still = "" if arm == SLAB else ", without moves"
        yield f"Structure,{STRUCTURE_LABELS[name]}, against none{still}: {all_three(rows, none)}."
        shuffled = results.ours("data-a", wide, "shuffled", arm)
        if name == "learned" and shuffled:
            yield (
                f"Structure,{STRUCTURE_LABELS[name]}, against the same shuffled{still}: "
                f"{all_three(rows, shuffled)}."
            )


def moved(results: Results) -> Iterator[str]:
    """What moves between latents bring."""
    wide = results.settings.widths[0]
    ours, still = results.ours("data-a", wide), results.ours("data-a", wide, arm=STILL)
    if ours and still:
        yield f"Moves between latents, against none: {all_three(ours, still)}."


def all_three(one: Sequence[Mapping], other: Sequence[Mapping]) -> str:
    """Two arms compared by what is found and by what fires."""
    return "; ".join(f"{m} {compared(one, other, m)}" for m in ("mcc", "f1", "share"))


def places(results: Results) -> Iterator[str]:
    """Which features are missed."""
    ours = results.ours("data-a", results.settings.widths[0])
    if ours:
        shares = {level: mean(ours, "levels", level, "share") for level in ours[0]["levels"]}
        text = ", ".join(f"{level} {share}" for level, share in shares.items())
        yield f"Data A, ours, share of features above cosine 0.9 by place in the trees: {text}."


def by_family(results: Results) -> Iterator[str]:
    """On how many cases ours finds more than every arm of the field."""
    for metric, name in (("share", "share > 0.9"), ("f1", "F1")):
        better, rest = [], []
        for case in results.settings.small:
            ours = results.ours(case, latents_of(case, results.settings))
            best = results.best_of_field(case, latents_of(case, results.settings), metric)
            if not ours or best is None:
                continue
            gain = over_seeds(differences(ours, best[1], metric))
            place = better if gain.low > 0 else rest
            place.append(f"{case} {number(gain.mean, digits=2)} against {ARMS[best[0][0]].label}")
        yield (
            f"Families, {name}: ours better than the best arm of the field on {len(better)} of "
            f"{len(better) + len(rest)} cases; not on: {'; '.join(rest) or 'none'}."
        )


def other_widths(results: Results) -> Iterator[str]:
    """Fewer and more latents than features."""
    for case in results.settings.pilot:
        count = RECOVERY_CASES[case].case.features
        for factor in results.settings.factors:
            rows = results.ours(case, int(factor * count))
            best = results.best_of_field(case, int(factor * count), "f1")
            if rows and best:
                yield (
                    f"{case}, {int(factor * count)} latents for {count} features: share > 0.9 "
                    f"{mean(rows, 'share')}, F1 {mean(rows, 'f1')}; F1 against {label(best[0])}: "
                    f"{compared(rows, best[1], 'f1')}."
                )


def covariances(results: Results) -> Iterator[str]:
    """What a Gaussian covariance adds to independent codes of the same kind."""
    base, *structured = COVARIANCES
    for case in results.settings.small:
        latents = latents_of(case, results.settings)
        found = {k[0]: rows for k, rows in results.keyed(case).items() if k[1] == latents}
        for arm in structured:
            if base in found and arm in found:
                said = (
                    f"{name} {compared(found[arm], found[base], metric)}"
                    for metric, name in (("share", "share > 0.9"), ("f1", "F1"))
                )
                yield f"{case}, {ARMS[arm].label} against {ARMS[base].label}: {'; '.join(said)}."


def calibrations(results: Results) -> Iterator[str]:
    """How far probabilities and intervals can be believed."""
    for case, rows in calibrated(results).items():
        error, bound = (
            mean(rows, "calibration", "reliability", name) for name in ("error", "error_bound")
        )
        if error is None or bound is None:
            continue
        covered = [
            mean(rows, "calibration", "intervals", "coverage", i) for i in range(len(LEVELS))
        ]
        text = ", ".join(
            f"{number(100 * level)} %: {cell}" for level, cell in zip(LEVELS, covered, strict=True)
        )
        said = "within" if error.mean <= bound.mean else "beyond"
        yield (
            f"Calibration, {case}: firing probabilities are off by {error} (ECE), {said} what "
            f"perfect ones of as many events would show, {bound}; intervals of amplitudes hold the "
            f"truth: {text}."
        )
