"""Gated: one half of the encoder says which latents are active, the other how much."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from priors.replicas import rows_times
from vsae.posteriors.point import point


class GatedPosterior(nn.Module):
    r"""Points ``gate`` and ``z``, of one encoder matrix.

    .. math:: u = (x - b_{dec}) W_{enc}^\top, \quad γ = \mathrm{relu}(u + b_{gate}), \quad
        z = \mathbf 1[u + b_{gate} > 0] \cdot \mathrm{relu}(e^{r_{mag}} u + b_{mag})

    The indicator has no derivative: what the gate learns, it learns through ``gate``.

    Args:
        encoder: With rows ``W_enc`` (K, d), :math:`b_{gate}` as ``b_enc`` and ``centre()``:
            :class:`vsae.DictionaryEncoder`.

    Shapes:
        ``r_mag (K,)``, ``b_mag (K,)``, both zero to begin with.

    Example:
        >>> from vsae import DictionaryEncoder, LinearDecoder
        >>> sites = GatedPosterior(DictionaryEncoder(LinearDecoder(8, 3)))(torch.ones(5, 3))
        >>> torch.equal(sites["gate"].mean, sites["z"].mean)  # as long as r_mag and biases are 0
        True

    Source:
        Rajamanoharan et al. (2024), 2404.16014, eq. 6, 7.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.latents = encoder, encoder.outputs
        self.r_mag = nn.Parameter(torch.zeros_like(encoder.b_enc))
        self.b_mag = nn.Parameter(torch.zeros_like(encoder.b_enc))

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        encoder = self.encoder
        shared = rows_times(x - encoder.centre(), encoder.W_enc.mT)
        gate = (shared + encoder.b_enc).relu()
        magnitude = (self.r_mag.exp() * shared + self.b_mag).relu()
        return {"gate": point(gate), "z": point(magnitude * (gate > 0))}
