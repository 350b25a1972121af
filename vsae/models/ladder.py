"""The ladder: levels of latents that explain an activation together and, in turn, each other."""

from collections.abc import Sequence

import pyro
import torch
from jaxtyping import Float
from torch import Tensor, nn

from priors.errors import ConfigError
from vsae.likelihood import SphericalNormal, as_noise
from vsae.plates import plates


class LadderAutoencoder(nn.Module):
    r"""``z_ℓ ~ prior_ℓ; x ~ Normal(decoder(z_1, …, z_L), noise)``, and levels that are tied.

    .. math:: z_{b\ell} \sim p_\ell(z), \qquad x_b \sim \mathcal N(\hat x(z_b), σ^2 I), \qquad
        z_{b,\ell-1} \sim \mathcal N\big(W^{(\ell)\top} z_{b\ell} + b^{(\ell)},\ s_\ell^2 I\big)

    Sites, in the plate ``rows`` of B rows: ``z_1`` (B, K_1), the finest level, to ``z_L`` (B, K_L),
    the coarsest; ``x`` (B, d). In training mode, with a ``consistency``, more is observed: the view
    of each level as the level above must explain it, ``z_1_view`` (B, K_1), …, and ``x_view`` for
    the first. With those it is a *composite* likelihood, the ladder's loss, and not a bound on
    :math:`\log p(x)`; in evaluation mode there is ``x`` alone and the ELBO is one. With points at
    :math:`σ^2 = ½` and Laplace priors the loss per row is

    .. math:: \lVert x - \hat x\rVert^2 + \sum_\ell γ_\ell \lVert z_{\ell-1} - W^{(\ell)\top}
        z_\ell - b^{(\ell)}\rVert^2 + \sum_\ell λ_\ell \lVert z_\ell\rVert_1, \qquad
        γ_\ell = 1 / 2 s_\ell^2

    Args:
        decoder: From the concatenated code, the finest level first:
            :class:`vsae.LateralDecoder` or :class:`vsae.AdditiveDecoder`.
        priors: ``() -> Distribution`` of event shape ``(K_ℓ,)`` for each level, of any kind.
        noise: Standard deviation σ in (normalised) activation units, or a module ``() -> σ``.
        consistency: :class:`vsae.Consistency` or :class:`vsae.StoppedConsistency`; levels are not
            tied if ``None``.

    Raises:
        ConfigError: ``ladder.latents`` unless priors, decoder and consistency have the same
            levels; ``noise.scale``.

    Example:
        >>> from priors import LaplacePrior
        >>> from vsae import LateralDecoder
        >>> model = LadderAutoencoder(
        ...     LateralDecoder.of_sizes(3, (8, 4)), [LaplacePrior(8), LaplacePrior(4)], noise=0.7
        ... )
        >>> model(torch.zeros(5, 3)).shape
        torch.Size([5, 3])

    Source:
        *From Organized Shelves to Layered Catalogs* (structured-prior crosscoders and ladder SAEs);
        Rasmus et al. (2015), *Semi-Supervised Learning with Ladder Networks*.
    """

    def __init__(
        self,
        decoder: nn.Module,
        priors: Sequence[nn.Module],
        *,
        noise: float | nn.Module,
        consistency: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.decoder, self.priors = decoder, nn.ModuleList(priors)
        self.noise, self.consistency = as_noise(noise), consistency
        self.sizes = tuple(prior().event_shape[0] for prior in priors)
        tied = self.sizes if consistency is None else consistency.sizes
        check_levels(decoder.sizes, self.sizes, tied)

    def forward(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*batch d"]:
        beliefs, noise = [prior() for prior in self.priors], self.noise()
        with plates(x, beliefs[0].batch_shape):
            codes = [pyro.sample(f"z_{i}", p) for i, p in enumerate(beliefs, start=1)]
            mean = self.decoder(torch.cat(codes, -1))
            pyro.sample("x", SphericalNormal(mean, noise), obs=x)
            if self.training and self.consistency is not None:
                for name, view, explained, scale in self.consistency.terms(x, codes):
                    pyro.sample(name, SphericalNormal(explained, scale), obs=view)
        return mean

    def code(self, sites: dict[str, Tensor]) -> Float[Tensor, "*rows K"]:
        """The code that values of the latent sites are: all levels, the finest first."""
        return torch.cat([sites[f"z_{i}"] for i in range(1, len(self.sizes) + 1)], -1)

    def levels(self, code: Float[Tensor, "*rows K"]) -> tuple[Float[Tensor, "*rows _"], ...]:
        """A code's levels, apart."""
        return code.split(self.sizes, -1)


def check_levels(*sizes: tuple[int, ...]) -> None:
    """Raise ``ladder.latents`` unless all parts of a ladder have the same levels."""
    if len(set(sizes)) != 1:
        raise ConfigError(
            f"parts of a ladder have different levels: got latents {sizes} of decoder, priors and "
            "the rest, expected the same.",
            code="ladder.latents",
            context={"sizes": sizes},
        )
