"""Where the latents of a crosscoder live, and whether they point the same way there."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from vsae.errors import ConfigError
from vsae.metrics.layer_norms import layer_cosines, layer_norm_shares
from vsae.plots.numbers import require_finite

BINS = 25


def norm_share_histogram(
    ax: Axes,
    atoms: Float[Tensor, "K width"],
    layers: Sequence[int],
    *,
    names: Sequence[str] | None = None,
) -> Axes:
    """How the norm of latents' atoms is shared out among layers, a histogram per layer.

    The dashed line is an equal share. Of two models it is the model-diffing figure: what is left of
    it belongs to the other model, what is on it to both. Latents whose atom is zero are left out.

    Args:
        ax: Where to draw.
        atoms: Decoder rows, the layers concatenated.
        layers: Widths.
        names: Of the layers; their numbers if ``None``.

    Raises:
        ConfigError: ``plot.names`` if there are not as many as layers, ``plot.empty``.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> ax = norm_share_histogram(Figure().add_subplot(), torch.randn(50, 6), (3, 3))
        >>> len(ax.get_legend().get_texts())
        2
    """
    names = _names(names, layers)
    shares = layer_norm_shares(atoms, layers)
    shares = shares[shares.isfinite().all(-1)]
    require_finite(shares.flatten().tolist(), "norm_share_histogram")
    bins = np.linspace(0, 1, BINS + 1)
    for column, name in zip(shares.numpy().T, names, strict=True):
        ax.hist(column, bins=bins, histtype="step", linewidth=1.5, label=name)
    ax.axvline(1 / len(layers), color="0.5", linestyle="--", linewidth=1)
    ax.set_xlim(0, 1)
    ax.set_xlabel("share of the atom's norm")
    ax.set_ylabel("latents")
    ax.legend(fontsize="small")
    return ax


def layer_cosine_heatmap(
    ax: Axes,
    atoms: Float[Tensor, "K width"],
    layers: Sequence[int],
    *,
    names: Sequence[str] | None = None,
) -> Axes:
    """The mean cosine between a latent's atoms in every two layers, weighted by their norms.

    A latent counts in a pair of layers by the product of its shares there, so that one that does
    not write to a layer says nothing about it.

    Args:
        ax: Where to draw; the figure gets a colour bar.
        atoms: Decoder rows, the layers concatenated.
        layers: Widths, all equal.
        names: Of the layers; their numbers if ``None``.

    Raises:
        ConfigError: ``plot.names`` if there are not as many as layers.
        ShapeError: ``metrics.layers`` for layers of different widths.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> ax = layer_cosine_heatmap(Figure().add_subplot(), torch.ones(4, 6), (3, 3))
        >>> [text.get_text() for text in ax.texts]
        ['1.00', '1.00', '1.00', '1.00']
    """
    names = _names(names, layers)
    cosines, shares = layer_cosines(atoms, layers), layer_norm_shares(atoms, layers)
    weight = (shares[:, :, None] * shares[:, None, :]).nan_to_num(0.0)
    total = weight.sum(0).clamp(min=np.finfo(float).tiny)
    mean = ((weight * cosines.nan_to_num(0.0)).sum(0) / total).numpy()
    image = ax.imshow(mean, vmin=-1, vmax=1, cmap="RdBu_r")
    for (row, column), value in np.ndenumerate(mean):
        colour = "white" if abs(value) > 0.6 else "black"
        ax.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
    ax.set_xticks(range(len(names)), names)
    ax.set_yticks(range(len(names)), names)
    ax.set_xlabel("layer")
    ax.set_ylabel("layer")
    ax.figure.colorbar(image, ax=ax, label="mean cosine of a latent's atoms")
    return ax


def _names(names: Sequence[str] | None, layers: Sequence[int]) -> list[str]:
    found = [str(i) for i in range(len(layers))] if names is None else list(names)
    if len(found) != len(layers):
        raise ConfigError(
            f"a name per layer: got {len(found)} for {len(layers)} layers.", code="plot.names"
        )
    return found
