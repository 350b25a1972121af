"""The additive decoder of a ladder: every level speaks of the activation itself."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from priors.errors import ConfigError
from vsae.decoders import LinearDecoder
from vsae.lateral_decoder import random_levels, reach


class AdditiveDecoder(nn.Module):
    r"""Levels that add up: :math:`\hat x = b + \sum_\ell U^{(\ell)\top} z^{(\ell)}`, unit atoms.

    Args:
        parts: Per level a :class:`vsae.LinearDecoder` to activations; the first has the bias.

    Raises:
        ConfigError: ``ladder.widths`` unless all have the same outputs and only the first a bias.

    Shapes:
        ``W_dec (K, d)``, ``b_dec (d,)``, ``K`` the latents of all levels.

    Example:
        >>> AdditiveDecoder.of_sizes(3, (8, 4))(torch.zeros(5, 12)).shape
        torch.Size([5, 3])

    Source:
        This library's second reading of a ladder in which each level explains "its own view and
        the input".
    """

    def __init__(self, parts: Iterable[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        widths = [part.d_model for part in self.parts]
        biases = [part.b_dec is not None for part in self.parts]
        if len(set(widths)) != 1 or biases != [True] + [False] * (len(widths) - 1):
            raise ConfigError(
                f"levels do not add up: got outputs {widths} and biases {biases}, expected one "
                "width, and a bias of the first level alone.",
                code="ladder.widths",
                context={"widths": widths, "biases": biases},
            )
        self.sizes = tuple(part.latents for part in self.parts)
        self.latents, self.d_model = sum(self.sizes), widths[0]

    @classmethod
    def of_sizes(cls, d_model: int, sizes: Sequence[int]) -> "AdditiveDecoder":
        """For levels of these sizes, the finest first; coarse atoms are mixtures of fine ones."""
        return cls.from_levels(random_levels(d_model, sizes))

    @classmethod
    def from_levels(cls, levels: Sequence[LinearDecoder]) -> "AdditiveDecoder":
        """That shares the first map of a chain, and whose coarse atoms begin where it leads."""
        parts = [levels[0]]
        for reached in reach(levels)[1:]:
            part = LinearDecoder(*reached.shape, bias=False)
            with torch.no_grad():
                part.W_dec.copy_(nn.functional.normalize(reached, dim=-1))
            parts.append(part)
        return cls(parts)

    def forward(self, z: Float[Tensor, "*rows K"]) -> Float[Tensor, "*batch d"]:
        codes = z.split(self.sizes, -1)
        return sum(part(code) for part, code in zip(self.parts, codes, strict=True))

    @property
    def W_dec(self) -> Float[Tensor, "*batch K d"]:
        """Atoms of all levels, the finest first."""
        return torch.cat([part.W_dec for part in self.parts], -2)

    @property
    def b_dec(self) -> Float[Tensor, "*batch d"]:
        """The bias, in activation units."""
        return self.parts[0].b_dec
