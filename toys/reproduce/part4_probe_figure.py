"""The figure of the causal probe: effects layer by layer, and what the network carries on."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toys.reproduce.part4_compare import chosen
from toys.reproduce.part4_part import Rows
from toys.reproduce.part4_probe_arms import LABELS
from toys.reproduce.part4_probe_jobs import ASKED
from toys.reproduce.part4_probe_tables import KINDS, layers, lines
from toys.reproduce.part4_settings import Settings
from toys.reproduce.part4_tokens_figures import save


def probe_figures(settings: Settings, rows: Rows, folder: Path) -> list[Path]:
    """A line of panels per crosscoder."""
    done = [row for row in chosen(rows) if layers(row)]
    if not done:
        return []
    figure = Figure(figsize=(10.5, 3.9 * len(done)), layout="constrained")
    axes = figure.subplots(len(done), 2, squeeze=False, width_ratios=(3, 2))
    for row, (left, right) in zip(done, axes, strict=True):
        _effects(left, row)
        image = _carried(right, row)
        figure.colorbar(image, ax=right, label="cosine, mean over latents")
    return [save(figure, folder / "probe_effects.png")]


def _effects(axis: Axes, row: Mapping) -> None:
    """A point per latent and layer, and the median of each kind."""
    for number, (kind, label) in enumerate(KINDS.items()):
        own, shift = lines(row, kind), 0.22 * (number - 1)
        for at in range(layers(row)):
            values = sorted(max(line["kl"][at], 1e-6) for line in own)
            axis.plot(
                [at + 1 + shift] * len(values),
                values,
                ".",
                color=f"C{number}",
                alpha=0.5,
                label=label if not at else None,
            )
            if values:
                middle = values[len(values) // 2]
                axis.plot([at + 0.92 + shift, at + 1.08 + shift], [middle] * 2, color="black")
    axis.set_yscale("log")
    axis.set_xticks(range(1, layers(row) + 1))
    axis.set_xlabel("layer in which it is taken out")
    axis.set_ylabel("KL, nats per row on which it fires")
    axis.set_title(f"{LABELS[row['arm']]}: effect on the output (bar: median)", fontsize=10)
    axis.legend(fontsize=7)


def _carried(axis: Axes, row: Mapping):
    """Cosine of what the network makes of a change with what the decoder says."""
    own, count = lines(row, ASKED), layers(row)
    values = [[_mean(own, i, j) for j in range(count)] for i in range(count)]
    image = axis.imshow(values, vmin=0, vmax=1, cmap="viridis")
    for i in range(count):
        for j in range(i, count):
            tone = "black" if values[i][j] > 0.6 else "white"
            axis.text(j, i, f"{values[i][j]:.2f}", ha="center", va="center", color=tone, fontsize=8)
    axis.set_xticks(range(count), [str(i + 1) for i in range(count)])
    axis.set_yticks(range(count), [str(i + 1) for i in range(count)])
    axis.set_xlabel("layer reached")
    axis.set_ylabel("layer changed")
    axis.set_title("is it carried on as the decoder says?", fontsize=10)
    return image


def _mean(own: list[Mapping], i: int, j: int) -> float:
    known = [line["cosine"][i][j] for line in own if line["cosine"][i][j] is not None]
    return sum(known) / len(known) if known and j >= i else float("nan")
