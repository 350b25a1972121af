"""Gaussian posteriors over dense codes, diagonal or full."""

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from priors.errors import ConfigError


class GaussianPosterior(nn.Module):
    r"""``z ~ Normal(μ(x), diag s(x)²)``: the variational autoencoder's.

    Args:
        encoder: Network with ``2K`` outputs: the mean, then :math:`\mathrm{softplus}^{-1}(s)`.
        floor: The least standard deviation, in the units of the codes.

    Raises:
        ConfigError: ``posterior.outputs`` if the encoder's outputs are odd, ``posterior.floor``.

    Example:
        >>> from vsae.encoders import LinearEncoder
        >>> GaussianPosterior(LinearEncoder(3, 8))(torch.zeros(5, 3))["z"].event_shape
        torch.Size([4])

    Source:
        Kingma & Welling (2014), *Auto-Encoding Variational Bayes*, appendix C.2.
    """

    def __init__(self, encoder: nn.Module, *, floor: float = 1e-4) -> None:
        super().__init__()
        check_floor(floor)
        if encoder.outputs % 2:
            raise ConfigError(
                f"a Gaussian posterior needs an encoder with 2K outputs: got {encoder.outputs}.",
                code="posterior.outputs",
            )
        self.encoder, self.latents, self.floor = encoder, encoder.outputs // 2, floor

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        loc, raw = self.encoder(x).chunk(2, dim=-1)
        return {"z": dist.Normal(loc, self.floor + F.softplus(raw)).to_event(1)}


class FullGaussianPosterior(nn.Module):
    r"""``z ~ Normal(μ(x), L(x)L(x)ᵀ)``: a covariance per row, through its Cholesky factor.

    .. math:: L = \mathrm{tril}(A, -1) + \mathrm{diag}(\mathrm{floor} + \mathrm{softplus}(a))

    Args:
        encoder: Network with ``2K + K(K-1)/2`` outputs: mean, raw diagonal, strict lower triangle.
        latents: :math:`K`; for small ``K`` only, a step holds ``(B, K, K)`` numbers.
        floor: The least diagonal entry, in the units of the codes.

    Raises:
        ConfigError: ``posterior.outputs`` if the encoder's outputs are not that many,
            ``posterior.floor``.
    """

    def __init__(self, encoder: nn.Module, latents: int, *, floor: float = 1e-4) -> None:
        super().__init__()
        check_floor(floor)
        expected = 2 * latents + latents * (latents - 1) // 2
        if encoder.outputs != expected:
            raise ConfigError(
                f"a full Gaussian posterior over {latents} latents needs an encoder with "
                f"{expected} outputs: got {encoder.outputs}.",
                code="posterior.outputs",
            )
        self.encoder, self.latents, self.floor = encoder, latents, floor

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        loc, raw, strict = self.encoder(x).tensor_split((self.latents, 2 * self.latents), dim=-1)
        below = torch.ones(self.latents, self.latents, dtype=torch.bool, device=x.device).tril(-1)
        factor = torch.diag_embed(self.floor + F.softplus(raw))
        factor = factor.masked_scatter(below.expand_as(factor), strict)
        return {"z": dist.MultivariateNormal(loc, scale_tril=factor)}


def check_floor(floor: float) -> None:
    """Raise unless a standard deviation is positive."""
    if not floor > 0:
        raise ConfigError(
            f"the least standard deviation must be positive: got {floor}.", code="posterior.floor"
        )
