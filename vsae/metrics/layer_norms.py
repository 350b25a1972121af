"""In which layers a latent writes, and whether it writes the same there."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from vsae.errors import ShapeError
from vsae.metrics.layer_variance import layer_views


def layer_norm_shares(
    atoms: Float[Tensor, "K width"], layers: Sequence[int]
) -> Float[Tensor, "K n"]:
    r"""Each layer's share of a latent's decoder norms, :math:`\lVert w_{kl}\rVert / \sum_m
    \lVert w_{km}\rVert`.

    Norms are in the units of the atoms: of a crosscoder trained on layers normalised to equal size
    they compare; on raw residual streams, which grow with depth, they do not. nan for a zero atom.

    Args:
        atoms: Decoder rows, the layers concatenated.
        layers: Widths.

    Raises:
        ShapeError: ``metrics.layers``.

    Example:
        >>> layer_norm_shares(torch.tensor([[3.0, 4.0, 0.0, 5.0]]), (2, 2)).tolist()
        [[0.5, 0.5]]

    Source:
        Lindsey et al. (2024), *Sparse crosscoders for cross-layer features and model diffing*.
    """
    norms = [view.norm(dim=-1) for view in layer_views(atoms.detach().double(), layers)]
    stacked = torch.stack(norms, -1)
    return stacked / stacked.sum(-1, keepdim=True)


def relative_decoder_norm(
    atoms: Float[Tensor, "K width"], layers: Sequence[int]
) -> Float[Tensor, " K"]:
    r"""Model diffing's read-out of two layers or models, :math:`ρ_k = \lVert w_{k2}\rVert /
    (\lVert w_{k1}\rVert + \lVert w_{k2}\rVert)`: 0 only in the first, ½ in both, 1 only in the
    second.

    Args:
        atoms: Decoder rows ``(K, d_1 + d_2)``.
        layers: Two widths.

    Raises:
        ShapeError: ``metrics.layers``.

    Example:
        >>> relative_decoder_norm(torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]]), (1, 1))
        tensor([0.0000, 0.5000, 1.0000], dtype=torch.float64)

    Source:
        Lindsey et al. (2024), *Sparse crosscoders for cross-layer features and model diffing*.
    """
    if len(layers) != 2:
        raise ShapeError(
            f"a relative norm is of two layers: got {len(layers)}. Use layer_norm_shares.",
            code="metrics.layers",
        )
    return layer_norm_shares(atoms, layers)[:, 1]


def layer_cosines(atoms: Float[Tensor, "K width"], layers: Sequence[int]) -> Float[Tensor, "K n n"]:
    r"""Cosine between a latent's atoms in each two layers, :math:`\cos(w_{kl}, w_{km})`.

    1 everywhere is a feature that persists unchanged, less off the diagonal one that turns. nan
    where a layer has no part of the atom. It says little where the norm is small: weigh it by
    :func:`layer_norm_shares`.

    Args:
        atoms: Decoder rows, the layers concatenated.
        layers: Widths, all equal.

    Raises:
        ShapeError: ``metrics.layers``.

    Example:
        >>> layer_cosines(torch.tensor([[2.0, 0.0, 0.0, 3.0, 1.0, 0.0]]), (2, 2, 2))[0, 0]
        tensor([1., 0., 1.], dtype=torch.float64)
    """
    if len(set(layers)) != 1:
        raise ShapeError(
            f"cosines of atoms in layers of widths {tuple(layers)}: expected equal widths.",
            code="metrics.layers",
            context={"layers": list(layers)},
        )
    stacked = torch.stack(layer_views(atoms.detach().double(), layers), -2)
    unit = normalize(stacked, dim=-1)
    empty = ~stacked.any(-1)
    cosines = unit @ unit.mT
    return cosines.masked_fill(empty[:, None, :] | empty[:, :, None], torch.nan)


def effective_layers(shares: Float[Tensor, "K n"]) -> Float[Tensor, " K"]:
    r"""Effective number of layers of each latent, :math:`\exp\bigl(-\sum_l p_l \log p_l\bigr)`.

    1 if all is in one layer, n if all layers have the same share; nan where a share is.

    Args:
        shares: Non-negative, each row of sum 1: of norms, of contributions, of what masking costs.

    Example:
        >>> effective_layers(torch.tensor([[1.0, 0.0], [0.5, 0.5]])).tolist()
        [1.0, 2.0]

    Source:
        Hill (1973), *Diversity and evenness* (the number of order 1).
    """
    p = shares.double()
    return (-torch.special.xlogy(p, p).sum(-1)).exp()
