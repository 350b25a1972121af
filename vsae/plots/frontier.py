"""Quality against sparsity: the picture in which arms of different L0 can be compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from vsae.plots.numbers import require_finite


@dataclass(frozen=True)
class FrontierPoint:
    """One arm at one strength.

    Args:
        l0: Mean active latents per row.
        value: What is drawn against it: explained variance, loss recovered, MSE.
        l0_error: Half-width of its interval over seeds; 0 for one seed.
        value_error: The same for the value.
    """

    l0: float
    value: float
    l0_error: float = 0.0
    value_error: float = 0.0


def pareto_frontier(
    ax: Axes,
    arms: Mapping[str, Sequence[FrontierPoint]],
    *,
    label: str,
    styles: Mapping[str, str] | None = None,
) -> Axes:
    """A line per arm through its strengths, in order of L0 (log scale), with error bars over seeds.

    Args:
        ax: Where to draw.
        arms: Points by name.
        label: What is drawn against L0, with its unit.
        styles: Matplotlib line formats by name, such as ``"k:"`` for a reference.

    Raises:
        ConfigError: ``plot.empty``, ``plot.nonfinite``.

    Example:
        >>> from matplotlib.figure import Figure
        >>> points = [FrontierPoint(8.0, 0.8), FrontierPoint(4.0, 0.7)]
        >>> ax = pareto_frontier(Figure().add_subplot(), {"l1": points}, label="EV")
        >>> ax.lines[0].get_xdata().tolist()
        [4.0, 8.0]
    """
    for name, points in arms.items():
        ordered = sorted(points, key=lambda point: point.l0)
        l0 = require_finite([p.l0 for p in ordered], f"pareto_frontier {name}")
        values = require_finite([p.value for p in ordered], f"pareto_frontier {name}")
        ax.errorbar(
            l0,
            values,
            xerr=[p.l0_error for p in ordered] if any(p.l0_error for p in ordered) else None,
            yerr=[p.value_error for p in ordered] if any(p.value_error for p in ordered) else None,
            fmt=(styles or {}).get(name, "o-"),
            markersize=4,
            linewidth=1.3,
            capsize=2,
            label=name,
        )
    _plain_log_scale(ax)
    ax.set_xlabel("L0: mean active latents per row")
    ax.set_ylabel(label)
    ax.legend(fontsize="small")
    return ax


def _plain_log_scale(ax: Axes) -> None:
    """1, 2, 5, 10, 20 … as people write them, instead of powers of ten."""
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
