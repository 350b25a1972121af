"""The model of every autoencoder whose codes are written in slots."""

import pyro
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from priors.errors import ConfigError
from priors.replicas import stack_like
from vsae.likelihood import SphericalNormal, as_noise
from vsae.models.refusals import refuse_replicas
from vsae.models.sampling import sample_code
from vsae.plates import plates
from vsae.sparse_code import SparseCode


class SupportAutoencoder(nn.Module):
    r"""The program ``support ~ subsets; z ~ prior on it; x ~ Normal(decoder(z, support), noise)``.

    .. math:: S_b \sim \mathrm{Uniform}\tbinom{K}{W}, \quad z_b \sim p(\cdot \mid S_b), \quad
        x_b \sim \mathcal N\Big(b + \sum_{j \in S_b} z_{bj}\, w_j,\ σ^2 I\Big)

    Sites, in the plate ``rows`` of B rows: ``support`` (B, W) integers, at the constant cost
    :math:`\log\binom KW`; ``active`` (B, W), zeros and ones, if there is an ``activity``; ``z``
    (B, W), where zero is an empty slot; ``x`` (B, d). A code in slots is a way of writing a dense
    code: with the prior ``restrict(prior(), support)`` the ELBO is that of
    :class:`vsae.SparseAutoencoder` with a point posterior, value and gradient, but for the
    constant, and no ``(B, K)`` array exists.

    Args:
        decoder: ``(z, support) -> (B, d)``, e.g. :class:`vsae.LinearDecoder`.
        prior: ``() -> Distribution`` of event shape ``(K,)`` with a :func:`priors.restrict`.
        width: Slots per row :math:`W`, as many as the posterior writes.
        noise: Standard deviation σ in (normalised) activation units, or a module ``() -> σ``.
        activity: Prior of which slots are active, of event shape ``(K,)``; its KL is the ℓ0
            penalty of JumpReLU.

    Raises:
        ConfigError: ``noise.scale``; when run, ``pair.latents`` for a prior of other latents than
            the decoder's, ``restrict.unregistered`` for a prior without a
            sparse form and ``subsets.size`` unless ``0 < width <= K``.

    Example:
        >>> import torch
        >>> from priors import LaplacePrior
        >>> from vsae import LinearDecoder
        >>> model = SupportAutoencoder(LinearDecoder(8, 3), LaplacePrior(8), width=2, noise=0.1)
        >>> model(torch.zeros(5, 3)).shape
        torch.Size([5, 3])

    Source:
        Gao et al. (2024), *Scaling and evaluating sparse autoencoders*, §2.3 (codes in slots).
    """

    def __init__(
        self,
        decoder: nn.Module,
        prior: nn.Module,
        *,
        width: int,
        noise: float | nn.Module,
        activity: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.decoder, self.prior, self.activity, self.width = decoder, prior, activity, width
        self.noise = as_noise(noise)

    def forward(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        prior, noise = self.prior(), self.noise()
        self._check_latents(prior)
        with plates(x, prior.batch_shape):
            z, support = sample_code(prior, self.width, x.device, self.activity)
            mean = self.decoder(z, support)
            pyro.sample("x", SphericalNormal(mean, noise), obs=x)
        return mean

    def _check_latents(self, prior: Distribution) -> None:
        """Else a support of the decoder's latents lies outside the prior's."""
        latents = {"prior": prior.event_shape[0], "decoder": self.decoder.latents}
        if len(set(latents.values())) > 1:
            raise ConfigError(
                f"prior and decoder have different numbers of latents: got {latents}, expected one "
                "number. A graph in a prior joins latents.",
                code="pair.latents",
                context=latents,
            )

    def code(self, sites: dict[str, Tensor]) -> SparseCode:
        """The code that values of the latent sites are."""
        return SparseCode(sites["support"], sites["z"], self.decoder.latents)


stack_like.register(SupportAutoencoder, refuse_replicas)
