"""Several encoders as one: the numbers a posterior needs per latent, from a network each."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vsae.errors import ConfigError


class JoinedEncoder(nn.Module):
    """The outputs of several encoders one after another: means from one, scales from another.

    What each of them keeps, masks of a :class:`vsae.LayeredEncoder` say, it goes on keeping.

    Args:
        encoders: Networks of one ``d_model``, in the order in which a posterior reads them.

    Raises:
        ConfigError: ``encoder.joined`` for none, or of different widths.

    Example:
        >>> from vsae import GaussianPosterior, LinearEncoder
        >>> encoder = JoinedEncoder([LinearEncoder(3, 8), LinearEncoder(3, 8)])
        >>> GaussianPosterior(encoder)(torch.zeros(5, 3))["z"].event_shape
        torch.Size([8])
    """

    def __init__(self, encoders: Iterable[nn.Module]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        widths = [encoder.d_model for encoder in self.encoders]
        if len(set(widths)) != 1:
            raise ConfigError(
                f"encoders to join read the same activations: got widths {widths}, expected one.",
                code="encoder.joined",
                context={"widths": widths},
            )
        self.d_model = widths[0]
        self.outputs = sum(encoder.outputs for encoder in self.encoders)

    def forward(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*batch out"]:
        return torch.cat([encoder(x) for encoder in self.encoders], -1)
