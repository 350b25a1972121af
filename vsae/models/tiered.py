"""The model of autoencoders in tiers: all of them add to one reconstruction."""

from collections.abc import Sequence

import pyro
from jaxtyping import Float
from torch import Tensor, nn

from priors.errors import ConfigError
from priors.tiers import check_sizes
from vsae.likelihood import SphericalNormal, as_noise
from vsae.plates import plates


class TieredAutoencoder(nn.Module):
    r"""``z ~ prior; x ~ Normal(b + Σ_i W'_i z_i, noise)``: latents in tiers, atoms in one space.

    .. math:: z_b = (z_{b1}, …, z_{bn}) \sim p(z), \qquad
        x_b \sim \mathcal N\big(b + \textstyle\sum_i W_i'^\top z_{bi},\ σ^2 I\big)

    Sites, in the plate ``rows`` of B rows: ``z`` (B, K), the tiers one after another; ``x``
    (B, d). Every tier's atoms are activations, ``W'_i`` (d_i, d): a tied decoder, which maps tier
    ``i`` to tier ``i - 1``, would not add up. The model does not know that one tier is computed
    from another: that is its guide's business. It differs from :class:`vsae.SparseAutoencoder` in
    that it knows the tiers' sizes.

    Args:
        decoder: ``(B, K) -> (B, d)``, e.g. :class:`vsae.LinearDecoder`.
        prior: ``() -> Distribution`` of event shape ``(K,)``,
            e.g. :class:`priors.TieredLaplacePrior`.
        sizes: Latents of each tier, ``K`` together.
        noise: Standard deviation σ in (normalised) activation units, or a module ``() -> σ``.

    Raises:
        ConfigError: ``tiers.sizes`` for an empty tier, ``tiers.latents`` if they are not the
            decoder's together; ``noise.scale``.

    Example:
        >>> import torch
        >>> from priors import TieredLaplacePrior
        >>> from vsae import LinearDecoder
        >>> model = TieredAutoencoder(
        ...     LinearDecoder(8, 3), TieredLaplacePrior((5, 3)), sizes=(5, 3), noise=0.1
        ... )
        >>> model(torch.zeros(5, 3)).shape
        torch.Size([5, 3])

    Source:
        *Compositional Hierarchies* (tiered HSAE, under review), eq. 2.
    """

    def __init__(
        self,
        decoder: nn.Module,
        prior: nn.Module,
        *,
        sizes: Sequence[int],
        noise: float | nn.Module,
    ) -> None:
        super().__init__()
        self.decoder, self.prior, self.sizes = decoder, prior, check_sizes(sizes)
        if sum(self.sizes) != decoder.latents:
            raise ConfigError(
                f"tiers share the latents: got sizes {self.sizes} and {decoder.latents} latents, "
                f"expected {sum(self.sizes)}.",
                code="tiers.latents",
            )
        self.noise = as_noise(noise)

    def forward(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*batch d"]:
        prior, noise = self.prior(), self.noise()
        with plates(x, prior.batch_shape):
            z = pyro.sample("z", prior)
            mean = self.decoder(z)
            pyro.sample("x", SphericalNormal(mean, noise), obs=x)
        return mean

    def code(self, sites: dict[str, Tensor]) -> Float[Tensor, "*rows K"]:
        """The code that values of the latent sites are: ``z``."""
        return sites["z"]

    def tiers(self, code: Float[Tensor, "*rows K"]) -> tuple[Float[Tensor, "*rows d_i"], ...]:
        """A code's tiers, apart."""
        return code.split(self.sizes, -1)
