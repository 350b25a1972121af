"""The toys' tables and what they say, arm by arm and by rules stated beforehand."""

from collections.abc import Iterator, Mapping, Sequence

from toys.reproduce.part4_compare import called, mean, missed, paired
from toys.reproduce.part4_layered_apart import APART
from toys.reproduce.part4_layered_arms import ARMS
from toys.reproduce.part4_layered_settings import TWO_MODELS
from toys.reproduce.part4_part import Rows
from toys.reproduce.part4_settings import Settings
from toys.reproduce.tables import Cell, Interval, Table

LABELS = {name: label for name, (label, _) in ARMS.items()} | APART

FOUND = {
    "l0": "L0",
    "ev": "EV",
    "dead": "dead",
    "mcc": "MCC",
    "matched": "features matched",
    "mcc_layers": "MCC, layer by layer",
}
WHERE = {
    "presence_auc": "presence, AUC",
    "presence_f1": "presence, F1",
    "presence_exact": "all layers right",
    "first_off": "first layer off by",
    "last_off": "last layer off by",
    "angle_error": "error of the turn, degrees",
}
DIFF = {
    "exclusive_found": "exclusive features found",
    "shared_found": "shared features found",
    "diff_right": "told right, of those found",
    "false_exclusive": "shared told exclusive",
    "missed_exclusive": "exclusive told shared",
}
COMPARED = (
    ("l1-graph", "l1"),
    ("l1-graph", "l1-shuffled"),
    ("graph", "l1"),
    ("graph", "shuffled"),
    ("v-isotropic", "l1"),
    ("v-graph", "v-isotropic"),
    ("v-graph", "v-shuffled"),
)
"""Each against each."""


def models(rows: Rows, case: str, arm: str) -> Sequence[Mapping]:
    """An arm's, a line per seed; none if it failed or was not run."""
    return [
        model
        for row in rows
        if (row["case"], row["arm"]) == (case, arm) and not row["failed"]
        for model in row["models"]
    ]


def layered_tables(settings: Settings, rows: Rows) -> dict[str, Table]:
    """By the stem of their files."""
    cases = settings.layered.cases
    return {
        "layered_found": _table(cases, rows, FOUND, "Features over layers: found"),
        "layered_where": _table(
            [c for c in cases if c != TWO_MODELS],
            rows,
            WHERE,
            "Features over layers: where matched latents say they are",
        ),
        "layered_diff": _table(
            [c for c in cases if c == TWO_MODELS],
            rows,
            DIFF,
            "Two models: what relative norms of latents say",
        ),
        "layered_differences": Table(
            "Paired differences over seeds, 95 %", list(_differences(cases, rows))
        ),
    }


def _table(cases: Sequence[str], rows: Rows, columns: Mapping[str, str], title: str) -> Table:
    lines = []
    for case in cases:
        for arm, label in LABELS.items():
            own = models(rows, case, arm)
            cells = {name: mean(own, key) for key, name in columns.items()}
            if any(cell is not None for cell in cells.values()):
                lines.append({"case": case, "arm": label} | cells)
    return Table(title, lines)


def _differences(cases: Sequence[str], rows: Rows) -> Iterator[dict[str, Cell]]:
    for case in cases:
        for one, other in COMPARED:
            line: dict[str, Cell] = {"case": case, "arm": LABELS[one], "minus": LABELS[other]}
            for key in ("mcc", "ev", "presence_f1", "angle_error"):
                line[(FOUND | WHERE)[key]] = difference(rows, case, one, other, key)
            yield line


def difference(rows: Rows, case: str, one: str, other: str, key: str) -> Interval | None:
    """Of two arms, paired by seed."""
    return paired(models(rows, case, one), models(rows, case, other), key)


def layered_findings(settings: Settings, rows: Rows) -> list[str]:
    """Verdicts on MCC, a sentence per comparison; then two models."""
    cases, target = settings.layered.cases, settings.layered.training.target
    said = []
    for one, other in COMPARED:
        parts = []
        for case in cases:
            found = difference(rows, case, one, other, "mcc")
            if found is None:
                continue
            late = [arm for arm in (one, other) if missed(models(rows, case, arm), target)]
            note = f"; target L0 missed by {', '.join(LABELS[a] for a in late)}" if late else ""
            parts.append(f"{case}: **{called(found)}** ({found}{note})")
        if parts:
            names = f"{LABELS[one]} against {LABELS[other]}"
            said.append(f"True features found (MCC), {names}: {'; '.join(parts)}.")
    return [*said, *_best(cases, rows), *_diff(rows)]


def _best(cases: Sequence[str], rows: Rows) -> Iterator[str]:
    for case in cases:
        means = {arm: found.mean for arm in ARMS if (found := mean(models(rows, case, arm), "mcc"))}
        if means:
            best = max(means, key=lambda arm: means[arm])
            yield (
                f"The greatest mean MCC on {case} is that of {LABELS[best]}, "
                f"{mean(models(rows, case, best), 'mcc')}."
            )


def _diff(rows: Rows) -> Iterator[str]:
    for arm in ("l1", "batch_topk"):
        own = models(rows, TWO_MODELS, arm)
        false, missing = mean(own, "false_exclusive"), mean(own, "missed_exclusive")
        if false and missing:
            yield (
                f"Two models, {LABELS[arm]}: of the shared features found a share of {false} is "
                f"told exclusive, of the exclusive ones found {missing} shared."
            )
