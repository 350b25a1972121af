"""Matrices over latents, their rows and columns put in an order that shows blocks."""

from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from torch import Tensor

from vsae.errors import ShapeError


def block_order(labels: Int[Tensor, " K"]) -> Int[Tensor, " K"]:
    """The order that puts latents of one block side by side, ties in their own order.

    Example:
        >>> import torch
        >>> block_order(torch.tensor([1, 0, 1, 0])).tolist()
        [1, 3, 0, 2]
    """
    return labels.argsort(stable=True)


def correlation_heatmap(
    ax: Axes,
    matrix: Float[Tensor, "K K"],
    *,
    labels: Int[Tensor, " L"] | None = None,
    limit: float = 1.0,
    outline: bool = True,
) -> Axes:
    """A correlation or precision matrix in blue (−) and red (+), white at 0, blocks outlined.

    Args:
        ax: Where to draw.
        matrix: Over latents.
        labels: The block of each latent, by which rows and columns are put in order.
        limit: Values beyond ``±limit`` have the colour of the limit.
        outline: Whether blocks are framed.

    Raises:
        ShapeError: ``plot.shape`` if the labels are not one per row.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> matrix = torch.tensor([[1.0, 0.2, 0.9], [0.2, 1.0, 0.1], [0.9, 0.1, 1.0]])
        >>> labels = torch.tensor([0, 1, 0])
        >>> ax = correlation_heatmap(Figure().add_subplot(), matrix, labels=labels)
        >>> ax.images[0].get_array()[0].round(2).tolist()
        [1.0, 0.9, 0.2]
    """
    if labels is not None and labels.shape != matrix.shape[:1]:
        raise ShapeError(
            f"labels of blocks: got {tuple(labels.shape)}, expected one per row of a matrix "
            f"{tuple(matrix.shape)}.",
            code="plot.shape",
        )
    if labels is not None:
        order = block_order(labels)
        matrix = matrix[order][:, order]
        if outline:
            _outline(ax, labels[order].cpu().numpy())
    values = matrix.detach().double().cpu().numpy()
    image = ax.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    ax.figure.colorbar(image, ax=ax, fraction=0.046, pad=0.03)
    ax.set_xticks([])
    ax.set_yticks([])
    return ax


def _outline(ax: Axes, ordered: np.ndarray) -> None:
    edges = np.flatnonzero(np.diff(ordered)) + 1
    bounds = [0, *edges.tolist(), len(ordered)]
    for low, high in pairwise(bounds):
        box = np.array([low, high, high, low, low]) - 0.5
        ax.plot(box, np.roll(box, 1), color="black", linewidth=0.5)
