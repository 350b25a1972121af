"""A noise per row beside codes that another posterior infers."""

from jaxtyping import Float
from pyro import distributions as dist
from torch import Tensor, nn
from torch.distributions import Distribution

from priors.errors import ConfigError
from vsae.row_noise import RowNoise, fitted_noise


class FittedNoisePosterior(nn.Module):
    r"""``posterior``'s sites, and the ``noise`` of each row that maximises the ELBO given its code.

    .. math:: \hat σ_b^2 = \max\Big(σ_0^2,\ \frac{\lVert x_b - b - \bar z_b W \rVert^2
        + \sum_k \mathrm{Var}_q[z_{bk}] \lVert w_k \rVert^2}{d + α + 1}\Big)

    What a model with :class:`vsae.RowNoise` asks of an encoder; nothing of it is learned.

    Args:
        posterior: Of the codes, site ``z``, with a mean and a variance per latent.
        decoder: With atoms ``W_dec`` (K, d) and bias ``b_dec``, shared with the model.
        noise: A :class:`vsae.RowNoise`, shared with the model.

    Raises:
        ConfigError: ``row_noise.prior`` for another noise.

    Example:
        >>> import torch
        >>> from vsae import LinearDecoder, LinearEncoder, SpikeSlabPosterior
        >>> q = SpikeSlabPosterior(LinearEncoder(3, 12))
        >>> sites = FittedNoisePosterior(q, LinearDecoder(4, 3), RowNoise(0.1))(torch.zeros(5, 3))
        >>> sites["noise"].batch_shape
        torch.Size([5])

    Source:
        The M-step of :class:`vsae.RowNoise`.
    """

    def __init__(self, posterior: nn.Module, decoder: nn.Module, noise: nn.Module) -> None:
        super().__init__()
        if not isinstance(noise, RowNoise):
            raise ConfigError(
                f"a noise per row is fitted to a RowNoise: got {type(noise).__name__}. A model "
                "with one noise for all rows needs no site for it.",
                code="row_noise.prior",
            )
        self.posterior, self.decoder, self.noise = posterior, decoder, noise
        self.latents = posterior.latents

    @property
    def encoder(self) -> nn.Module:
        """The posterior's own."""
        return self.posterior.encoder

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        sites = self.posterior(x)
        z, lengths = sites["z"], self.decoder.W_dec.square().sum(-1)
        square = (x - self.decoder(z.mean)).square().sum(-1) + (z.variance * lengths).sum(-1)
        return sites | {"noise": dist.Delta(fitted_noise(self.noise(), square, x.shape[-1]))}
