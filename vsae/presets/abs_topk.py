"""The AbsTopK SAE, as one call."""

from torch import nn

from priors.flat import FlatPrior
from vsae.autoencoder import Autoencoder
from vsae.decoders import LinearDecoder
from vsae.encoders import DictionaryEncoder
from vsae.guides import AmortizedGuide
from vsae.models.support import SupportAutoencoder
from vsae.posteriors.abs_topk import AbsTopKPosterior
from vsae.presets.topk import HALF
from vsae.select import check_k


def abs_topk_autoencoder(
    d_model: int,
    latents: int,
    *,
    k: int,
    prior: nn.Module | None = None,
    noise: float | nn.Module = HALF,
    normalizer: nn.Module | None = None,
) -> Autoencoder:
    r"""The AbsTopK SAE, :math:`\lVert x - \hat x\rVert^2` with ``k`` latents of either sign.

    Args:
        d_model: Width of an activation.
        latents: Number of latents.
        k: Active latents per row.
        prior: Of the codes, with a sparse form; :class:`priors.FlatPrior`, no penalty, if ``None``.
        noise: σ in (normalised) activation units; it matters only relative to a prior's penalty.
        normalizer: Units the model works in.

    Raises:
        ConfigError: ``prior.bad_dim``; ``select.k`` unless ``0 < k <= latents``.

    Example:
        >>> import torch
        >>> abs_topk_autoencoder(4, 16, k=3).code(torch.ones(2, 4)).l0()
        tensor([3, 3])

    Source:
        Zhu, Khalili & Zhu (2025), *AbsTopK: Rethinking Sparse Autoencoders for Bidirectional
        Features*, 2510.00404.
    """
    check_k(k, latents)
    decoder = LinearDecoder(latents, d_model)
    prior = FlatPrior(latents) if prior is None else prior
    model = SupportAutoencoder(decoder, prior, width=k, noise=noise)
    posterior = AbsTopKPosterior(DictionaryEncoder(decoder), k=k)
    return Autoencoder(model, AmortizedGuide(posterior), normalizer)
