"""What is told of absorption and hedging: which solution each arm ends in."""

from collections.abc import Iterator, Mapping, Sequence

from toys.reproduce.flat_matched import Metric, outcome, over_seeds
from toys.reproduce.recovery_absorption_arms import (
    ABSORPTION_ARMS,
    OURS,
    SHUFFLED,
    SOLUTIONS,
    TREE,
    label,
)
from toys.reproduce.recovery_absorption_cases import ABSORBED, ABSORPTION_CASES
from toys.reproduce.recovery_absorption_scores import CLOSE, NEAR, WITH
from toys.reproduce.recovery_arms import ARMS
from toys.reproduce.recovery_ceiling import TRUTH
from toys.reproduce.recovery_findings import RULE
from toys.reproduce.recovery_results import Results, differences, mean
from toys.reproduce.recovery_settings import Settings
from toys.reproduce.recovery_synthetic import SLAB, STILL
from toys.reproduce.tables import Cell, Table

Key = tuple[str, float | None]
"""Arm and strength."""

LEAN = (
    "Where an arm ends: a child in the true solution if the latent that fires with it (correlation "
    f"from {WITH:g}) has a cosine from {NEAR:g} with the child, in the absorbed one if it has that "
    "with parent and child together; the one latent of a pair if it fires and is within "
    f"{CLOSE:g}° of a feature, or of a hedged direction. In neither, if less than half of what "
    "there is ends in the two; else in the one that more ends in, where the 95 % t-interval of the "
    "difference of shares over seeds is wholly on one side of 0. The arm of the field is here, "
    "for both metrics, that of the best F1 of parents; L0 is not matched, but said."
)
COMPARED = {
    "parent_f1": Metric("F1 of parents"),
    "absorption": Metric("absorbed share of parents", higher=False),
}
BOTH = {"mcc": "MCC", "chance": "chance MCC", "f1": "F1", "l0": "L0", "ev": "EV"}
OF_TREES = {
    "parent_f1": "parents: F1",
    "parent_precision": "precision",
    "parent_recall": "recall",
    "absorption": "absorbed",
    "absorption_chance": "by chance",
    "absorption_full": "in full",
    "child_true": "children: cos, child",
    "child_absorbed": "cos, parent + child",
    "true": "end: true",
    "wrong": "end: absorbed",
    "nats": "nats of gates",
}
OF_PAIRS = {
    "direction": "direction, °",
    "angle_first": "to the first, °",
    "angle_second": "to the second, °",
    "angle_hedged": "to the hedged, °",
    "angle_biased": "to that with a bias, °",
    "true": "end: a feature",
    "wrong": "end: hedged",
}
ABSORPTION = """\
Toys without noise and of constant sizes, on which the wrong solution is known. *Absorption*: trees
whose siblings exclude each other, as many latents as features. Where a child's atom is parent and
child together, and the parent's latent is silent there, as much is restored with fewer firings.
Four parents of one child, and four of four, are orthonormal; eight of three share 20 dimensions.
*Hedging*: two correlated, orthonormal features and one latent. Its best atom mixes them, and
restores more than either feature alone; the true solution is the more frequent one. Arms with a k
are left out: one latent of one is no sparsity. The exact solutions, and random atoms under a ReLU,
are scored by the same code as trained models. A parent's latent is the one along it, a child's the
one that fires with it: of both solutions these are the right ones. *Absorbed* is the share of a
parent's projection that others' latents carry (`vsae.metrics.absorption`), its chance that of their
directions dealt out anew. Nats of gates are the entropies of the latents' firings, added up. Ours
is `vsae.RecoveryRecipe` on {absorption_l1}, {absorption_slab} and {absorption_final} rows: as it
is, without moves, without moves but with the true tree, or with its levels shuffled, given to the
latents that ℓ1 has found, its ℓ1 phase alone; and `vsae.SparseCodingRecipe` on {absorption_coding}.
Rows per update are {absorption_batch}, of all; moves look at many rows besides. The length of ours
and this number were set by hand on generator seed {choosing}; other settings are those of other
toys. The field's arms see {absorption_seen}; of learning rates {absorption_rates}, and of λ, each
has the candidate of the greatest MCC + F1 on that seed, toy by toy. Seeds of orthonormal toys
differ by a rotation and by what is drawn. k is about as many features as fire on a row, and as
nearly all rows need. Matryoshka and the H-SAE are told how many roots there are, the H-SAE how many
children, too. All rows are drawn from {absorption_rows}, {absorption_test} others are held out;
reported are seeds {seeds}."""


