"""The model of every flat sparse autoencoder, variational or not."""

import pyro
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from vsae.likelihood import SphericalNormal, as_noise
from vsae.plates import plates


class SparseAutoencoder(nn.Module):
    r"""The generative program ``z ~ prior; x ~ Normal(decoder(link(z)), noise)``, row by row.

    .. math:: z_b \sim p(z), \qquad x_b \sim \mathcal N(b + W^\top \mathrm{link}(z_b),\ σ^2 I)

    Sites, in the plate ``rows`` of B rows: ``z`` (B, K), ``x`` (B, d). With the link
    ``nn.ReLU()`` the site holds the pre-activation and the code is ``relu(z)``: a Gaussian prior
    then is a *rectified Gaussian*, sparse, non-negative and correlated, with a closed-form KL.
    Which autoencoder it is, is decided by the guide: a Gaussian posterior makes a V-SAE, a point
    under a Laplace prior the ℓ1 SAE.

    Args:
        decoder: ``(B, K) -> (B, d)``, e.g. :class:`vsae.LinearDecoder`.
        prior: ``() -> Distribution`` of event shape ``(K,)``.
        noise: Standard deviation σ in (normalised) activation units, fixed; or a module
            ``() -> σ`` such as :class:`vsae.LearnedNoise`, or :class:`vsae.RowNoise`, a prior of a
            σ per row: the site ``noise`` (B,). "MSE + α·KL" is σ² = α/2.
        link: Elementwise module from ``z`` to the code; ``nn.Identity()`` if ``None``.
        dictionary: ``() -> log density`` of the atoms per row of data, e.g.
            :class:`vsae.Coherence`: a belief about the dictionary, so that it is learned by MAP; in
            training mode, as the factor ``dictionary``.

    Example:
        >>> import torch
        >>> from priors import IsotropicPrior
        >>> from vsae import LinearDecoder
        >>> model = SparseAutoencoder(LinearDecoder(8, 3), IsotropicPrior(8), noise=0.1)
        >>> model(torch.zeros(5, 3)).shape
        torch.Size([5, 3])

    Source:
        Kingma & Welling (2014); the rectified link after Harva & Kabán (2007), *Variational
        learning for rectified factor analysis*.
    """

    def __init__(
        self,
        decoder: nn.Module,
        prior: nn.Module,
        *,
        noise: float | nn.Module,
        link: nn.Module | None = None,
        dictionary: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.decoder, self.prior = decoder, prior
        self.noise = as_noise(noise)
        self.link = nn.Identity() if link is None else link
        self.dictionary = dictionary

    @property
    def _linear(self) -> dict[str, nn.Module]:
        """For :class:`vsae.ExpectedELBO`: whether the mean is linear in what the site holds."""
        return {"linear": self.decoder} if isinstance(self.link, nn.Identity) else {}

    def forward(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*batch d"]:
        prior, noise = self.prior(), self.noise()
        with plates(x, prior.batch_shape):
            if self.training and self.dictionary is not None:
                pyro.factor("dictionary", self.dictionary().expand(x.shape[-2]))
            z = pyro.sample("z", prior)
            if isinstance(noise, Distribution):
                noise = pyro.sample("noise", noise)
            mean = self.decoder(self.link(z))
            pyro.sample("x", SphericalNormal(mean, noise), obs=x, infer=self._linear)
        return mean

    def code(self, sites: dict[str, Tensor]) -> Float[Tensor, "*rows K"]:
        """The code that values of the latent sites are: ``link(z)``."""
        return self.link(sites["z"])
