"""The tables of ``ladder``: what a run found, laid out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from toys.reproduce.flat_matched import over_seeds
from toys.reproduce.ladder_arms import ARMS, OF_WORLD
from toys.reproduce.ladder_settings import Settings
from toys.reproduce.tables import Cell, Interval, Table, number

RECOVERY = {
    "l0": "L0",
    "coarse_l0": "L0 of the coarse level",
    "dead": "dead, %",
    "ev": "explained variance",
    "coarse_f1": "coarse F1, coarse level",
    "coarse_f1_any": "coarse F1, any latent",
    "fine_f1": "fine F1, fine level",
    "fine_f1_any": "fine F1, any latent",
    "coarse_mcc": "coarse MCC, coarse level",
    "coarse_mcc_any": "coarse MCC, any latent",
    "fine_mcc_any": "fine MCC, any latent",
    "coarse_f1_chance": "coarse F1, by chance",
    "fine_f1_chance": "fine F1, by chance",
    "coarse_mcc_chance": "coarse MCC, by chance",
    "fine_mcc_chance": "fine MCC, by chance",
}
NULLED = {
    "fine_blocks": "block score of the fine level",
    "nested": "nestedness",
    "recruited": "fine latents recruited, effective number",
    "fine_coherence": "mutual coherence, fine level",
    "coarse_coherence": "mutual coherence, coarse level",
}
R2 = {
    "fine_r2": "R² of rows by the fine level",
    "coarse_r2": "R² of rows by the coarse level",
    "fine_r2_shuffled": "R² of rows by the fine level, rows shuffled",
    "coarse_by_fine": "R² of the coarse level by the fine one",
}
WORLD = {
    "clusters": "clusters in clusters",
    "rings": "rings",
    "layers": "clusters in clusters, two layers",
}


@dataclass(frozen=True, eq=False)
class Results:
    """What a run found.

    Args:
        settings: What it was made of.
        rows: One per model.
    """

    settings: Settings
    rows: Sequence[Mapping]

    def of(self, world: str, arm: str) -> list[Mapping]:
        """An arm's models on a toy, by seed."""
        found = [row for row in self.rows if (row["world"], row["arm"]) == (world, arm)]
        return sorted(found, key=lambda row: row["seed"])

    def mean(self, world: str, arm: str, column: str) -> Interval | None:
        """Interval over the seeds that have the value, of read-outs with a null the value."""
        values = [value_of(row, column) for row in self.of(world, arm)]
        known = [value for value in values if value is not None]
        return over_seeds(known) if known else None


def value_of(row: Mapping, column: str) -> float | None:
    """A number of a row; of read-outs beside a null, the read-out."""
    found = row.get(column)
    return found["value"] if isinstance(found, Mapping) else found


def label(arm: str) -> str:
    """An arm as people read it."""
    return ARMS[arm].label


def recovery_table(results: Results, world: str) -> Table:
    """Arms down, recovery across."""
    lines = []
    for arm in OF_WORLD[world]:
        line: dict[str, Cell] = {"arm": label(arm)}
        lines.append(line | {n: results.mean(world, arm, c) for c, n in RECOVERY.items()})
    return Table(f"Recovery on held-out rows: {WORLD[world]}", lines)


def levels_table(results: Results, world: str) -> Table:
    """Arms down; each read-out, and in how many seeds it lies beyond its null."""
    lines = []
    for arm in OF_WORLD[world]:
        rows = results.of(world, arm)
        line: dict[str, Cell] = {"arm": label(arm)}
        for column, name in NULLED.items():
            known = [row[column] for row in rows if row.get(column)]
            line[name] = beside(known, len(rows)) if known else None
        lines.append(line | {name: results.mean(world, arm, c) for c, name in R2.items()})
    title = "What levels say (null model; seeds in which it lies beyond the null)"
    return Table(f"{title}: {WORLD[world]}", lines)


def beside(known: Sequence[Mapping], seeds: int) -> str:
    """A read-out as people read it: mean, mean of its null, seeds beyond the null."""
    value, null = (sum(k[part] for k in known) / len(known) for part in ("value", "null_mean"))
    return f"{number(value)} ({number(null)}; {sum(map(beyond, known))}/{seeds})"


def beyond(found: Mapping) -> bool:
    """Whether a read-out lies outside its null's 95 % range."""
    return not found["null_low"] <= found["value"] <= found["null_high"]


def verdict_table(verdicts: Sequence) -> Table:
    """Every contrast, with its gain and what it decides."""
    return Table(
        "Contrasts, paired by seed",
        [
            {
                "question": v.question,
                "toy": WORLD[v.world],
                "arm": label(v.arm),
                "against": label(v.base),
                "metric": v.metric,
                "gain": v.gain,
                "outcome": str(v.outcome),
            }
            for v in verdicts
        ],
    )


def models_table(results: Results) -> Table:
    """A line per model; what has a null in columns of its own."""
    lines = []
    for row in results.rows:
        line: dict[str, Cell] = {}
        for name, value in row.items():
            if isinstance(value, Mapping):
                line |= {f"{name}_{part}": found for part, found in value.items()}
            elif name != "file":
                line[name] = value
        lines.append(line)
    return Table("Models", lines)


def all_tables(results: Results, verdicts: Sequence) -> dict[str, Table]:
    """By the stem of their files, in the order of the report."""
    found = {"verdicts": verdict_table(verdicts)}
    for world in results.settings.worlds:
        found[f"recovery_{world}"] = recovery_table(results, world)
        found[f"levels_{world}"] = levels_table(results, world)
    return found