def absorption_numbers(chosen: Settings) -> dict[str, object]:
    """The numbers of the method, by the names it has for them."""
    own = chosen.absorption
    return {
        "absorption_l1": own.recipe.l1_rows,
        "absorption_slab": own.recipe.slab_rows,
        "absorption_final": own.recipe.final_rows,
        "absorption_coding": own.coding.l1_rows + own.coding.relaxed_rows,
        "absorption_batch": own.batch,
        "absorption_seen": own.seen,
        "absorption_rates": ", ".join(f"{rate:g}" for rate in own.rates),
        "absorption_rows": own.rows,
        "absorption_test": own.test,
    }


def models(results: Results, case: str) -> dict[Key, list[Mapping]]:
    """The finished models of a case, in order of tables and of seeds; known solutions first."""
    every = (r for row in results.parts["absorption"].rows for r in (row, *row.get("models", ())))
    found: dict[Key, list[Mapping]] = {}
    for row in every:
        if row["case"] == case and row["failed"] is None:
            found.setdefault((row["arm"], row["strength"]), []).append(row)
    order = [*SOLUTIONS, *OURS, *ABSORPTION_ARMS]
    return {
        key: sorted(found[key], key=lambda row: row["seed"])
        for key in sorted(found, key=lambda key: (order.index(key[0]), key[1] or 0.0))
    }


def absorption_findings(results: Results) -> Iterator[str]:
    """Rules, and what follows from them, case by case."""
    yield RULE
    yield LEAN
    for case in results.settings.absorption.cases:
        found = models(results, case)
        yield from exact(case, found)
        yield from ends(case, found)
        if ABSORPTION_CASES[case].roots:
            yield from against_field(case, found)
            yield from told(case, found)


def exact(case: str, found: Mapping[Key, Sequence[Mapping]]) -> Iterator[str]:
    """What the absorbed solution is worth, and what it saves."""
    true, wrong = found.get((TRUTH, None)), found.get((ABSORBED, None))
    if true and wrong:
        yield (
            f"{title(case)}, the absorbed solution against the true one: explained variance "
            f"{mean(wrong, 'ev')} against {mean(true, 'ev')}, L0 {mean(wrong, 'l0')} against "
            f"{mean(true, 'l0')}, firings of independent gates {mean(wrong, 'nats')} against "
            f"{mean(true, 'nats')} nats a row, recall of parents {mean(wrong, 'parent_recall')} "
            f"against {mean(true, 'parent_recall')}."
        )


def ends(case: str, found: Mapping[Key, Sequence[Mapping]]) -> Iterator[str]:
    """Which arms end in the true solution, and which in the wrong one."""
    trees = bool(ABSORPTION_CASES[case].roots)
    names = ("the true one", "the absorbed one") if trees else ("a feature", "a hedged direction")
    sides: dict[str, list[str]] = {name: [] for name in (*names, "undecided", "neither")}
    for key, rows in found.items():
        if key[0] not in SOLUTIONS:
            shares = f"{label(*key)} ({mean(rows, 'true')} and {mean(rows, 'wrong')})"
            sides[side(rows, names)].append(shares)
    if any(sides.values()):
        said = (f"{name}: {', '.join(arms) or 'none'}" for name, arms in sides.items())
        yield f"{title(case)}, where arms end, and the shares that do: {'; '.join(said)}."


def side(rows: Sequence[Mapping], names: tuple[str, str]) -> str:
    """Where one arm ends."""
    if sum(row["true"] + row["wrong"] for row in rows) < len(rows) / 2:
        return "neither"
    lean = over_seeds([row["lean"] for row in rows])
    if lean.low > 0:
        return names[0]
    return names[1] if lean.high < 0 else "undecided"


