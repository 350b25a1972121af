"""Which layers the latents of a causal crosscoder read and write."""

import torch
from jaxtyping import Bool
from torch import Tensor

from vsae.errors import ConfigError


def causal_blocks(
    latents: int, layers: int
) -> tuple[Bool[Tensor, "K layers"], Bool[Tensor, "K layers"]]:
    r"""Of each latent the layers it reads, up to its own, and those it writes, after its own.

    Latents are dealt out evenly, in order, to all layers but the last, which comes before none: so
    a code of layers :math:`\le l` predicts layers :math:`> l`, and the first layer is given.

    Args:
        latents: Number of latents :math:`K`.
        layers: Number of layers.

    Returns:
        ``reads``, for :class:`vsae.LayeredEncoder`, and ``writes``, for
        :class:`vsae.LayeredDecoder`, whose targets are all layers but the first.

    Raises:
        ConfigError: ``layers.causal`` if there are fewer latents than layers to come from.

    Example:
        >>> reads, writes = causal_blocks(2, 3)
        >>> reads.int().tolist(), writes.int().tolist()
        ([[1, 0, 0], [1, 1, 0]], [[0, 1, 1], [0, 0, 1]])

    Source:
        Lindsey et al. (2024), *Sparse Crosscoders*, on strictly causal crosscoders.
    """
    if layers < 2 or latents < layers - 1:
        raise ConfigError(
            f"no causal crosscoder: got {latents} latents and {layers} layers, expected two layers "
            "or more, and a latent at least for each but the last.",
            code="layers.causal",
            context={"latents": latents, "layers": layers},
        )
    own = torch.arange(latents) * (layers - 1) // latents
    number = torch.arange(layers)
    return number <= own[:, None], number > own[:, None]
