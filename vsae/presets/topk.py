"""The TopK SAE, as one call."""

from collections.abc import Callable

from torch import nn

from priors.flat import FlatPrior
from vsae.autoencoder import Autoencoder
from vsae.decoders import LinearDecoder
from vsae.encoders import DictionaryEncoder
from vsae.guides import AmortizedGuide
from vsae.models.support import SupportAutoencoder
from vsae.posteriors.topk import TopKPosterior
from vsae.select import check_k

HALF = 0.5**0.5  # σ² = ½: the ELBO per row is the squared error, plus constants


def topk_autoencoder(
    d_model: int,
    latents: int,
    *,
    k: int,
    prior: nn.Module | None = None,
    noise: float | nn.Module = HALF,
    normalizer: nn.Module | None = None,
    encoder: Callable[[LinearDecoder], nn.Module] = DictionaryEncoder,
) -> Autoencoder:
    r"""The TopK SAE, :math:`\lVert x - \hat x\rVert^2` with ``k`` active latents per row.

    Dead latents are another matter: see :func:`vsae.with_auxk`.

    Args:
        d_model: Width of an activation.
        latents: Number of latents.
        k: Active latents per row.
        prior: Of the codes, with a sparse form; :class:`priors.FlatPrior`, no penalty, if ``None``.
        noise: σ in (normalised) activation units; it matters only relative to a prior's penalty.
        normalizer: Units the model works in.
        encoder: :class:`vsae.DictionaryEncoder`, or :class:`vsae.ScreenedEncoder` where bfloat16 is
            fast.

    Raises:
        ConfigError: ``prior.bad_dim``; ``select.k`` unless ``0 < k <= latents``.

    Example:
        >>> import torch
        >>> topk_autoencoder(4, 16, k=3).code(torch.ones(2, 4)).z.shape
        torch.Size([2, 3])

    Source:
        Gao et al. (2024), *Scaling and evaluating sparse autoencoders*, 2406.04093.
    """
    check_k(k, latents)
    decoder = LinearDecoder(latents, d_model)
    prior = FlatPrior(latents) if prior is None else prior
    model = SupportAutoencoder(decoder, prior, width=k, noise=noise)
    posterior = TopKPosterior(encoder(decoder), k=k)
    return Autoencoder(model, AmortizedGuide(posterior), normalizer)
