"""The matching-pursuit autoencoder as one call."""

from torch import nn

from priors.flat import FlatPrior
from vsae.autoencoder import Autoencoder
from vsae.decoders import LinearDecoder
from vsae.guides import AmortizedGuide
from vsae.models.support import SupportAutoencoder
from vsae.posteriors.matching_pursuit import MatchingPursuitPosterior
from vsae.presets.topk import HALF
from vsae.select import check_k


def matching_pursuit_autoencoder(
    d_model: int,
    latents: int,
    *,
    k: int,
    prior: nn.Module | None = None,
    noise: float | nn.Module = HALF,
    normalizer: nn.Module | None = None,
) -> Autoencoder:
    r"""MP-SAE: :math:`\lVert x - \hat x\rVert^2` of ``k`` steps of matching pursuit.

    With the noise :math:`σ^2 = ½` of the default, the ELBO per row is that loss plus constants. The
    only parameters are the decoder's.

    Args:
        d_model: Width of an activation.
        latents: Number of latents.
        k: Steps, at most so many active latents, per row.
        prior: Of the codes, with a sparse form; :class:`priors.FlatPrior`, no penalty, if ``None``.
        noise: σ in (normalised) activation units; it matters only relative to a penalty.
        normalizer: Units the model works in.

    Raises:
        ConfigError: ``select.k`` unless ``0 < k <= latents``.

    Example:
        >>> import torch
        >>> matching_pursuit_autoencoder(4, 16, k=3).encode(torch.zeros(2, 4)).shape
        torch.Size([2, 16])

    Source:
        Costa et al. (2025), *From Flat to Hierarchical: Extracting Sparse Representations with
        Matching Pursuit*, 2506.03093.
    """
    check_k(k, latents)
    decoder = LinearDecoder(latents, d_model)
    prior = FlatPrior(latents) if prior is None else prior
    model = SupportAutoencoder(decoder, prior, width=k, noise=noise)
    guide = AmortizedGuide(MatchingPursuitPosterior(decoder, k=k))
    return Autoencoder(model, guide, normalizer)
