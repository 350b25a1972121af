"""The gated sparse autoencoder's model: a gate that pays, and an amplitude that does not."""

import pyro
from jaxtyping import Float
from torch import Tensor, nn

from priors.flat import FlatPrior
from priors.replicas import rows_affine
from vsae.likelihood import SphericalNormal, as_noise
from vsae.plates import plates


class GatedAutoencoder(nn.Module):
    r"""``gate ~ prior; z ~ flat; x ~ Normal(decoder(z), noise)``, and ``x`` once more by the gate.

    .. math:: γ_b \sim p(γ), \quad p(z_b) \propto 1, \quad
        x_b \sim \mathcal N(b + W^\top z_b,\ σ^2 I), \quad
        x_b \sim \mathcal N(\bar b + \bar W^\top γ_b,\ σ^2 I)

    Sites, in the plate ``rows``: ``gate`` (B, K), which the prior is about; ``z`` (B, K), the code,
    without a penalty, so that it is not shrunk; ``x`` (B, d); ``x_gate`` (B, d), where the bar
    stands for a frozen copy of the decoder: no gradient reaches it. The gate of the published guide
    is binary in the code, so that ``x_gate`` alone teaches it which latents explain.

    Two observations of one activation are a *composite* likelihood, the published loss, and not a
    bound on :math:`\log p(x)`. ``x_gate`` is there in training mode alone; train in it, as
    :func:`vsae.fit` does.

    Args:
        decoder: With ``W_dec`` (K, d) and ``b_dec``, e.g. :class:`vsae.LinearDecoder`.
        prior: Of the gate, ``() -> Distribution`` of event shape ``(K,)``; published:
            :class:`priors.LaplacePrior` of scale ``2σ²/λ``.
        noise: Standard deviation σ of both, in (normalised) activation units, or a module
            ``() -> σ``; published: σ² = ½.

    Raises:
        ConfigError: ``noise.scale``.

    Example:
        >>> import torch
        >>> from priors import LaplacePrior
        >>> from vsae import LinearDecoder
        >>> model = GatedAutoencoder(LinearDecoder(8, 3), LaplacePrior(8), noise=0.5**0.5)
        >>> model(torch.zeros(5, 3)).shape
        torch.Size([5, 3])

    Source:
        Rajamanoharan et al. (2024), *Improving Dictionary Learning with Gated Sparse Autoencoders*,
        2404.16014, eq. 8.
    """

    def __init__(self, decoder: nn.Module, prior: nn.Module, *, noise: float | nn.Module) -> None:
        super().__init__()
        self.decoder, self.prior = decoder, prior
        self.flat = FlatPrior(decoder.latents)
        self.noise = as_noise(noise)

    def forward(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*batch d"]:
        prior, noise = self.prior(), self.noise()
        with plates(x, prior.batch_shape):
            gate = pyro.sample("gate", prior)
            z = pyro.sample("z", self.flat())
            mean = self.decoder(z)
            pyro.sample("x", SphericalNormal(mean, noise), obs=x)
            if self.training:
                pyro.sample("x_gate", SphericalNormal(self.frozen(gate), noise), obs=x)
        return mean

    def frozen(self, gate: Float[Tensor, "*rows K"]) -> Float[Tensor, "*batch d"]:
        """``decoder(gate)`` without a gradient for the decoder."""
        bias = self.decoder.b_dec
        return rows_affine(
            gate, self.decoder.W_dec.detach(), None if bias is None else bias.detach()
        )

    def code(self, sites: dict[str, Tensor]) -> Float[Tensor, "*rows K"]:
        """The code that values of the latent sites are: ``z``."""
        return sites["z"]
