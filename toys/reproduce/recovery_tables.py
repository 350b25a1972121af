"""The tables of the synthetic parts: models, places in trees, structure, families, calibration."""

import itertools
from collections.abc import Iterator, Mapping, Sequence

from toys.recovery_cases import RECOVERY_CASES
from toys.reproduce.flat_matched import over_seeds
from toys.reproduce.recovery_calibration import LEVELS
from toys.reproduce.recovery_ceiling import TRUTH
from toys.reproduce.recovery_gates import GATES
from toys.reproduce.recovery_inference import INFERENCE
from toys.reproduce.recovery_modadd import CHANCE
from toys.reproduce.recovery_results import Results, differences, label, mean
from toys.reproduce.recovery_saelens import FIELD_ARMS
from toys.reproduce.recovery_structure import STRUCTURES
from toys.reproduce.recovery_synthetic import SLAB, STILL
from toys.reproduce.recovery_words_arms import CONTROL
from toys.reproduce.tables import Cell, Table

COLUMNS = {
    "mcc": "MCC",
    "chance": "chance MCC",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "l0": "L0",
    "f1_trimmed": "F1 at L0 = 5",
    "share": "share > 0.9",
    "uniqueness": "uniqueness",
    "ev": "EV",
    "dead": "dead, %",
}
KNOBS = {"stories": "k", "words": "swept"}  # of parts where it is not an arm's own
FAMILY = {"share": "Share of features above cosine 0.9", "f1": "F1", "mcc": "MCC"}


def models_table(results: Results, case: str) -> Table:
    """Every arm of a case, means over seeds."""
    lines = []
    for key, rows in results.keyed(case).items():
        line: dict[str, Cell] = {"arm": label(key), "latents": key[1], "seeds": len(rows)}
        line |= {name: mean(rows, column) for column, name in COLUMNS.items()}
        line["rows seen"] = rows[0]["seen"]
        line["s"] = mean(rows, "seconds")
        lines.append(line)
    true = mean(results.rows(case), "true_l0")
    return Table(f"{case}: held-out rows; true L0 {true}", lines)


def levels_table(results: Results, case: str) -> Table:
    """Features by their place in a tree."""
    lines = []
    for key, rows in results.keyed(case).items():
        line: dict[str, Cell] = {"arm": label(key), "latents": key[1]}
        for level in rows[0]["levels"]:
            for what, name in (("share", "share > 0.9"), ("cosine", "best cosine"), ("f1", "F1")):
                line[f"{level}: {name}"] = mean(rows, "levels", level, what)
        lines.append(line)
    return Table(f"{case}: features by their place in the trees", lines)


def structure_table(results: Results) -> Table:
    """Structure in the prior: quality, the gain on the shuffled, and the edges found."""
    wide = results.settings.widths[0]
    lines = []
    for arm, name in itertools.product((SLAB, STILL), STRUCTURES):
        rows, base = (results.ours("data-a", wide, n, arm) for n in (name, "shuffled"))
        if not rows:
            continue
        line: dict[str, Cell] = {"arm": label((arm, wide, name, None))}
        line |= {COLUMNS[c]: mean(rows, c) for c in ("mcc", "f1", "share", "l0")}
        for metric in ("mcc", "f1"):
            gains = differences(rows, base, metric)
            if name != "shuffled" and gains:
                line[f"{COLUMNS[metric]} − shuffled"] = over_seeds(gains)
        lines.append(line | _edges(rows))
    return Table("Structure between gates, Data A; edges between matched latents", lines)


def _edges(rows: Sequence[Mapping]) -> dict[str, Cell]:
    line: dict[str, Cell] = {"couplings": mean(rows, "structure_found", "couplings")}
    names = {"precision": "precision", "recall": "recall", "density": "chance", "z": "z"}
    for kind in ("together", "exclusive"):
        for column, name in names.items():
            line[f"{kind}: {name}"] = mean(rows, "structure_found", kind, column)
    for column, name in (("share", "true parents"), ("chance", "their chance")):
        line[name] = mean(rows, "structure_found", "parents", column)
    return line


