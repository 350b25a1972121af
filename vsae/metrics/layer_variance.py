"""How well each layer is restored, and each neuron."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from vsae.batches import check_finite
from vsae.errors import DataError, ShapeError
from vsae.metrics.reconstruction import explained_variance


def layer_views(x: Tensor, layers: Sequence[int]) -> tuple[Tensor, ...]:
    """The layers ``(…, d_l)`` of rows that are their concatenation ``(…, Σ d_l)``.

    Raises:
        ShapeError: ``metrics.layers`` if the widths are not those of the rows.
    """
    if not layers or min(layers) < 1 or x.shape[-1] != sum(layers):
        raise ShapeError(
            f"layers of widths {tuple(layers)} make no row of {x.shape[-1]}: got {sum(layers)}, "
            "expected positive widths whose sum is the row's. Flatten (N, n, d) first.",
            code="metrics.layers",
            context={"layers": list(layers), "width": x.shape[-1]},
        )
    return x.split(list(layers), -1)


def concatenated(x: Tensor, layers: Sequence[int]) -> Tensor:
    """Rows ``(N, Σ d_l)`` from those or from ``(N, n, d)`` of ``n`` layers of equal width."""
    if x.dim() == 3 and set(layers) == {x.shape[-1]} and len(layers) == x.shape[-2]:
        x = x.flatten(-2)
    layer_views(x, layers)
    return x


def layer_explained_variance(
    x: Float[Tensor, "rows ..."], mean: Float[Tensor, "rows ..."], layers: Sequence[int]
) -> Float[Tensor, " n"]:
    r"""Share of the variance explained in each layer, float64.

    .. math:: R^2_l = 1 - \sum\lVert x^l - \hat x^l\rVert^2 / \sum\lVert x^l - \bar x^l\rVert^2

    A scale of its own for each layer leaves them all as they are, so that they are the same in raw
    and in layer-normalised units; the global one, :func:`explained_variance` of whole rows, weighs
    a layer by its variance and does change. A scale for each *neuron* changes both.

    Args:
        x: Activations, ``(N, n, d)`` or concatenated ``(N, Σ d_l)``.
        mean: Their reconstructions, likewise.
        layers: Widths ``d_l``.

    Raises:
        ShapeError: ``metrics.layers``.
        DataError: ``metrics.no_variance``, ``data.nonfinite``.

    Example:
        >>> x = torch.tensor([[[0.0], [0.0]], [[2.0], [20.0]]])
        >>> mean = torch.tensor([[[1.0], [0.0]], [[1.0], [20.0]]])
        >>> layer_explained_variance(x, mean, (1, 1)).tolist()
        [0.0, 1.0]
    """
    views = (layer_views(concatenated(rows, layers), layers) for rows in (x, mean))
    return torch.stack([explained_variance(*pair) for pair in zip(*views, strict=True)])


def neuron_explained_variance(
    x: Float[Tensor, "rows d"], mean: Float[Tensor, "rows d"]
) -> Float[Tensor, " d"]:
    r"""Share of each neuron's variance explained, float64.

    Its mean over neurons is :func:`explained_variance` of *standardised* activations, each neuron
    divided by its own deviation: there all neurons weigh the same, however little the network makes
    of them. On the raw scale they weigh as they vary. Report both.

    Args:
        x: Activations.
        mean: Their reconstructions.

    Raises:
        DataError: ``metrics.no_variance`` if a neuron does not vary, ``data.nonfinite``.

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [2.0, 20.0]])
        >>> neuron_explained_variance(x, torch.tensor([[1.0, 0.0], [1.0, 20.0]])).tolist()
        [0.0, 1.0]
    """
    x = x.double()
    residual = (x - mean.double()).square().sum(0)
    total = (x - x.mean(0)).square().sum(0)
    constant = (~(total > 0)).nonzero().flatten()
    if len(constant):
        check_finite(x)
        raise DataError(
            f"explained variance of {len(constant)} neurons that do not vary: got total variance "
            f"0 in neuron {int(constant[0])}. Leave them out.",
            code="metrics.no_variance",
        )
    return 1 - residual / total
