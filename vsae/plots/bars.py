"""One number per arm, against lines that say what the number means."""

from collections.abc import Mapping

from matplotlib.axes import Axes

from vsae.plots.numbers import require_finite


def bars(
    ax: Axes,
    values: Mapping[str, float],
    *,
    errors: Mapping[str, float] | None = None,
    references: Mapping[str, float] | None = None,
    label: str = "",
) -> Axes:
    """A horizontal bar per arm, first on top, its value written beside it, and reference lines.

    Args:
        ax: Where to draw.
        values: Bar lengths by name.
        errors: Half-widths of intervals over seeds, for any of the names.
        references: Vertical dashed lines by name, in the units of the values.
        label: What is measured, with its unit.

    Raises:
        ConfigError: ``plot.nonfinite`` for a value that cannot be drawn.

    Example:
        >>> from matplotlib.figure import Figure
        >>> ax = bars(Figure().add_subplot(), {"iso": 2.0, "graph": 1.5}, references={"clean": 1.0})
        >>> [float(patch.get_width()) for patch in ax.patches]
        [2.0, 1.5]
    """
    errors, references = errors or {}, references or {}
    require_finite([*values.values(), *references.values()], "bars")
    half_widths = [errors.get(name, 0.0) for name in values]
    drawn = ax.barh(list(values), list(values.values()), xerr=half_widths if errors else None)
    ax.bar_label(drawn, fmt="%.3g", padding=3, fontsize="small")
    ax.invert_yaxis()
    for i, (name, value) in enumerate(references.items()):
        line = ax.axvline(value, color=f"C{i + 1}", linestyle="--", linewidth=1.2)
        line.set_label(name)
    if references:
        ax.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=4)
    ax.set_xlim(_limits(list(values.values()), list(references.values())))
    ax.set_xlabel(label)
    return ax


def _limits(values: list[float], references: list[float]) -> tuple[float, float]:
    """Room for the numbers beside the bars; zero is always shown, for lengths to mean something."""
    low, high = min(0.0, *values, *references), max(0.0, *values, *references)
    room = 0.3 * (high - low)
    return low - room * (low < 0), high + room
