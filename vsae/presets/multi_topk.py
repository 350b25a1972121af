"""The Multi-TopK SAE, as one call."""

from torch import nn

from priors.flat import FlatPrior
from vsae.autoencoder import Autoencoder
from vsae.decoders import LinearDecoder
from vsae.encoders import DictionaryEncoder
from vsae.guides import AmortizedGuide
from vsae.models.multi_topk import MultiTopKAutoencoder
from vsae.posteriors.topk import TopKPosterior
from vsae.presets.topk import HALF
from vsae.select import check_k


def multi_topk_autoencoder(
    d_model: int,
    latents: int,
    *,
    k: int,
    width: int | None = None,
    weight: float = 1 / 8,
    prior: nn.Module | None = None,
    noise: float | nn.Module = HALF,
    normalizer: nn.Module | None = None,
) -> Autoencoder:
    r"""The Multi-TopK SAE, :math:`L(k) + L(4k)/8`: a code that may be cut off anywhere.

    Args:
        d_model: Width of an activation.
        latents: Number of latents.
        k: Active latents per row.
        width: Latents per row of the second loss; ``min(4k, latents)`` if ``None``.
        weight: Of the second loss.
        prior: Of the codes, with a sparse form; :class:`priors.FlatPrior`, no penalty, if ``None``.
            All ``width`` codes of a row pay.
        noise: σ in (normalised) activation units; it matters only relative to a prior's penalty.
        normalizer: Units the model works in.

    Raises:
        ConfigError: ``prior.bad_dim``, ``multi_topk.k``, ``multi_topk.weight``; ``select.k`` unless
            ``0 < k <= latents`` and ``width <= latents``.

    Example:
        >>> import torch
        >>> sae = multi_topk_autoencoder(4, 16, k=3)
        >>> sae.model.width, sae.code(torch.ones(2, 4)).z.shape
        (12, torch.Size([2, 3]))

    Source:
        Gao et al. (2024), *Scaling and evaluating sparse autoencoders*, 2406.04093, §5.3.
    """
    check_k(k, latents)
    width = min(4 * k, latents) if width is None else width
    check_k(width, latents)
    decoder = LinearDecoder(latents, d_model)
    prior = FlatPrior(latents) if prior is None else prior
    model = MultiTopKAutoencoder(decoder, prior, k=k, width=width, noise=noise, weight=weight)
    posterior = TopKPosterior(DictionaryEncoder(decoder), k=width)
    return Autoencoder(model, AmortizedGuide(posterior), normalizer)
