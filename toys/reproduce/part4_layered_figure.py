"""The figure of the toys: MCC of every arm, a panel per case."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toys.reproduce.part4_layered_arms import ARMS
from toys.reproduce.part4_layered_tables import LABELS, models
from toys.reproduce.part4_part import Rows
from toys.reproduce.part4_settings import Settings
from toys.reproduce.part4_tokens_figures import save


def layered_figures(settings: Settings, rows: Rows, folder: Path) -> list[Path]:
    """A point per seed and a line at the mean."""
    cases = [c for c in settings.layered.cases if any(models(rows, c, arm) for arm in ARMS)]
    if not cases:
        return []
    figure = Figure(figsize=(3.2 * len(cases) + 2.2, 4.4), layout="constrained")
    axes = figure.subplots(1, len(cases), sharey=True, squeeze=False)[0]
    for case, axis in zip(cases, axes, strict=True):
        _panel(axis, [[m["mcc"] for m in models(rows, case, arm) if m["mcc"]] for arm in ARMS])
        axis.set_title(case, fontsize=10)
    axes[0].set_yticks(range(len(ARMS)), [LABELS[arm] for arm in ARMS], fontsize=8)
    axes[0].invert_yaxis()
    figure.suptitle(
        "Features over layers: MCC with the truth (arms without ℓ1 missed the L0)", fontsize=11
    )
    return [save(figure, folder / "layered_mcc.png")]


def _panel(axis: Axes, values: Sequence[Sequence[float]]) -> None:
    for at, own in enumerate(values):
        if own:
            axis.plot(own, [at] * len(own), "o", color="C0", markersize=5, alpha=0.6)
            axis.plot([sum(own) / len(own)] * 2, [at - 0.3, at + 0.3], color="black")
    axis.set_xlabel("mean |cos| of matched atoms")
    axis.grid(axis="x", alpha=0.3)
