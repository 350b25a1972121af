"""How often latents fire, on the scale on which they differ."""

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from vsae.plots.numbers import require_finite

BINS_PER_DECADE = 8


def firing_rate_histogram(
    ax: Axes, frequency: Float[Tensor, " K"], *, rows: int, label: str = ""
) -> Axes:
    """The number of latents by log10 firing rate; those that never fire have a bar of their own.

    Nothing can be said of rates below one in ``rows``: the dashed *dead line*. Left of it, in
    another colour, is the one bar of latents with no firing at all.

    Args:
        ax: Where to draw.
        frequency: Share of rows on which each latent is active
            (:func:`vsae.metrics.activation_frequency`).
        rows: How many rows they were counted over.
        label: Of the histogram.

    Raises:
        ConfigError: ``plot.empty``, ``plot.nonfinite``.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> rates = torch.tensor([0.0, 0.5, 0.5])
        >>> ax = firing_rate_histogram(Figure().add_subplot(), rates, rows=100)
        >>> [float(patch.get_height()) for patch in ax.patches if patch.get_height()]
        [2.0, 1.0]
    """
    rates = np.array(require_finite(frequency.tolist(), "firing_rate_histogram"))
    floor = -np.log10(rows)
    bins = np.linspace(floor, 0, max(2, round(-floor * BINS_PER_DECADE)) + 1)
    alive = rates[rates > 0]
    ax.hist(np.clip(np.log10(alive), floor, 0), bins=bins, label=label or None)
    width = bins[1] - bins[0]
    dead = int((rates == 0).sum())
    ax.bar(floor - 2 * width, dead, width=2 * width, color="C3")
    ax.axvline(floor, color="C3", linestyle="--", linewidth=1)
    ax.set_xlim(floor - 4 * width, 0.05)
    ax.set_xlabel("log10 firing rate")
    ax.set_ylabel("latents")
    ax.set_title(f"{label}: {dead} of {len(rates)} never fire" if label else "", fontsize="medium")
    return ax
