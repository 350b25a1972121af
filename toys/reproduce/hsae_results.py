"""What a run found, and how it is asked: cells over seeds, differences seed by seed, matched L0."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from toys.reproduce.flat_arms import Size
from toys.reproduce.flat_matched import at_l0, over_seeds
from toys.reproduce.hsae_recipes import Flat, Recipe
from toys.reproduce.hsae_settings import Settings
from toys.reproduce.tables import Interval, interval

Values = Mapping[int, float]  # by seed


@dataclass(frozen=True, eq=False)
class Results:
    """Everything trained and measured.

    Args:
        settings: What the run was made of.
        searched: Rows of the search for learning rates.
        rows: Rows of results.
        exact: Scores of solutions in closed form, by data, name and seed.
        sizes: Width and units of each data set.
    """

    settings: Settings
    searched: Sequence[Mapping]
    rows: Sequence[Mapping]
    exact: Sequence[Mapping]
    sizes: Mapping[str, Size]

    @cached_property
    def _index(self) -> dict[tuple[str, Recipe], list[Mapping]]:
        found: dict[tuple[str, Recipe], list[Mapping]] = {}
        for row in self.rows:
            found.setdefault((row["data"], row["recipe"]), []).append(row)
        return found

    def of(self, data: str, recipe: Recipe) -> list[Mapping]:
        """The rows of a model, one per seed."""
        return self._index.get((data, recipe), [])

    def values(self, data: str, recipe: Recipe, metric: str) -> Values:
        """By seed, where it was measured; nothing if any seed failed."""
        rows = self.of(data, recipe)
        if any(row["failed"] for row in rows):
            return {}
        return {r["seed"]: float(r[metric]) for r in rows if r.get(metric) is not None}

    def excess(self, data: str, recipe: Recipe, metric: str) -> Values:
        """A score minus its chance level."""
        chance = self.values(data, recipe, f"{metric}_chance")
        return difference(self.values(data, recipe, metric), chance)

    def cell(self, data: str, recipe: Recipe, metric: str) -> Interval | None:
        """Mean and interval over the seeds that have it."""
        return cell(self.values(data, recipe, metric))

    def at_l0_of(self, data: str, tree: Recipe, arm: str, width: int, metric: str) -> Values:
        """A flat SAE's metric at the L0 of an H-SAE, by seed.

        That of the ``k`` whose L0 is nearest, if it is the same up to the tolerance; else
        interpolated in log L0 between two; never extrapolated.
        """
        l0, found = self.values(data, tree, "l0"), {}
        for seed, wanted in l0.items():
            points = self._points(data, arm, width, metric, seed)
            near = min(points, key=lambda point: abs(point[0] - wanted), default=None)
            if near and abs(near[0] - wanted) <= self.settings.tolerance * wanted:
                found[seed] = near[1]
            elif (value := at_l0(points, wanted)) is not None:
                found[seed] = value
        return found

    def _points(
        self, data: str, arm: str, width: int, metric: str, seed: int
    ) -> list[tuple[float, float]]:
        return [
            (row["l0"], row[metric])
            for row in self.rows
            if row["data"] == data
            and row["seed"] == seed
            and isinstance(row["recipe"], Flat)
            and (row["recipe"].arm, row["recipe"].width) == (arm, width)
            and row["failed"] is None
            and row.get(metric) is not None
        ]


def cell(values: Values) -> Interval | None:
    """Mean and 95 % interval, or nothing."""
    return over_seeds(list(values.values())) if values else None


def difference(one: Values, other: Values) -> Values:
    """Seed by seed, where both are known.

    Example:
        >>> difference({0: 1.0, 1: 2.0}, {1: 0.5})
        {1: 1.5}
    """
    return {seed: one[seed] - other[seed] for seed in one if seed in other}


def gain(values: Values, level: float) -> Interval | None:
    """Interval of a paired difference at a level."""
    return interval(values.values(), level) if values else None