def family_tables(results: Results) -> Iterator[tuple[str, Table]]:
    """A table per metric: cases down, arms across, the better strength of an arm's two."""
    for metric, title in FAMILY.items():
        yield (
            f"families_{metric}",
            Table(
                f"{title}; families, of an arm's strengths the better",
                [
                    _family(results, case, latents, metric)
                    for case in results.settings.small
                    for latents in widths(results, case)
                ],
            ),
        )


def widths(results: Results, case: str) -> list[int]:
    """The numbers of latents that a case was run with."""
    return sorted({key[1] for key in results.keyed(case)})


def _family(results: Results, case: str, latents: int, metric: str) -> dict[str, Cell]:
    line: dict[str, Cell] = {"family": RECOVERY_CASES[case].family, "case": case}
    line["latents"] = latents
    best: dict[str, tuple[float, Cell]] = {}
    for key, rows in results.keyed(case).items():
        if key[1] != latents:
            continue
        name = FIELD_ARMS[key[0]].label if key[0] in FIELD_ARMS else label(key)
        found = mean(rows, metric)
        if found is not None and found.mean >= best.get(name, (-1.0, None))[0]:
            best[name] = found.mean, found
        if metric == "mcc":
            line["chance"] = mean(rows, "chance")
    return line | {name: cell for name, (_, cell) in best.items()}


def calibrated(results: Results) -> dict[str, list[Mapping]]:
    """The models that were calibrated, by case."""
    found: dict[str, list[Mapping]] = {}
    for row in results.parts["calibration"].rows:
        if row["failed"] is None:
            found.setdefault(row["case"], []).append(row)
    return found


def calibration_table(results: Results) -> Table:
    """Firing probabilities and intervals of amplitudes against the truth."""
    lines = []
    for case, rows in calibrated(results).items():
        line: dict[str, Cell] = {"case": case}
        line["matched latents"] = mean(rows, "calibration", "matched")
        names = {"error": "ECE", "error_bound": "ECE of perfect ones, at most", "skill": "skill"}
        for column, name in names.items():
            line[name] = mean(rows, "calibration", "reliability", column)
        for index, level in enumerate(LEVELS):
            name = f"coverage of {100 * level:.0f} %"
            line[name] = mean(rows, "calibration", "intervals", "coverage", index)
        lines.append(line)
    return Table("Firing probabilities and intervals of amplitudes", lines)


def choices_table(results: Results) -> Table:
    """What was chosen for the field's arms, and out of how much."""
    lines = []
    for name, part in results.parts.items():
        for arm, found in part.chosen.items():
            if arm not in FIELD_ARMS:
                continue
            own = [row for row in part.searched if row["arm"] == arm]
            strength, lr = found if isinstance(found, tuple) else (None, found)
            line: dict[str, Cell] = {"arm": FIELD_ARMS[arm].label}
            line["knob"] = KNOBS.get(name, FIELD_ARMS[arm].knob)
            line |= {"chosen strength": strength, "chosen lr": lr}
            line["tried lr"] = _range([row["lr"] for row in own])
            lines.append(line | {"models tried": len(own)})
    return Table("Settings of the field's arms, chosen on the choosing seed", lines)


def _range(values: Sequence[float]) -> str:
    return f"{min(values):g} to {max(values):g}" if values else ""


def group_of(arm: str) -> str:
    """Whose an arm is, to the table of costs."""
    if arm in (CHANCE, CONTROL, TRUTH, INFERENCE):
        return "controls"
    return "ours" if arm.startswith("ours") or arm == GATES else "field"


def cost_table(results: Results) -> Table:
    """CPU seconds of training, ours and the field's."""
    lines = []
    for part in results.parts.values():
        groups = {"search": part.searched, "ours": [], "field": [], "controls": []}
        for row in part.rows:
            groups[group_of(row["arm"])].append(row)
        for group, rows in groups.items():
            if rows:
                fresh = [row for row in rows if not row["cached"]]
                line: dict[str, Cell] = {"models": group, "jobs": len(rows)}
                line["CPU s of training"] = sum(row["seconds"] for row in rows)
                line["of it in this run"] = float(sum(row["seconds"] for row in fresh))
                lines.append(line)
    return Table("What takes what: training only, one thread per job", lines)
