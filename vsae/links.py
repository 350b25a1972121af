"""Links: from a latent to the code that is decoded, where a model makes the code sparse itself."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from priors.errors import ConfigError
from vsae.select import check_k


class TopKLink(nn.Module):
    r"""Keeps the ``k`` greatest entries of each row by absolute value, with their signs.

    .. math:: c_j = z_j\,[\,|z_j| \text{ is among the } k \text{ greatest of } |z|\,]

    As a link of the *model*, so that all ``K`` latents are latents: every one has a posterior and
    pays its KL, selected or not, and the selection acts on the draw, noise included. Selection in
    the guide (:class:`vsae.TopKPosterior`, :class:`vsae.GaussianTopKPosterior`) spares the others.
    The derivative of an entry that is not kept is 0. Ties are broken arbitrarily, and a NaN counts
    as greatest, so that the loss shows it.

    Args:
        k: Entries kept per row.

    Raises:
        ConfigError: ``select.k`` unless ``k`` is positive, and, when run, at most ``K``.

    Example:
        >>> TopKLink(2)(torch.tensor([[3.0, 1.0, 2.0, -9.0]]))
        tensor([[ 3.,  0.,  0., -9.]])

    Source:
        Baker & Li (2025), *Analysis of Variational Sparse Autoencoders*, 2509.22994, released code:
        by absolute value, signs kept.
    """

    def __init__(self, k: int) -> None:
        super().__init__()
        if k < 1:
            raise ConfigError(f"a link keeps at least one entry: got k={k}.", code="select.k")
        self.k = k

    def forward(self, z: Float[Tensor, "*batch K"]) -> Float[Tensor, "*batch K"]:
        check_k(self.k, z.shape[-1])
        kept = z.detach().abs().topk(self.k, dim=-1, sorted=False).indices
        return torch.zeros_like(z).scatter(-1, kept, z.gather(-1, kept))

    def extra_repr(self) -> str:
        return f"k={self.k}"
