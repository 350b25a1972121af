"""Document B's three figures, of our arms."""

from collections.abc import Callable, Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toys.reproduce.part4_arms import ARMS
from toys.reproduce.part4_compare import chosen, mean
from toys.reproduce.part4_part import Rows
from toys.reproduce.part4_settings import Settings
from toys.reproduce.part4_tokens_tables import TABLE_2
from vsae import plots

DPI = 110
STYLES = {
    "none": ("black", ":"),
    "l1": ("C0", "-"),
    "isotropic": ("C7", "-"),
    "isotropic-low": ("C7", "-."),
    "graph": ("C2", "-"),
    "graph-low": ("C2", "-."),
    "shuffled": ("C2", ":"),
    "mixed": ("C1", "-"),
    "mixed-shuffled": ("C1", ":"),
    "v-isotropic": ("C7", "--"),
    "v-graph": ("C4", "--"),
    "v-shuffled": ("C4", ":"),
    "topk": ("C3", "-"),
}
"""Colour and line of each arm."""


def save(figure: Figure, path: Path) -> Path:
    """As a PNG without a date."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    return path


def token_figures(settings: Settings, rows: Rows, folder: Path) -> list[Path]:
    """Loss curves, errors, diagnostics of sparsity."""
    made: dict[str, Callable[[Settings, Rows], Figure | None]] = {
        "tokens_figure1": curves,
        "tokens_figure2": errors,
        "tokens_figure3": diagnostics,
    }
    drawn = {stem: draw(settings, rows) for stem, draw in made.items()}
    return [save(figure, folder / f"{stem}.png") for stem, figure in drawn.items() if figure]


def curves(settings: Settings, rows: Rows) -> Figure | None:
    """Squared error in training, and L0, of the first seed; a line of panels per target."""
    figure = Figure(figsize=(13, 4.6 * len(settings.targets)), layout="constrained")
    axes = figure.subplots(len(settings.targets), 2, squeeze=False)
    for target, (left, right) in zip(settings.targets, axes, strict=True):
        found = [
            row
            for arm in ARMS
            for row in chosen(rows, arm=arm, target=target, seed=settings.seeds[0])
        ]
        if not found:
            return None
        for row in found:
            _curve(left, row, "error")
            _curve(right, row, "l0")
        left.set_ylabel("squared error per row, normalised units")
        left.set_title(f"target L0 {target}")
        right.set_ylabel("active latents per row")
        right.set_yscale("log")
        right.axhline(target, color="black", linestyle=":", linewidth=1)
        for axis in (left, right):
            axis.set_xlabel("update")
        handles, labels = left.get_legend_handles_labels()
        right.legend(handles, labels, fontsize="small", loc="upper right")
    return figure


def _curve(axis: Axes, row: Mapping, name: str) -> None:
    points = [(point["step"], point[name]) for point in row["curve"] if name in point]
    if points:
        colour, line = STYLES[row["arm"]]
        axis.plot(*zip(*points, strict=True), line, color=colour, label=row["label"], linewidth=1.3)


def _bars(settings: Settings, rows: Rows, path: str, target: int) -> tuple[dict, dict]:
    values, errors = {}, {}
    for arm in ARMS:
        found = mean(chosen(rows, arm=arm, target=target), path)
        if found is not None:
            values[ARMS[arm].label] = found.mean
            errors[ARMS[arm].label] = found.half_width or 0.0
    return values, errors


def errors(settings: Settings, rows: Rows) -> Figure | None:
    """Batch MSE, and unexplained variance beside document B's."""
    figure = Figure(figsize=(14, 4.6 * len(settings.targets)), layout="constrained")
    axes = figure.subplots(len(settings.targets), 2, squeeze=False)
    theirs = {f"document B, {name}": numbers[-1] for name, numbers in TABLE_2.items()}
    for target, (left, right) in zip(settings.targets, axes, strict=True):
        values, spread = _bars(settings, rows, "batch_mse", target)
        if not values:
            return None
        plots.bars(left, values, errors=spread, label="batch MSE, normalised units")
        values, spread = _bars(settings, rows, "r2", target)
        plots.bars(right, values, errors=spread, references=theirs, label="R²")
        left.set_title(f"target L0 {target}")
    return figure


def diagnostics(settings: Settings, rows: Rows) -> Figure | None:
    """ "Dead %", median activation frequency, mean activation value."""
    panels = {
        "document_dead": '"Dead %" = 100 (1 - mean AF)',
        "frequency_median": "median activation frequency",
        "value_over_active": "mean activation value, active entries",
    }
    figure = Figure(figsize=(16, 4.4 * len(settings.targets)), layout="constrained")
    axes = figure.subplots(len(settings.targets), len(panels), squeeze=False)
    for target, line in zip(settings.targets, axes, strict=True):
        for axis, (path, label) in zip(line, panels.items(), strict=True):
            values, spread = _bars(settings, rows, path, target)
            if not values:
                return None
            plots.bars(axis, values, errors=spread, label=label)
        line[0].set_title(f"target L0 {target}")
    return figure
