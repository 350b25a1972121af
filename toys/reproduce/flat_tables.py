"""The tables of ``flat``: every model, arms at matched L0, learning rates, settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from toys.reproduce.flat_arms import ARMS, BASE
from toys.reproduce.flat_controls import CONTROLS
from toys.reproduce.flat_data import TITLES
from toys.reproduce.flat_matched import METRICS, OF, Contrast, cell_at, contrast, over_seeds
from toys.reproduce.flat_settings import Settings
from toys.reproduce.tables import Cell, Table, interval

CHANCE = "random unit atoms (chance)"


@dataclass(frozen=True, eq=False)
class Results:
    """What a run found.

    Args:
        settings: What it was made of.
        searched: Rows of the search for learning rates.
        rows: Rows of results, controls among them.
        chance: MCC of random unit atoms on the toy, per seed.
    """

    settings: Settings
    searched: Sequence[Mapping]
    rows: Sequence[Mapping]
    chance: Mapping[int, float]

    def of(self, data: str, arm: str) -> list[Mapping]:
        """An arm's rows."""
        return [row for row in self.rows if row["data"] == data and row["arm"] == arm]

    def contrasts(self, data: str, metric: str) -> list[Contrast]:
        """Every other arm against the baseline."""
        base, others = self.of(data, BASE), [arm for arm in ARMS if arm != BASE]
        seeds, wanted = self.settings.seeds, self.settings.common(data)
        return [
            contrast(self.of(data, arm), base, seeds, metric, wanted, len(others)) for arm in others
        ]


def label(arm: str) -> str:
    """An arm or control as people read it."""
    return (ARMS | CONTROLS)[arm].label


def matched_table(results: Results, data: str, metric: str) -> Table:
    """Arms down, common L0 across, then the difference to the baseline and what it decides."""
    settings = results.settings
    versus = {contrast.arm: contrast for contrast in results.contrasts(data, metric)}
    lines: list[dict[str, Cell]] = []
    for arm in (*ARMS, *CONTROLS):
        rows = results.of(data, arm)
        if not any(row.get(metric) is not None for row in rows):
            continue
        line: dict[str, Cell] = {"arm": label(arm)}
        for l0 in settings.common(data):
            line[f"L0 = {l0:g}"] = cell_at(rows, settings.seeds, metric, l0)
        lines.append(line | versus_cells(versus.get(arm)))
    if metric == "mcc":
        level = interval(results.chance[seed] for seed in settings.seeds)
        lines.append({"arm": CHANCE} | {f"L0 = {l0:g}": level for l0 in settings.common(data)})
    return Table(f"{METRICS[metric].label} at matched L0, {TITLES[data]}", lines)


def versus_cells(found: Contrast | None) -> dict[str, Cell]:
    """The last two columns; empty for the baseline and for controls."""
    if found is None:
        return {}
    name = f"gain on {label(BASE)}"
    return {name: None if found.gain is None else found.gain, "verdict": str(found.outcome)}


def points_table(results: Results) -> Table:
    """Every arm and strength as run, at its own L0: means and intervals over seeds."""
    lines = []
    for data in OF:
        for arm in (*ARMS, *CONTROLS):
            rows = results.of(data, arm)
            for strength in dict.fromkeys(row["strength"] for row in rows):
                found = [row for row in rows if row["strength"] == strength]
                lines.append(_point(data, arm, strength, found))
    return Table("Every arm and strength, each at its own L0", lines)


def _point(data: str, arm: str, strength: float, rows: Sequence[Mapping]) -> dict[str, Cell]:
    line: dict[str, Cell] = {"data": TITLES[data], "arm": label(arm)}
    line |= {"knob": ARMS[arm].knob if arm in ARMS else "k", "strength": strength}
    line["failed"] = sum(row["failed"] is not None for row in rows)
    for metric in ("l0", "mse", *METRICS):
        values = [row[metric] for row in rows if row.get(metric) is not None]
        name = METRICS[metric].label if metric in METRICS else {"l0": "L0", "mse": "MSE"}[metric]
        line[name] = over_seeds(values) if values else None
    return line


def models_table(results: Results) -> Table:
    """A line per model, seeds apart, learning-rate search included."""
    rows = [dict(row) | {"searched": False} for row in results.rows]
    return Table("Models", [dict(row) | {"searched": True} for row in results.searched] + rows)


def rates_table(results: Results) -> Table:
    """Learning rates: what each arm chose, and by which objectives."""
    lines = []
    for data in OF:
        for arm in ARMS:
            chosen = {row["lr"] for row in results.of(data, arm)}
            line: dict[str, Cell] = {"data": TITLES[data], "arm": label(arm)}
            line |= {"knob": ARMS[arm].knob, "strength": ARMS[arm].middle(data)}
            for row in results.searched:
                if (row["data"], row["arm"]) == (data, arm):
                    line[f"objective at lr {row['lr']:g}"] = row["objective"]
            lines.append(line | {"lr": chosen.pop()})
    return Table("Learning rates: final training objective on the validation seed, nats/row", lines)


def all_tables(results: Results) -> dict[str, Table]:
    """By the stem of their files, in the order of the report."""
    matched = {
        f"{metric}_{data}": matched_table(results, data, metric)
        for data, metrics in OF.items()
        for metric in metrics
    }
    return matched | {"rates": rates_table(results), "points": points_table(results)}
