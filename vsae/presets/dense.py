"""The two autoencoders most people start from, as one call each."""

import math

import torch
from torch import nn

from priors._prior import check_positive
from priors.laplace import LaplacePrior
from vsae.autoencoder import Autoencoder
from vsae.decoders import LinearDecoder
from vsae.encoders import LinearEncoder, MLPEncoder
from vsae.guides import AmortizedGuide
from vsae.models.sae import SparseAutoencoder
from vsae.posteriors import GaussianPosterior, ReLUPosterior


def l1_autoencoder(
    d_model: int,
    latents: int,
    *,
    l1: float,
    hidden: int | None = None,
    normalizer: nn.Module | None = None,
) -> Autoencoder:
    r"""The ℓ1 SAE, :math:`\lVert x - \hat x\rVert^2 + λ\lVert z\rVert_1`, as a guide of the ELBO.

    A ReLU point posterior under a Laplace prior of scale :math:`b = 2σ^2/λ`, here with
    :math:`σ^2 = ½`, so that the ELBO per row is that loss plus constants.

    Args:
        d_model: Width of an activation.
        latents: Number of latents.
        l1: The coefficient λ, in (normalised) activation units.
        hidden: Hidden units of a two-layer ReLU encoder; a linear encoder, aligned with the decoder
            to begin with, if ``None``.
        normalizer: Units the model works in.

    Raises:
        ConfigError: ``prior.bad_l1`` unless λ is positive.

    Example:
        >>> l1_autoencoder(4, 16, l1=0.1).encode(torch.zeros(2, 4)).shape
        torch.Size([2, 16])
    """
    check_positive("l1", l1)
    model = SparseAutoencoder(
        LinearDecoder(latents, d_model), LaplacePrior(latents, scale=1 / l1), noise=0.5**0.5
    )
    posterior = ReLUPosterior(_encoder(d_model, hidden, latents, model.decoder))
    return Autoencoder(model, AmortizedGuide(posterior), normalizer)


def variational_autoencoder(
    d_model: int,
    prior: nn.Module,
    *,
    noise: float | nn.Module,
    hidden: int | None = None,
    link: nn.Module | None = None,
    scale: float = 0.1,
    normalizer: nn.Module | None = None,
) -> Autoencoder:
    r"""The V-SAE: a diagonal Gaussian posterior under any prior.

    With the link ``nn.ReLU()`` codes are rectified Gaussians, sparse and non-negative.

    Args:
        d_model: Width of an activation.
        prior: Any prior; its ``dim`` is the number of latents.
        noise: σ in (normalised) activation units; "MSE + α·KL" is σ² = α/2.
        hidden: Hidden units of a two-layer ReLU encoder; a linear encoder if ``None``.
        link: ``nn.Identity()`` if ``None``, or ``nn.ReLU()``.
        scale: The posterior's standard deviation to begin with, in the units of the codes.
        normalizer: Units the model works in.

    Raises:
        ConfigError: ``prior.bad_scale`` unless ``scale`` is positive; ``noise.scale``.

    Example:
        >>> from priors import CholeskyPrior
        >>> pair = variational_autoencoder(4, CholeskyPrior(16), noise=0.3)
        >>> pair.posterior(torch.zeros(2, 4))["z"].variance.shape
        torch.Size([2, 16])
    """
    check_positive("scale", scale)
    latents = prior().event_shape[0]
    model = SparseAutoencoder(LinearDecoder(latents, d_model), prior, noise=noise, link=link)
    encoder = _encoder(d_model, hidden, 2 * latents, model.decoder)
    last = encoder.b_out if isinstance(encoder, MLPEncoder) else encoder.b_enc
    with torch.no_grad():
        last[latents:] = scale + math.log(-math.expm1(-scale))  # softplus⁻¹
    return Autoencoder(model, AmortizedGuide(GaussianPosterior(encoder)), normalizer)


def _encoder(d_model: int, hidden: int | None, outputs: int, decoder: LinearDecoder) -> nn.Module:
    if hidden is not None:
        return MLPEncoder(d_model, hidden, outputs)
    encoder = LinearEncoder(d_model, outputs)
    encoder.align(decoder)
    return encoder
