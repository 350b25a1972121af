"""The bottom-up chain of a ladder: each level reads the rectified code of the one below."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from priors.errors import ConfigError
from priors.tiers import check_sizes
from vsae.encoders import LinearEncoder


class LadderEncoder(nn.Module):
    r"""Pre-activations of every level, each computed from the level below.

    .. math:: a^{(\ell)} = W_e^{(\ell)\top} z^{(\ell-1)} + b_e^{(\ell)}, \qquad
        z^{(\ell)} = \mathrm{relu}(a^{(\ell)}), \qquad z^{(0)} = x

    Nothing stands between the levels. Each but the first knows of a row what the one below does.

    Args:
        d_model: Width :math:`d` of an activation.
        sizes: Latents of each level, the finest first.
        numbers: Per latent: 1, or 2 for a mean and a scale. The chain goes on from the first.

    Raises:
        ConfigError: ``tiers.sizes``, ``ladder.numbers``.

    Example:
        >>> [tuple(a.shape) for a in LadderEncoder(3, (8, 4))(torch.ones(5, 3))]
        [(5, 8), (5, 4)]

    Source:
        Sønderby et al. (2016), *Ladder Variational Autoencoders*, eq. 7 (the upward pass).
    """

    def __init__(self, d_model: int, sizes: Sequence[int], *, numbers: int = 1) -> None:
        super().__init__()
        if numbers not in (1, 2):
            raise ConfigError(
                f"a latent takes 1 number, or 2: got {numbers}.", code="ladder.numbers"
            )
        self.d_model, self.sizes, self.numbers = d_model, check_sizes(sizes), numbers
        self.outputs = numbers * sum(self.sizes)
        widths = pairwise((d_model, *self.sizes))
        self.layers = nn.ModuleList(LinearEncoder(*ends) for ends in self._ends(widths))

    def _ends(self, widths) -> list[tuple[int, int]]:
        return [(inputs, self.numbers * latents) for inputs, latents in widths]

    def forward(self, x: Float[Tensor, "*rows d"]) -> tuple[Float[Tensor, "*batch _"], ...]:
        below, found = x, []
        for layer, size in zip(self.layers, self.sizes, strict=True):
            found.append(layer(below))
            below = found[-1][..., :size].relu()
        return tuple(found)

    @torch.no_grad()
    def align(self, views: Sequence[nn.Module]) -> None:
        """Let each level look for the atoms of its map to the view below, centred on its bias."""
        for layer, view in zip(self.layers, views, strict=True):
            layer.align(view)
