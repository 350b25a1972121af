"""What training did, from the records it kept."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from vsae.plots.numbers import require_finite

Records = Sequence[Mapping[str, float | int | list[float]]]


def training_curves(ax: Axes, records: Records, *, metrics: Sequence[str] | None = None) -> Axes:
    """Every metric of one run against the step, a colour per metric, a line per replica.

    Args:
        ax: Where to draw.
        records: Of :meth:`vsae.run.Run.run`, or the lines of a ``metrics.jsonl``.
        metrics: Names as in the metrics files; those beginning with ``elbo/`` if ``None``, in nats
            per row: ``elbo/loss`` = ``elbo/x`` (−log p(x|z)) + ``elbo/z`` (β KL).

    Raises:
        ConfigError: ``plot.empty`` if no record has a metric, ``plot.nonfinite``.

    Example:
        >>> from matplotlib.figure import Figure
        >>> records = [{"step": 0, "elbo/loss": 9.0}, {"step": 10, "elbo/loss": 4.0}]
        >>> ax = training_curves(Figure().add_subplot(), records)
        >>> ax.lines[0].get_ydata().tolist()
        [9.0, 4.0]
    """
    if metrics is None:
        metrics = [n for n in dict.fromkeys(n for r in records for n in r) if n.startswith("elbo/")]
    require_finite(range(len(metrics)), "training_curves")
    for number, metric in enumerate(metrics):
        _draw(ax, records, metric, label=metric, colour=f"C{number}")
    ax.set_ylabel("nats per row" if all(m.startswith("elbo/") for m in metrics) else "")
    return _finished(ax)


def compared_curves(ax: Axes, runs: Mapping[str, Records], *, metric: str = "elbo/loss") -> Axes:
    """One metric of several runs against the step, a line per run (and replica).

    Args:
        ax: Where to draw.
        runs: Records by name of the run; those that lack the metric are skipped.
        metric: A name as in the metrics files.

    Raises:
        ConfigError: ``plot.empty`` if no record has the metric, ``plot.nonfinite``.

    Example:
        >>> from matplotlib.figure import Figure
        >>> runs = {name: [{"step": 0, "l0": n}] for name, n in (("iso", 3.0), ("graph", 4.0))}
        >>> ax = compared_curves(Figure().add_subplot(), runs, metric="l0")
        >>> [line.get_label() for line in ax.lines]
        ['iso', 'graph']
    """
    for number, (name, records) in enumerate(runs.items()):
        _draw(ax, records, metric, label=name, colour=f"C{number}")
    ax.set_ylabel(metric)
    return _finished(ax)


def _draw(ax: Axes, records: Records, metric: str, *, label: str, colour: str) -> None:
    found = [record for record in records if metric in record]
    values = np.atleast_1d(np.array([record[metric] for record in found], dtype=float))
    require_finite(values.flatten().tolist(), f"training_curves: {metric} of {label}")
    steps = [record["step"] for record in found]
    for replica, line in enumerate(values.reshape(len(steps), -1).T):
        ax.plot(steps, line, color=colour, linewidth=1.2, label="_" * (replica > 0) + label)


def _finished(ax: Axes) -> Axes:
    ax.set_xlabel("step")
    ax.legend(fontsize="small")
    return ax
