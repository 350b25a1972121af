"""Posteriors of a ladder: a site for each level, from one chain of layers."""

import pyro.distributions as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from priors.errors import ConfigError
from vsae.posteriors.gaussian import check_floor
from vsae.posteriors.point import point


class LadderPosterior(nn.Module):
    r"""``z_ℓ = relu(a_ℓ(x))``, points: the codes of a deterministic ladder.

    Args:
        encoder: :class:`vsae.LadderEncoder` with one number per latent.

    Raises:
        ConfigError: ``posterior.outputs`` for an encoder with more.

    Example:
        >>> import torch
        >>> from vsae import LadderEncoder
        >>> sorted(LadderPosterior(LadderEncoder(3, (8, 4)))(torch.zeros(5, 3)))
        ['z_1', 'z_2']

    Source:
        Sønderby et al. (2016), *Ladder Variational Autoencoders*, eq. 7 (the upward pass).
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        _check_numbers(encoder, 1)
        self.encoder, self.latents = encoder, encoder.outputs

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        return {f"z_{i}": point(a.relu()) for i, a in enumerate(self.encoder(x), start=1)}


class GaussianLadderPosterior(nn.Module):
    r"""``z_ℓ ~ Normal(μ̂_ℓ(x), diag ŝ_ℓ(x)²)``: what a row says of each level, taken by itself.

    Under :class:`vsae.AmortizedGuide` levels are independent given the activation; under
    :class:`vsae.PrecisionWeightedGuide` this is the bottom-up evidence, merged on the way down.

    Args:
        encoder: :class:`vsae.LadderEncoder` with two numbers per latent: the mean, then
            :math:`\mathrm{softplus}^{-1}(s)`.
        floor: The least standard deviation, in the units of the codes.

    Raises:
        ConfigError: ``posterior.outputs`` for an encoder with one, ``posterior.floor``.

    Example:
        >>> import torch
        >>> from vsae import LadderEncoder
        >>> q = GaussianLadderPosterior(LadderEncoder(3, (8, 4), numbers=2))(torch.zeros(5, 3))
        >>> q["z_2"].mean.shape
        torch.Size([5, 4])

    Source:
        Sønderby et al. (2016), *Ladder Variational Autoencoders*, eq. 8-9.
    """

    def __init__(self, encoder: nn.Module, *, floor: float = 1e-4) -> None:
        super().__init__()
        check_floor(floor)
        _check_numbers(encoder, 2)
        self.encoder, self.latents, self.floor = encoder, encoder.outputs // 2, floor

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        halves = [a.chunk(2, -1) for a in self.encoder(x)]
        return {
            f"z_{i}": dist.Normal(loc, self.floor + F.softplus(raw)).to_event(1)
            for i, (loc, raw) in enumerate(halves, start=1)
        }


def _check_numbers(encoder: nn.Module, numbers: int) -> None:
    if encoder.numbers != numbers:
        raise ConfigError(
            f"the posterior needs an encoder with {numbers} numbers per latent: got "
            f"{encoder.numbers}. LadderEncoder(…, numbers={numbers}).",
            code="posterior.outputs",
        )
