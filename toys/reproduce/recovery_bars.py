"""The bars that were set beforehand, each a rule, and whether it is met."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from toys.recovery_cases import RECOVERY_CASES
from toys.reproduce.flat_matched import over_seeds
from toys.reproduce.recovery_plan import latents_of
from toys.reproduce.recovery_results import PRUNED, Results, differences, mean
from toys.reproduce.recovery_structure import above_chance
from toys.reproduce.tables import Cell, Table, number

SLOWER = 2.0  # times BatchTopK's time
GAIN = 0.005  # of MCC, that learned structure has to bring


@dataclass(frozen=True)
class Bar:
    """A claim that was to be reached.

    Args:
        name: What of.
        rule: In words.
        found: The numbers it is about.
        met: Whether it is.
    """

    name: str
    rule: str
    found: str
    met: bool

    @property
    def verdict(self) -> str:
        """Met or not met."""
        return "met" if self.met else "not met"


@dataclass(frozen=True)
class Levels:
    """Means over seeds that are to be reached together.

    Args:
        mcc: At least.
        f1: At least.
        l0: At most.
    """

    mcc: float
    f1: float
    l0: float

    def rule(self) -> str:
        """In words."""
        return f"means: MCC ≥ {self.mcc:g}, F1 ≥ {self.f1:g}, L0 ≤ {self.l0:g}"

    def met(self, mcc: float, f1: float, l0: float) -> bool:
        """Whether all three hold."""
        return mcc >= self.mcc and f1 >= self.f1 and l0 <= self.l0


WIDE, WIDER = Levels(0.92, 0.97, 7.5), Levels(0.97, 0.99, 7.5)
NARROW, NARROWER = Levels(0.90, 0.94, 5.0), Levels(0.93, 0.96, 5.0)


def recovered(results: Results) -> Iterator[Bar]:
    """Recovery on Data A, at both widths."""
    wide, narrow = results.settings.widths
    ours = results.ours("data-a", wide)
    if not ours:
        return
    pruned = results.ours("data-a", narrow, arm=PRUNED)
    yield level_bar(f"Data A, {wide} latents", ours, WIDE)
    yield level_bar(f"Data A, {wide} latents, stretch", ours, WIDER)
    trimmed = mean(ours, "f1_trimmed")
    yield Bar(
        f"Data A, {wide} latents, at L0 = 5",
        "mean F1 ≥ 0.92 when the gates' threshold is raised to L0 = 5",
        "L0 is below 5" if trimmed is None else f"F1 {trimmed}",
        trimmed is not None and trimmed.mean >= 0.92,
    )
    yield level_bar(f"Data A, {narrow} latents, pruned", pruned, NARROW)
    yield level_bar(f"Data A, {narrow} latents, pruned, stretch", pruned, NARROWER)
    if direct := results.ours("data-a", narrow):
        yield level_bar(f"Data A, {narrow} latents, trained directly", direct, NARROW)


def level_bar(name: str, rows: Sequence[Mapping], wanted: Levels) -> Bar:
    """Means over seeds against the levels, and on how many seeds all hold."""
    mcc, f1, l0 = (over_seeds([row[column] for row in rows]) for column in ("mcc", "f1", "l0"))
    each = sum(wanted.met(row["mcc"], row["f1"], row["l0"]) for row in rows)
    text = f"MCC {mcc}, F1 {f1}, L0 {l0}; all three on {each} of {len(rows)} seeds"
    return Bar(name, wanted.rule(), text, wanted.met(mcc.mean, f1.mean, l0.mean))


def structure(results: Results) -> Iterator[Bar]:
    """Learned couplings against the same couplings shuffled."""
    wide = results.settings.widths[0]
    learned, shuffled = (results.ours("data-a", wide, name) for name in ("learned", "shuffled"))
    if not (learned and shuffled):
        return
    mcc, f1 = (differences(learned, shuffled, metric) for metric in ("mcc", "f1"))
    loss = over_seeds(f1)
    yield Bar(
        "Learned structure against shuffled",
        f"MCC higher by ≥ {GAIN:g} on every seed, and the interval of the difference in F1 not "
        "wholly below 0",
        f"MCC {over_seeds(mcc)}, least {number(min(mcc))}; F1 {loss}",
        min(mcc) >= GAIN and not loss.high < 0,
    )
    edges = [row["structure_found"]["together"] for row in learned]
    above = sum(above_chance(found) for found in edges)
    precision, recall, density = (
        mean(edges, column) for column in ("precision", "recall", "density")
    )
    yield Bar(
        "Learned edges",
        "couplings > 0 of learned structure tie features that fire together in a tree, 5 "
        "deviations above chance on every seed",
        f"{above} of {len(edges)} seeds; precision {precision}, recall {recall}, chance {density}",
        above == len(edges),
    )


def cost(results: Results) -> Iterator[Bar]:
    """Our time to BatchTopK's final F1 against BatchTopK's."""
    wide = results.settings.widths[0]
    theirs = {
        key: rows
        for key, rows in results.keyed("data-a").items()
        if key[0] == "batch_topk" and key[1] == wide and key[3] is not None
    }
    ours = results.ours("data-a", wide)
    if not (theirs and ours):
        return
    best = max(theirs.values(), key=lambda rows: sum(row["f1"] for row in rows))
    pairs = [(one, two) for one in ours for two in best if one["seed"] == two["seed"]]
    ratios = [ratio(one, two) for one, two in pairs]
    reached = [value for value in ratios if value is not None]
    text = f"F1 reached on {len(reached)} of {len(ratios)} seeds"
    if reached:
        text += f", in {over_seeds(reached)} times BatchTopK's CPU time"
    yield Bar(
        "Cost",
        f"ours reaches BatchTopK's final F1 on every seed, in ≤ {SLOWER:g} times its time",
        text,
        len(reached) == len(ratios) and max(reached, default=SLOWER + 1) <= SLOWER,
    )


def ratio(ours: Mapping, theirs: Mapping) -> float | None:
    """Our seconds to the F1 of the other's last look, over its own seconds."""
    last = theirs["curve"][-1]
    times = [look["seconds"] for look in ours["curve"] if look["f1"] >= last["f1"]]
    return times[0] / last["seconds"] if times else None


def families(results: Results) -> Iterator[Bar]:
    """Data B: every kind of copula."""
    cases = [c for c in results.settings.small if RECOVERY_CASES[c].family == "copula"]
    by_case = {case: results.ours(case, latents_of(case, results.settings)) for case in cases}
    if not all(by_case.values()) or not by_case:
        return
    least = {case: min(row["share"] for row in rows) for case, rows in by_case.items()}
    yield Bar(
        "Copula families, directions",
        "at least 0.98 of features above cosine 0.9, every kind and seed",
        "; ".join(f"{case} {number(value)}" for case, value in least.items()) + " (least of seeds)",
        min(least.values()) >= 0.98,
    )
    f1 = {case: over_seeds([row["f1"] for row in rows]) for case, rows in by_case.items()}
    yield Bar(
        "Copula families, firing",
        "mean F1 ≥ 0.95 with the slab, every kind",
        "; ".join(f"{case} {value}" for case, value in f1.items()),
        min(value.mean for value in f1.values()) >= 0.95,
    )


def bars_table(found: Sequence[Bar]) -> Table:
    """Each bar with its rule, its numbers and whether it is met."""
    lines: list[dict[str, Cell]] = [
        {"bar": bar.name, "rule": bar.rule, "found": bar.found, "verdict": bar.verdict}
        for bar in found
    ]
    return Table("Bars", lines)
