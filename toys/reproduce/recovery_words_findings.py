"""What the numbers say of the words, by rules that were written before them."""

from collections.abc import Iterator, Mapping, Sequence

from toys.reproduce.flat_matched import FAMILY, outcome, over_seeds
from toys.reproduce.recovery_results import Results, mean
from toys.reproduce.recovery_words_arms import CONTROL, L1, OURS, SLAB, WORD_ARMS, WORD_LABELS
from toys.reproduce.recovery_words_tables import level, models, values
from toys.reproduce.tables import interval, number

RULE = (
    "Words, rule: seeds split the same 2184 words anew, so that intervals say how much a split "
    "matters and nothing of other words; and ours was tuned by hand on one split with EV and "
    "concept scores in sight, the field's learning rates by EV alone. At each common L0 ours is "
    "compared with the arm of the field of the highest mean there; better or worse where the "
    "t-interval over seeds of the difference, seed by seed, is wholly on one side of 0, undecided "
    f"otherwise. Its level is 1 - {FAMILY:g} / n, n being the comparisons of one metric of one "
    "kind: with the field, with its amplitudes solved again, with the control, of structures, "
    "with permuted words."
)
SOLVED = "ev_refitted"  # the control: do supports differ, or amplitudes only?
METRICS = {
    "ev": "EV of held-out words",
    "f1": "concept F1",
    "found": "share of concepts found",
    "purity": "purity of latents",
}
STRUCTURE = (("learned", "shuffled"), ("tree", "tree-shuffled"), ("tree", "none"))


def word_findings(results: Results) -> list[str]:
    """Sentences, each with its numbers."""
    return [
        RULE,
        *(against_field(results, name, metric) for metric in METRICS for name in _ours(results)),
        *(against_field(results, name, SOLVED) for name in _ours(results)),
        *untrained(results),
        *structures(results),
    ]


def word_details(results: Results, stable: Sequence[Mapping]) -> list[str]:
    """More of them: what the tree ties, chance, and other seeds."""
    return [*trees(results), *above_null(results), *found_again(results, stable)]


def _ours(results: Results) -> list[str]:
    return [name for name in (OURS, L1, f"{SLAB} none") if name in models(results)]


def best_of_field(results: Results, metric: str, l0: float) -> str | None:
    """The arm of the highest mean at an L0, of those whose every seed reaches it."""
    known = {
        name: cell.mean
        for name, rows in models(results).items()
        if name in WORD_ARMS and (cell := level(results, rows, metric, l0)) is not None
    }
    return max(known, key=lambda name: known[name]) if known else None


def against_field(results: Results, name: str, metric: str) -> str:
    """One arm of ours against the best of the field, at every common L0."""
    of, parts = len(_ours(results)), []
    for l0 in results.settings.words.common:
        best = best_of_field(results, metric, l0)
        parts.append(f"L0 {l0:g}: {difference(results, name, best, metric, l0, of)}")
    said = f"{WORD_LABELS[name]}: {'; '.join(parts)}."
    if metric == SOLVED:
        return f"Words, control: EV, amplitudes of both solved again, {said}"
    return f"Words, {METRICS[metric]}, {said}"


def difference(
    results: Results, name: str, other: str | None, metric: str, l0: float, of: int
) -> str:
    """Two levels, and what their difference decides, one of so many comparisons at each L0."""
    found = models(results)
    if other is None or name not in found or other not in found:
        return "none to compare with"
    one = values(results, found[name], metric, l0)
    two = values(results, found[other], metric, l0)
    if one is None or two is None:
        return "not reached"
    differences = [a - b for a, b in zip(one, two, strict=True)]
    gain = interval(differences, 1 - FAMILY / (of * len(results.settings.words.common)))
    levels = f"{number(over_seeds(one).mean)} against {number(over_seeds(two).mean)}"
    return f"{levels} of {WORD_LABELS[other]}, {outcome(gain)} ({gain})"


def untrained(results: Results) -> Iterator[str]:
    """Ours and the best of the field against random words as atoms, under the guide of ours."""
    of = 2  # ours, and the field's
    for metric in ("ev", "f1"):
        for l0 in results.settings.words.common:
            names = [OURS, best_of_field(results, metric, l0)]
            parts = [
                f"{WORD_LABELS[name]} {difference(results, name, CONTROL, metric, l0, of)}"
                for name in names
                if name is not None and name in models(results)
            ]
            yield f"Words, control, {METRICS[metric]} at L0 {l0:g}: {'; '.join(parts)}."


def structures(results: Results) -> Iterator[str]:
    """What structure between gates adds to its shuffled twin, and the true tree to none."""
    for one, other in STRUCTURE:
        names = [f"{SLAB} {part}" for part in (one, other)]
        if not set(names) <= set(models(results)):
            continue
        for metric in ("ev", "f1"):
            parts = [
                f"L0 {l0:g}: {difference(results, *names, metric, l0, len(STRUCTURE))}"
                for l0 in results.settings.words.common
            ]
            yield f"Words, structure, {one} against {other}, {METRICS[metric]}: {'; '.join(parts)}."


def trees(results: Results) -> Iterator[str]:
    """How many latents WordNet's tree ties, and what the shuffle changed: the twins' difference."""
    found = models(results).get(f"{SLAB} tree", [])
    rows = list({row["seed"]: row for row in found if "tied" in row}.values())
    if not rows:
        return
    empty, changed = sum(row["tied"] == 0 for row in rows), mean(rows, "changed")
    shuffled = "no edges" if changed is None else f"the shuffle changed {changed} of edges"
    yield (
        f"Words, structure, tree: {mean(rows, 'tied')} latents tied to a parent, {shuffled}; "
        f"no edges, and so the same as none, in {empty} of {len(rows)} seeds."
    )


def above_null(results: Results) -> Iterator[str]:
    """Concept F1 beside that of permuted words, in the middle."""
    l0 = results.settings.words.common[len(results.settings.words.common) // 2]
    for name, rows in models(results).items():
        one, two = (values(results, rows, metric, l0) for metric in ("f1", "f1_null"))
        if one and two:
            gains = [a - b for a, b in zip(one, two, strict=True)]
            gain = interval(gains, 1 - FAMILY / len(models(results)))
            yield (
                f"Words, concept F1 at L0 {l0:g}, {WORD_LABELS[name]}: {over_seeds(one)}; permuted "
                f"words {over_seeds(two)}; {outcome(gain)} than chance ({gain})."
            )


def found_again(results: Results, stable: Sequence[Mapping]) -> Iterator[str]:
    """Stability at each strength, beside that of random words."""
    by_name: dict[str, list[Mapping]] = {}
    for line in stable:
        by_name.setdefault(line["name"], []).append(line)
    for name, lines in by_name.items():
        parts = [
            f"{number(line['found again'])} at L0 {number(line['L0'].mean)} (random words "
            f"{number(line['random words'])})"
            for line in lines
        ]
        yield f"Words, atoms found again in another seed, {WORD_LABELS[name]}: {'; '.join(parts)}."
