"""AbsTopK: as many active latents in every row, of either sign."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from vsae.posteriors.point import point


class AbsTopKPosterior(nn.Module):
    r"""The ``k`` pre-activations of each row that are greatest in magnitude, with their signs.

    .. math:: S = \mathrm{top}_k\big(|v|\big), \quad z_j = v_{S_j}, \qquad
        v = (x - b_{dec}) W_{enc}^\top + b_{enc}

    A latent is a direction with two ends, so that a dictionary of ``K`` says as much as one of
    ``2K`` non-negative latents in opposite pairs. Every slot is filled unless a pre-activation is
    exactly zero. Ties are broken arbitrarily.

    Args:
        encoder: With ``select_magnitude(x, k)``, e.g. :class:`vsae.DictionaryEncoder`.
        k: Slots and active latents per row.

    Raises:
        ConfigError: ``select.k``, when run, unless ``0 < k <= K``.

    Example:
        >>> import torch
        >>> from vsae import DictionaryEncoder, LinearDecoder
        >>> encoder = DictionaryEncoder(LinearDecoder(8, 3))
        >>> here = AbsTopKPosterior(encoder, k=2)(torch.ones(5, 3))["z"].mean
        >>> there = AbsTopKPosterior(encoder, k=2)(-torch.ones(5, 3))["z"].mean
        >>> bool((here.sum(-1) == -there.sum(-1)).all())
        True

    Source:
        Zhu, Khalili & Zhu (2025), *AbsTopK: Rethinking Sparse Autoencoders for Bidirectional
        Features*, 2510.00404.
    """

    def __init__(self, encoder: nn.Module, *, k: int) -> None:
        super().__init__()
        self.encoder, self.k, self.latents = encoder, k, encoder.outputs

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        values, support = self.encoder.select_magnitude(x, self.k)
        return {"support": point(support), "z": point(values)}
