"""The decoder of a generative chain: activations depend on the finest level alone."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vsae.lateral_decoder import check_chain, random_levels, reach


class ChainDecoder(nn.Module):
    r"""The last step of a chain :math:`z^{(L)} \to … \to z^{(1)} \to x`, with atoms for all levels.

    .. math:: \hat x = b^{(1)} + W^{(1)\top} z^{(1)}

    Given the finest level the others say nothing more of the activation, so ``decode`` reads only
    that part of a code. Their atoms :math:`W^{(\ell)} \cdots W^{(1)}` are where a unit of them
    moves the mean of the activation while nothing is rectified on the way.

    Args:
        levels: Per level a :class:`vsae.LinearDecoder` to the view below it, the finest first.

    Raises:
        ConfigError: ``ladder.widths``.

    Shapes:
        ``W_dec (K, d)``, ``b_dec (d,)``, ``K`` the latents of all levels.

    Example:
        >>> ChainDecoder.of_sizes(3, (8, 4))(torch.zeros(5, 12)).shape
        torch.Size([5, 3])

    Source:
        Sønderby et al. (2016), *Ladder Variational Autoencoders*, eq. 1-3.
    """

    def __init__(self, levels: Iterable[nn.Module]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(check_chain(levels))
        self.sizes = tuple(level.latents for level in self.levels)
        self.latents, self.d_model = sum(self.sizes), self.levels[0].d_model

    @classmethod
    def of_sizes(cls, d_model: int, sizes: Sequence[int]) -> "ChainDecoder":
        """With random unit rows, for levels of these sizes, the finest first."""
        return cls(random_levels(d_model, sizes))

    def forward(self, z: Float[Tensor, "*rows K"]) -> Float[Tensor, "*batch d"]:
        return self.levels[0](z[..., : self.sizes[0]])

    @property
    def W_dec(self) -> Float[Tensor, "*batch K d"]:
        """Atoms of all levels, the finest first; those of coarse levels have any norm."""
        return torch.cat(reach(self.levels), -2)

    @property
    def b_dec(self) -> Float[Tensor, "*batch d"]:
        """The bias of the finest level, in activation units."""
        return self.levels[0].b_dec
