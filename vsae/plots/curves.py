"""What training did, from the records it kept."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from vsae.plots.numbers import require_finite


def training_curves(
    ax: Axes, runs: Mapping[str, Sequence[Mapping[str, float]]], *, metric: str = "elbo/loss"
) -> Axes:
    """One metric against the step, a line per run.

    Args:
        ax: Where to draw.
        runs: By name, the records of :meth:`vsae.training.Fit.run`, or the lines of a
            ``metrics.jsonl``; records that lack the metric are skipped.
        metric: A name as in the metrics files: ``elbo/loss``, ``elbo/x`` (−log p(x|z)), ``elbo/z``
            (β KL), in nats per row; or any other.

    Raises:
        ConfigError: ``plot.empty`` if no record has the metric, ``plot.nonfinite``.

    Example:
        >>> from matplotlib.figure import Figure
        >>> records = [{"step": 0, "elbo/loss": 9.0}, {"step": 10, "elbo/loss": 4.0}]
        >>> ax = training_curves(Figure().add_subplot(), {"iso": records})
        >>> ax.lines[0].get_ydata().tolist()
        [9.0, 4.0]
    """
    for name, records in runs.items():
        found = [(r["step"], r[metric]) for r in records if metric in r]
        values = require_finite(
            [value for _, value in found], f"training_curves {metric} of {name}"
        )
        ax.plot([step for step, _ in found], values, label=name, linewidth=1.2)
    ax.set_xlabel("step")
    ax.set_ylabel(metric)
    ax.legend(fontsize="small")
    return ax
