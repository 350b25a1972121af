"""What a run found on synthetic data, looked up; and means over seeds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from toys.reproduce.flat_matched import over_seeds
from toys.reproduce.recovery_ceiling import TRUTH
from toys.reproduce.recovery_runs import Part
from toys.reproduce.recovery_saelens import FIELD_ARMS
from toys.reproduce.recovery_settings import Settings
from toys.reproduce.recovery_synthetic import L1, SLAB, STILL
from toys.reproduce.tables import Interval

PRUNED, TRUTH_PRUNED = "ours-pruned", "truth-pruned"
LABELS = {
    TRUTH: "the truth",
    TRUTH_PRUNED: "the truth, pruned",
    L1: "ours, ℓ1 phase alone",
    SLAB: "ours, spike and slab",
    STILL: "ours, spike and slab, no moves",
    PRUNED: "ours, pruned from the wider",
} | {name: arm.label for name, arm in FIELD_ARMS.items()}
STRUCTURE_LABELS = {
    "none": "",
    "true": " + true trees",
    "learned": " + learned couplings",
    "shuffled": " + couplings shuffled",
}

Key = tuple[str, int, str, float | None]
"""Arm, latents, structure, strength."""


@dataclass(frozen=True, eq=False)
class Results:
    """What a run found.

    Args:
        settings: What it was made of.
        parts: By name, those that were run.
    """

    settings: Settings
    parts: Mapping[str, Part] = field(default_factory=dict)

    def rows(self, case: str) -> list[Mapping]:
        """All models of a case, pruned ones among them, of whichever part; failed ones too."""
        found = [
            row
            for name in ("data-a", "families")
            if name in self.parts
            for row in self.parts[name].rows
            if row["case"] == case
        ]
        names = {TRUTH: TRUTH_PRUNED, SLAB: PRUNED}
        smaller = [
            row | row["pruned"] | {"arm": names[row["arm"]], "curve": []}
            for row in found
            if "pruned" in row
        ]
        return [*found, *smaller]

    def keyed(self, case: str) -> dict[Key, list[Mapping]]:
        """The finished models of a case by what they are, one per seed, in order of tables."""
        found: dict[Key, list[Mapping]] = {}
        for row in self.rows(case):
            if row["failed"] is None:
                found.setdefault(key_of(row), []).append(row)
        order = [TRUTH, SLAB, STILL, L1, TRUTH_PRUNED, PRUNED, *FIELD_ARMS]
        return dict(sorted(found.items(), key=lambda item: (-item[0][1], order.index(item[0][0]))))

    def ours(
        self, case: str, latents: int, structure: str = "none", arm: str = SLAB
    ) -> list[Mapping]:
        """Our models of a case and width, in order of seeds."""
        found = self.keyed(case).get((arm, latents, structure, None), [])
        return sorted(found, key=lambda row: row["seed"])

    def best_of_field(
        self, case: str, latents: int, metric: str
    ) -> tuple[Key, list[Mapping]] | None:
        """The arm of the field, at its strength, with the highest mean, of those with all seeds."""
        field = {k: rows for k, rows in self.keyed(case).items() if k[0] in FIELD_ARMS}
        wide = {key: rows for key, rows in field.items() if key[1] == latents}
        if not wide:
            return None
        seeds = max(map(len, wide.values()))
        found = {key: rows for key, rows in wide.items() if len(rows) == seeds}
        best = max(found, key=lambda key: sum(row[metric] for row in found[key]))
        return best, sorted(found[best], key=lambda row: row["seed"])


def key_of(row: Mapping) -> Key:
    """What a model is, its seed aside."""
    return row["arm"], row["latents"], row.get("structure", "none"), row["strength"]


def label(key: Key) -> str:
    """A model as people read it."""
    arm, _, structure, strength = key
    text = LABELS[arm] + STRUCTURE_LABELS[structure]
    if arm not in FIELD_ARMS or FIELD_ARMS[arm].chosen:
        return text
    return f"{text}, {FIELD_ARMS[arm].knob} = {strength:g}"


def mean(rows: Iterable[Mapping], *path: str | int) -> Interval | None:
    """Interval over the models that have a value, by the names that lead to it; nothing if none."""
    known = [float(v) for v in (_at(row, path) for row in rows) if v is not None]
    return over_seeds(known) if known else None


def _at(row: Mapping, path: Sequence[str | int]) -> float | int | None:
    found: object = row
    for name in path:
        if isinstance(found, Mapping):
            found = found.get(name)
        elif found is not None:
            found = found[name]
    return found


def differences(one: Sequence[Mapping], other: Sequence[Mapping], metric: str) -> list[float]:
    """Of a metric, seed by seed, where both have it."""
    theirs = {row["seed"]: row[metric] for row in other}
    return [row[metric] - theirs[row["seed"]] for row in one if row["seed"] in theirs]
