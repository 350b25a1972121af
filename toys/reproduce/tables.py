"""Tables of results: rows of named cells to CSV and Markdown, no number typed by hand."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy.special import stdtrit

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and the half-width of its 95 % t-interval, in the units of the values.

    Args:
        mean: Their mean.
        half_width: ``None`` for a single value, of which nothing is known.
        count: How many values.
    """

    mean: float
    half_width: float | None
    count: int

    @property
    def low(self) -> float:
        """Lower end; minus infinity for a single value."""
        return self.mean - (math.inf if self.half_width is None else self.half_width)

    @property
    def high(self) -> float:
        """Upper end; infinity for a single value."""
        return self.mean + (math.inf if self.half_width is None else self.half_width)

    def negated(self) -> "Interval":
        """The interval of minus the quantity."""
        return Interval(-self.mean, self.half_width, self.count)

    def __str__(self) -> str:
        if self.half_width is None:
            return number(self.mean)
        return f"{number(self.mean)} ± {number(self.half_width, digits=2)}"


Cell = str | int | float | Interval | None


def interval(values: Iterable[float], level: float = LEVEL) -> Interval:
    r"""Mean and interval of independent values (one per seed), by Student's t; 95 % by default.

    .. math:: \bar v \pm t_{(1 + \mathrm{level})/2,\,n-1}\, s / \sqrt n

    Example:
        >>> str(interval([1.0, 2.0, 3.0]))
        '2 ± 2.5'

    Source:
        Student (1908), *The probable error of a mean*, Biometrika 6.
    """
    values = [float(v) for v in values]
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return Interval(mean, None, 1)
    variance = math.fsum((v - mean) ** 2 for v in values) / (count - 1)
    quantile = float(stdtrit(count - 1, 0.5 + level / 2))
    return Interval(mean, quantile * math.sqrt(variance / count), count)


def number(value: float, *, digits: int = 3) -> str:
    """``value`` to ``digits`` significant digits, without an exponent where it can be read without.

    Example:
        >>> number(0.012345), number(12345.6), number(0.0), number(1e-7)
        ('0.0123', '12346', '0', '1e-07')
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    if places > 8:
        return f"{value:.{digits}g}"
    text = f"{value:.{max(places, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@dataclass(frozen=True)
class Table:
    """Rows under a title; a row maps column names to cells, and may lack some of them.

    Args:
        title: What the table shows, with its units.
        rows: At least one; columns are those of all rows, in order of first appearance.

    Example:
        >>> table = Table("Error", [{"arm": "iso", "mse": interval([1.0, 2.0])}, {"arm": "ℓ1"}])
        >>> print(table.markdown())
        **Error**
        <BLANKLINE>
        | arm | mse |
        |---|---|
        | iso | 1.5 ± 6.4 |
        | ℓ1 | – |
    """

    title: str
    rows: Sequence[Mapping[str, Cell]]

    @property
    def columns(self) -> list[str]:
        """Names of all columns."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def markdown(self) -> str:
        """The table as people read it: rounded, intervals as ``mean ± half-width``."""
        lines = [f"**{self.title}**", "", _line(self.columns), "|" + "---|" * len(self.columns)]
        lines += [_line([_text(row.get(name)) for name in self.columns]) for row in self.rows]
        return "\n".join(lines)

    def records(self) -> list[dict[str, str | int | float | None]]:
        """The rows as programs read them: full precision; an interval fills three columns.

        These are ``name``, ``name_ci95`` (the half-width) and ``name_seeds``.
        """
        names = self.columns
        spread = {n for row in self.rows for n, cell in row.items() if isinstance(cell, Interval)}
        return [
            {k: v for n in names for k, v in _fields(n, row.get(n), n in spread).items()}
            for row in self.rows
        ]

    def csv(self) -> str:
        """:meth:`records` as CSV; floats are written so that they read back exactly."""
        out = io.StringIO()
        records = self.records()
        writer = csv.DictWriter(out, fieldnames=list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        return out.getvalue()

    def write(self, folder: Path, stem: str) -> None:
        """``folder/stem.csv`` and ``folder/stem.md``."""
        self.write_csv(folder, stem)
        (folder / f"{stem}.md").write_text(self.markdown() + "\n", encoding="utf-8")

    def write_csv(self, folder: Path, stem: str) -> None:
        """``folder/stem.csv`` alone, for long tables that nobody reads."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{stem}.csv").write_text(self.csv(), encoding="utf-8")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _text(cell: Cell) -> str:
    if cell is None:
        return "–"
    return number(cell) if isinstance(cell, float) else str(cell)


def _fields(name: str, cell: Cell, spread: bool) -> dict[str, str | int | float | None]:
    if not spread:
        return {name: cell}
    if not isinstance(cell, Interval):
        return {name: cell, f"{name}_ci95": None, f"{name}_seeds": None}
    return {name: cell.mean, f"{name}_ci95": cell.half_width, f"{name}_seeds": cell.count}
