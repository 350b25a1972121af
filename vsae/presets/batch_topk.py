"""The BatchTopK SAE, as one call."""

from collections.abc import Callable

from torch import nn

from priors.flat import FlatPrior
from vsae.autoencoder import Autoencoder
from vsae.decoders import LinearDecoder
from vsae.encoders import DictionaryEncoder
from vsae.guides import AmortizedGuide
from vsae.models.support import SupportAutoencoder
from vsae.posteriors.batch_topk import BatchTopKPosterior
from vsae.presets.topk import HALF
from vsae.select import check_k


def batch_topk_autoencoder(
    d_model: int,
    latents: int,
    *,
    k: int,
    width: int | None = None,
    prior: nn.Module | None = None,
    noise: float | nn.Module = HALF,
    normalizer: nn.Module | None = None,
    encoder: Callable[[LinearDecoder], nn.Module] = DictionaryEncoder,
) -> Autoencoder:
    r"""The BatchTopK SAE, :math:`\lVert x - \hat x\rVert^2` with ``k`` active latents on average.

    Args:
        d_model: Width of an activation.
        latents: Number of latents.
        k: Active latents per row, on average over a batch.
        width: Slots per row; ``min(4k, latents)`` if ``None``. ``2k`` is faster, and truncates rows
            that want more.
        prior: Of the codes, with a sparse form; :class:`priors.FlatPrior`, no penalty, if ``None``.
        noise: σ in (normalised) activation units; it matters only relative to a prior's penalty.
        normalizer: Units the model works in.
        encoder: :class:`vsae.DictionaryEncoder`, or :class:`vsae.ScreenedEncoder` where bfloat16 is
            fast.

    Raises:
        ConfigError: ``prior.bad_dim``, ``posterior.width``; ``select.k`` unless ``0 < width <=
            latents``.

    Example:
        >>> import torch
        >>> batch_topk_autoencoder(4, 16, k=3).code(torch.ones(2, 4)).z.shape
        torch.Size([2, 12])

    Source:
        Bussmann et al. (2024), *BatchTopK Sparse Autoencoders*, 2412.06410.
    """
    width = min(4 * k, latents) if width is None else width
    check_k(width, latents)
    decoder = LinearDecoder(latents, d_model)
    prior = FlatPrior(latents) if prior is None else prior
    model = SupportAutoencoder(decoder, prior, width=width, noise=noise)
    posterior = BatchTopKPosterior(encoder(decoder), k=k, width=width)
    return Autoencoder(model, AmortizedGuide(posterior), normalizer)
