"""Which latents carry information, and which have collapsed onto their prior."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from vsae.plots.numbers import require_finite


def kl_per_latent(
    ax: Axes, arms: Mapping[str, Float[Tensor, " K"]], *, collapsed: float = 0.01
) -> Axes:
    """KL per latent in decreasing order, a line per arm; below ``collapsed`` nats nothing is said.

    A prior that couples latents has no KL per latent, only one in total: for those give the KL from
    the prior's *marginals*, and say so.

    Args:
        ax: Where to draw, with a logarithmic scale.
        arms: Nats per row of each latent, at least 0, by name.
        collapsed: Where the dashed line is, nats per row; smaller values are drawn at no less
            than a tenth of it.

    Raises:
        ConfigError: ``plot.empty``, ``plot.nonfinite``.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> ax = kl_per_latent(Figure().add_subplot(), {"iso": torch.tensor([0.5, 2.0, 1.0])})
        >>> ax.lines[0].get_ydata().tolist()
        [2.0, 1.0, 0.5]
    """
    for name, values in arms.items():
        ordered = sorted(require_finite(values.tolist(), f"kl_per_latent {name}"), reverse=True)
        rank = np.arange(1, len(ordered) + 1)
        ax.plot(rank, np.maximum(ordered, collapsed / 10), label=name, linewidth=1.3)
    ax.axhline(collapsed, color="grey", linestyle="--", linewidth=1)
    ax.set_yscale("log")
    ax.set_xlabel("latent, in order of its KL")
    ax.set_ylabel("KL (nats per row)")
    ax.legend(fontsize="small")
    return ax