def against_field(case: str, found: Mapping[Key, Sequence[Mapping]]) -> Iterator[str]:
    """Ours against the arm of the field that detects parents best."""
    ours, best = found.get((SLAB, None)), best_of_field(found)
    for metric in COMPARED:
        if ours and best is not None and differences(ours, found[best], metric):
            yield said(case, metric, (OURS[SLAB], ours), (label(*best), found[best]))


def told(case: str, found: Mapping[Key, Sequence[Mapping]]) -> Iterator[str]:
    """What it brings to be told the true tree, against none and against one that is shuffled."""
    tree = found.get((TREE, None))
    for other in (STILL, SHUFFLED):
        rows = found.get((other, None))
        for metric in COMPARED:
            if tree and rows and differences(tree, rows, metric):
                yield said(case, metric, (OURS[TREE], tree), (OURS[other], rows))


Named = tuple[str, Sequence[Mapping]]
"""An arm as people read it, and its models."""


def said(case: str, metric: str, one: Named, other: Named) -> str:
    """Two arms compared, seed by seed; less is better where the metric says so."""
    gain = over_seeds(differences(one[1], other[1], metric))
    verdict = outcome(gain if COMPARED[metric].higher else gain.negated())
    shown = (f"{name} {mean(rows, metric)} at L0 {mean(rows, 'l0')}" for name, rows in (one, other))
    return (
        f"{title(case)}, {COMPARED[metric].label}: {' against '.join(shown)}: {verdict} "
        f"({gain}; {gain.count} seeds)."
    )


def best_of_field(found: Mapping[Key, Sequence[Mapping]]) -> Key | None:
    """The arm, at its strength, of the best mean F1 of parents, of those with all seeds."""
    field = {key: rows for key, rows in found.items() if key[0] in ABSORPTION_ARMS}
    seeds = max(map(len, field.values()), default=0)
    whole = [key for key, rows in field.items() if len(rows) == seeds]
    return max(whole, key=lambda key: sum(row["parent_f1"] for row in field[key]), default=None)


def title(case: str) -> str:
    """A case at the beginning of a sentence."""
    text = ABSORPTION_CASES[case].label
    return text[0].upper() + text[1:]


def absorption_tables(results: Results) -> dict[str, Table]:
    """Every arm of every case, means over seeds, beside the known solutions: trees, and pairs."""
    cases = results.settings.absorption.cases
    trees = [case for case in cases if ABSORPTION_CASES[case].roots]
    pairs = [case for case in cases if case not in trees]
    return {
        "absorption": Table(
            "Absorption: held-out rows, and where children end",
            [line for case in trees for line in lines(results, case, OF_TREES)],
        ),
        "hedging": Table(
            "Hedging: one latent for two features, and where it ends",
            [line for case in pairs for line in lines(results, case, OF_PAIRS)],
        ),
        "absorption_choices": Table(
            "Settings of the field's arms, chosen on the choosing seed", [*choices(results)]
        ),
    }


def choices(results: Results) -> Iterator[dict[str, Cell]]:
    """What was chosen of every case and arm, and out of how much."""
    part = results.parts["absorption"]
    for case, arms in part.chosen.items():
        for arm, (strength, lr) in arms.items():
            own = [row for row in part.searched if (row["case"], row["arm"]) == (case, arm)]
            line: dict[str, Cell] = {"toy": ABSORPTION_CASES[case].label, "arm": ARMS[arm].label}
            line |= {"knob": ABSORPTION_ARMS[arm].knob, "chosen strength": strength}
            yield line | {"chosen lr": lr, "models tried": len(own)}


def lines(results: Results, case: str, columns: Mapping[str, str]) -> Iterator[dict[str, Cell]]:
    """The arms of one case."""
    for key, rows in models(results, case).items():
        line: dict[str, Cell] = {"toy": ABSORPTION_CASES[case].label, "arm": label(*key)}
        line["seeds"] = len(rows)
        line |= {name: mean(rows, metric) for metric, name in (BOTH | columns).items()}
        yield line | {"rows seen": rows[0]["seen"], "s": mean(rows, "seconds")}
