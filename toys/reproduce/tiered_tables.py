"""The tables of ``tiered``: what a run found, laid out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from toys.reproduce.flat_matched import METRICS, Contrast, cell_at, contrast, over_seeds
from toys.reproduce.tables import Cell, Interval, Table
from toys.reproduce.tiered_arms import ARMS, BASES, CHANGED, COMPARED, LEARNED, TIERED
from toys.reproduce.tiered_document import VARIANTS
from toys.reproduce.tiered_runs import UNTRAINED
from toys.reproduce.tiered_settings import Settings

OURS = (TIERED, LEARNED)
SCORES = {"l0": "L0", "ev": "explained variance", "ce_recovered": "CE recovered", "dead": "dead, %"}


@dataclass(frozen=True, eq=False)
class Results:
    """What a run found.

    Args:
        settings: What it was made of.
        searched: Rows of the search for learning rates.
        rows: Rows of results.
    """

    settings: Settings
    searched: Sequence[Mapping]
    rows: Sequence[Mapping]

    def of(self, arm: str, strength: float | None = None) -> list[Mapping]:
        """An arm's trained models, of one strength or all; of ``UNTRAINED`` those that are not."""
        name = TIERED if arm == UNTRAINED else arm
        return [
            row
            for row in self.rows
            if row["arm"] == name
            and (name in VARIANTS or (row["lr"] is None) == (arm == UNTRAINED))
            and strength in (None, row["strength"])
        ]

    def middle(self, arm: str) -> list[Mapping]:
        """An arm's models of the strength at which arms are set side by side."""
        found = self.of(arm)
        swept = sorted({row["strength"] for row in found})
        return [row for row in found if row["strength"] == swept[len(swept) // 2]]

    def mean(
        self, rows: Sequence[Mapping], column: str, tier: int | None = None
    ) -> Interval | None:
        """Interval over models that have the value; nothing if none has."""
        found = [row.get(column) for row in rows]
        if tier is not None:
            found = [None if value is None else value[tier] for value in found]
        known = [value for value in found if value is not None]
        return over_seeds(known) if known else None

    def share(self, rows: Sequence[Mapping], tier: int) -> Interval:
        """A tier's share of the active latents, in per cent."""
        return over_seeds([100 * row["tier_l0"][tier] / sum(row["tier_l0"]) for row in rows])

    def last(self, rows: Sequence[Mapping], column: str, tier: int) -> Interval:
        """A number of a tier at the last look of training."""
        return over_seeds([row["looks"][-1][column][tier] for row in rows])

    def contrasts(self, metric: str) -> dict[tuple[str, str], Contrast]:
        """Each of ours against each flat arm, at matched L0."""
        settings, comparisons = self.settings, len(OURS) * len(BASES)
        return {
            (arm, base): contrast(
                self.of(arm), self.of(base), settings.seeds, metric, settings.common, comparisons
            )
            for arm in OURS
            for base in BASES
        }


def label(arm: str) -> str:
    """An arm as people read it."""
    return "tiered, untrained" if arm == UNTRAINED else ARMS[arm].label


def finished(rows: Sequence[Mapping]) -> list[Mapping]:
    """The models that stayed finite."""
    return [row for row in rows if row["failed"] is None]


def matched_table(results: Results, metric: str) -> Table:
    """Arms down, common L0 across, then the difference to each flat arm and what it decides."""
    lines, versus = [], results.contrasts(metric)
    for arm in COMPARED:
        rows = results.of(arm)
        line: dict[str, Cell] = {"arm": label(arm)}
        for l0 in results.settings.common:
            line[f"L0 = {l0:g}"] = cell_at(rows, results.settings.seeds, metric, l0)
        for base in BASES if arm in OURS else ():
            found = versus[arm, base]
            line |= {f"gain on {label(base)}": found.gain, f"vs {label(base)}": str(found.outcome)}
        lines.append(line)
    width = results.settings.latents
    return Table(f"{METRICS[metric].label} at matched L0 and width {width}", lines)


def tiers_table(results: Results) -> Table:
    """Ours with one thing changed at a time: quality, and active latents of each tier."""
    lines = []
    for arm in (TIERED, LEARNED, *CHANGED):
        rows = finished(results.middle(arm))
        line: dict[str, Cell] = {
            "arm": label(arm),
            "finite": f"{len(rows)}/{len(results.middle(arm))}",
        }
        if rows:
            line |= {name: results.mean(rows, column) for column, name in SCORES.items()}
            tiers = range(len(rows[0]["tier_l0"]))
            line |= {f"L0 of tier {i + 1}": results.mean(rows, "tier_l0", i) for i in tiers}
        lines.append(line)
    return Table("Ours, and ours with one thing changed, at one strength; held-out rows", lines)


def learned_table(results: Results) -> Table:
    """Where learned scales and learned weights begin and end, beside each tier's ℓ1."""
    lines = []
    for arm in (LEARNED, "softmax"):
        for strength in dict.fromkeys(row["strength"] for row in results.of(arm)):
            rows = finished(results.of(arm, strength))
            for tier in range(len(results.settings.sizes) if rows else 0):
                line: dict[str, Cell] = {
                    "arm": label(arm),
                    "knob": f"{ARMS[arm].knob} = {strength:g}",
                }
                line |= {"tier": tier + 1, "what": "scale b" if arm == LEARNED else "weight w"}
                line["at first"] = rows[0]["looks"][0]["learned"][tier]
                line["at last"] = results.last(rows, "learned", tier)
                line["ℓ1 at last"] = results.last(rows, "l1", tier)
                line["L0 at last"] = results.last(rows, "l0", tier)
                lines.append(line)
    title = f"Learned scales (floor {results.settings.floor:g}) and learned softmax weights"
    return Table(title, lines)


def coverage_table(results: Results) -> Table:
    """What a tier's codes owe to the tier below, and what they would owe to chance."""
    lines = []
    for arm in (TIERED, UNTRAINED, LEARNED, "layer_norm", *BASES):
        rows = finished(results.middle(arm))
        line: dict[str, Cell] = {"arm": label(arm)}
        if arm in BASES:
            line["arm"] = f"{label(arm)}, dealt into tiers"
        for tier in range(len(rows[0]["coverage"]) if rows else 0):
            name = f"tier {tier + 2} by tier {tier + 1}"
            line[name] = results.mean(rows, "coverage", tier)
            line[f"{name}, rows shuffled"] = results.mean(rows, "shuffled", tier)
        lines.append(line)
    return Table("Coverage ratio on held-out rows (1: all of it, 0: none)", lines)


def document_table(results: Results) -> Table:
    """The published configuration and its variants: how far they got, and what stopped them."""
    lines = []
    for name, variant in VARIANTS.items():
        rows = results.of(name)
        line: dict[str, Cell] = {"configuration": variant.label, "models": len(rows)}
        line["updates completed"] = " / ".join(str(row["done"]) for row in rows)
        line["first not finite"] = " / ".join(
            dict.fromkeys(row["failed"] or "nothing" for row in rows)
        )
        line["EV before"] = results.mean(rows, "ev_before")
        line |= {"EV after": results.mean(rows, "ev"), "L0 after": results.mean(rows, "l0")}
        for tier in range(3):
            line[f"L0 of tier {tier + 1}"] = results.mean(rows, "tier_l0", tier)
        lines.append(line)
    return Table("The published configuration, and that with one thing changed", lines)


def points_table(results: Results) -> Table:
    """Every arm and strength as run, at its own L0."""
    lines = []
    for arm in ARMS:
        for strength in dict.fromkeys(row["strength"] for row in results.of(arm)):
            rows = results.of(arm, strength)
            line: dict[str, Cell] = {
                "arm": label(arm),
                "knob": ARMS[arm].knob,
                "strength": strength,
            }
            line |= {"lr": rows[0]["lr"], "failed": len(rows) - len(finished(rows))}
            names = SCORES | {"mse": "MSE", "kl_recovered": "KL recovered"}
            line |= {name: results.mean(rows, column) for column, name in names.items()}
            lines.append(line)
    return Table("Every arm and strength, each at its own L0", lines)


def all_tables(results: Results) -> dict[str, Table]:
    """By the stem of their files, in the order of the report."""
    return {
        "document": document_table(results),
        "tiers": tiers_table(results),
        "learned": learned_table(results),
        "coverage": coverage_table(results),
        "ev": matched_table(results, "ev"),
        "ce_recovered": matched_table(results, "ce_recovered"),
        "points": points_table(results),
    }
