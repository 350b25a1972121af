"""Tables and sentences of the run, computed from its rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from toys.reproduce.dead_arms import ARMS, Arm
from toys.reproduce.dead_runs import DATA, FREE, SHRUNK
from toys.reproduce.dead_settings import Settings
from toys.reproduce.tables import Interval, Table, interval, number

FIXED = 1.5  # the greatest variation of a "fixed" multiple
NAMES = {"dead": "dead, %", "ev": "explained variance", "l0": "L0"}


@dataclass(frozen=True)
class Results:
    """What was trained, and what came of it.

    Args:
        settings: Of the run.
        rows: One per model.
    """

    settings: Settings
    rows: Sequence[dict]

    def values(self, column: str, **where: str | int | float | None) -> list[float]:
        """A column of the rows that are as asked, in the order of seeds."""
        return [r[column] for r in self.rows if all(r[name] == v for name, v in where.items())]

    def arm(self, data: str, arm: str, column: str) -> Interval:
        """A number of the remedies' table."""
        return interval(self.values(column, data=data, arm=arm, k=None))

    def change(self, data: str, arm: Arm, column: str) -> Interval:
        """An arm minus its base, seed by seed."""
        mine = self.values(column, data=data, arm=arm.name, k=None)
        base = self.values(column, data=data, arm=arm.base, k=None)
        return interval(a - b for a, b in zip(mine, base, strict=True))

    def shrunk(self, data: str, arm: str, k: int, alpha: float, column: str) -> Interval:
        """A number of the collapse's table."""
        return interval(self.values(column, data=data, arm=arm, k=k, alpha=alpha))


def all_tables(results: Results) -> dict[str, Table]:
    """By the stem of their files."""
    remedies = {f"remedies_{data}": remedies_table(results, data) for data in DATA}
    return remedies | {"collapse": collapse_table(results), "alpha": alpha_table(results)}


def remedies_table(results: Results, data: str) -> Table:
    """Every arm on one kind of data, and its difference to the arm it is compared with."""
    rows = []
    for arm in ARMS:
        row = {"arm": arm.name}
        row |= {name: results.arm(data, arm.name, column) for column, name in NAMES.items()}
        if arm.base is not None:
            row |= {"against": arm.base}
            row |= {f"Δ {NAMES[c]}": results.change(data, arm, c) for c in ("dead", "ev")}
        rows.append(row)
    return Table(f"{data}: dead latents, explained variance and L0, held-out rows", rows)


def collapse_table(results: Results) -> Table:
    """Living latents over active ones, with and without the KL on all."""
    chosen, rows = results.settings, []
    for data in DATA:
        for k in chosen.ks:
            row: dict = {"data": data, "k": k}
            for title, arm in (("no KL", FREE), ("KL on all", SHRUNK)):
                for name, column in (("alive", "alive"), ("alive / k", "ratio"), ("EV", "ev")):
                    found = results.shrunk(data, arm.name, k, chosen.alpha, column)
                    row[f"{name}, {title}"] = found
            rows.append(row)
    return Table(f"Collapse of {chosen.collapse_latents} latents, α = {chosen.alpha:g}", rows)


def alpha_table(results: Results) -> Table:
    """The same by the weight of the KL, at one ``k``."""
    chosen, rows = results.settings, []
    for data in DATA:
        for alpha in sorted({chosen.alpha, *chosen.alphas}):
            row: dict = {"data": data, "α": alpha}
            for name, column in (("alive / k", "ratio"), ("explained variance", "ev")):
                row[name] = results.shrunk(data, SHRUNK.name, chosen.k, alpha, column)
            rows.append(row)
    return Table(f"Collapse by the weight α of the KL on all, k = {chosen.k}", rows)


def findings(results: Results) -> list[str]:
    """What the tables say, by rules stated in the report."""
    return [*_remedies(results), *_collapse(results)]


def _remedies(results: Results) -> Iterator[str]:
    for arm in ARMS:
        if arm.base is not None:
            said = "; ".join(f"{data}: {_verdict(results, data, arm)}" for data in DATA)
            yield f"**{arm.name}** against {arm.base}: {said}."


def _verdict(results: Results, data: str, arm: Arm) -> str:
    before, after = (results.arm(data, name, "dead").mean for name in (arm.base, arm.name))
    numbers = f"{number(before)} % → {number(after)} %"
    dead = _sign(results.change(data, arm, "dead"), "fewer dead", "more dead", "undecided")
    ev = _sign(results.change(data, arm, "ev"), "lower EV", "higher EV", "EV undecided")
    return f"{dead} ({numbers}), {ev}"


def _sign(change: Interval, below: str, above: str, neither: str) -> str:
    if change.high < 0:
        return below
    return above if change.low > 0 else neither


def _collapse(results: Results) -> Iterator[str]:
    chosen = results.settings
    for data in DATA:
        ratios = {k: _ratio(results, data, k) for k in chosen.ks}
        dying = [r for k, r in ratios.items() if r * k < 0.9 * chosen.collapse_latents]
        listed = ", ".join(f"{number(r)} (k = {k})" for k, r in ratios.items())
        yield (
            f"**Collapse, {data}**: with the KL on all {chosen.collapse_latents} latents, "
            f"alive / k is {listed}; {_multiple(dying)}."
        )


def _ratio(results: Results, data: str, k: int) -> float:
    return results.shrunk(data, SHRUNK.name, k, results.settings.alpha, "ratio").mean


def _multiple(ratios: Sequence[float]) -> str:
    """Whether living latents are a fixed multiple of the active ones, where latents die."""
    if len(ratios) < 2:
        return "latents die at fewer than two k, which says nothing of a multiple"
    factor = max(ratios) / min(ratios)
    verdict = "a fixed multiple" if factor < FIXED else "not a fixed multiple"
    return f"where a tenth or more die it varies by a factor {number(factor)}: {verdict}"
