"""A generative chain of levels: each is drawn around what the level above says of it."""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor, nn

from priors.errors import ConfigError
from vsae.likelihood import SphericalNormal, as_noise
from vsae.models.ladder import check_levels
from vsae.plates import plates


class GaussianLadderAutoencoder(nn.Module):
    r"""The chain ``z_L ~ prior; z_{ℓ-1} ~ Normal(level_ℓ(z_ℓ), s_{ℓ-1}); x ~ Normal(…)``.

    .. math:: z_L \sim p(z), \qquad
        z_{\ell-1} \sim \mathcal N\big(W^{(\ell)\top} f(z_\ell) + b^{(\ell)},\ s_{\ell-1}^2 I\big),
        \qquad x \sim \mathcal N\big(W^{(1)\top} f(z_1) + b^{(1)},\ σ^2 I\big)

    Sites, in the plate ``rows`` of B rows: ``z_L`` (B, K_L), the coarsest, to ``z_1`` (B, K_1), the
    finest, in this order; ``x`` (B, d). :math:`f` is the link; sites hold pre-activations, codes
    are :math:`f` of them. With ``nn.ReLU()`` codes are sparse and non-negative, and a coarse latent
    raises the means of the fine ones it recruits. With points the chain's terms are those of
    :class:`vsae.Consistency`; as a chain they are a density, so its ELBO is a bound on
    :math:`\log p(x)` in both modes.

    Args:
        decoder: :class:`vsae.ChainDecoder`, whose ``levels`` are the maps.
        prior: ``() -> Distribution`` of event shape ``(K_L,)``, of the coarsest level.
        spreads: :math:`s_\ell` of the levels below it, the finest first: numbers, fixed, or modules
            ``() -> s`` such as :class:`vsae.LearnedNoise`, in the units of the sites.
        noise: Standard deviation σ in (normalised) activation units, or a module ``() -> σ``.
        link: Elementwise module from a site to its code; ``nn.Identity()`` if ``None``.

    Raises:
        ConfigError: ``ladder.latents`` if the prior is not over the coarsest level,
            ``ladder.spreads`` unless there is one for every other; ``noise.scale``.

    Example:
        >>> from priors import IsotropicPrior
        >>> from vsae import ChainDecoder
        >>> model = GaussianLadderAutoencoder(
        ...     ChainDecoder.of_sizes(3, (8, 4)), IsotropicPrior(4), spreads=(0.5,), noise=0.1
        ... )
        >>> model(torch.zeros(5, 3)).shape
        torch.Size([5, 3])

    Source:
        Sønderby et al. (2016), *Ladder Variational Autoencoders*, eq. 1-3.
    """

    def __init__(
        self,
        decoder: nn.Module,
        prior: nn.Module,
        *,
        spreads: Sequence[float | nn.Module],
        noise: float | nn.Module,
        link: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.decoder, self.prior, self.sizes = decoder, prior, decoder.sizes
        check_levels(self.sizes[-1:], tuple(prior().event_shape))
        if len(spreads) != len(self.sizes) - 1:
            raise ConfigError(
                f"every level but the coarsest has a spread: got {len(spreads)} for "
                f"{len(self.sizes)} levels.",
                code="ladder.spreads",
            )
        self.spreads = nn.ModuleList(as_noise(spread) for spread in spreads)
        self.noise = as_noise(noise)
        self.link = nn.Identity() if link is None else link

    def forward(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*batch d"]:
        levels: nn.ModuleList = self.decoder.levels
        first, *above = levels
        prior, noise = self.prior(), self.noise()
        steps = list(enumerate(zip(above, self.spreads, strict=True), start=1))
        with plates(x, prior.batch_shape):
            z = pyro.sample(f"z_{len(self.sizes)}", prior)
            for i, (level, spread) in reversed(steps):
                loc = level(self.link(z))
                z = pyro.sample(f"z_{i}", dist.Normal(loc, spread()[..., None]).to_event(1))
            mean = first(self.link(z))
            pyro.sample("x", SphericalNormal(mean, noise), obs=x)
        return mean

    def code(self, sites: dict[str, Tensor]) -> Float[Tensor, "*rows K"]:
        """The code that values of the latent sites are: ``link`` of each, the finest first."""
        return torch.cat([self.link(sites[f"z_{i}"]) for i in range(1, len(self.sizes) + 1)], -1)

    def levels(self, code: Float[Tensor, "*rows K"]) -> tuple[Float[Tensor, "*rows _"], ...]:
        """A code's levels, apart."""
        return code.split(self.sizes, -1)
