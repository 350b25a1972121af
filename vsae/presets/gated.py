"""The gated SAE, as one call."""

from torch import nn

from priors._prior import check_positive
from priors.laplace import LaplacePrior
from vsae.autoencoder import Autoencoder
from vsae.decoders import LinearDecoder
from vsae.encoders import DictionaryEncoder
from vsae.guides import AmortizedGuide
from vsae.models.gated import GatedAutoencoder
from vsae.posteriors.gated import GatedPosterior
from vsae.presets.topk import HALF


def gated_autoencoder(
    d_model: int,
    latents: int,
    *,
    l1: float,
    normalizer: nn.Module | None = None,
) -> Autoencoder:
    r"""The gated SAE: an ℓ1 penalty on what is active, none on how much.

    .. math:: \lVert x - \hat x(z)\rVert^2 + λ\lVert γ\rVert_1
        + \lVert x - \hat x_{frozen}(γ)\rVert^2

    Args:
        d_model: Width of an activation.
        latents: Number of latents; codes are dense.
        l1: The coefficient λ, in (normalised) activation units.
        normalizer: Units the model works in.

    Raises:
        ConfigError: ``prior.bad_l1`` unless λ is positive; ``prior.bad_dim``.

    Example:
        >>> import torch
        >>> gated_autoencoder(4, 16, l1=0.1).encode(torch.zeros(2, 4)).shape
        torch.Size([2, 16])

    Source:
        Rajamanoharan et al. (2024), *Improving Dictionary Learning with Gated Sparse Autoencoders*,
        2404.16014.
    """
    check_positive("l1", l1)
    decoder = LinearDecoder(latents, d_model)
    model = GatedAutoencoder(decoder, LaplacePrior(latents, scale=1 / l1), noise=HALF)
    guide = AmortizedGuide(GatedPosterior(DictionaryEncoder(decoder)))
    return Autoencoder(model, guide, normalizer)
