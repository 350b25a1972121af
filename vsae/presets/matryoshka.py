"""The Matryoshka SAE, as one call."""

from collections.abc import Sequence

from torch import nn

from priors.flat import FlatPrior
from vsae.autoencoder import Autoencoder
from vsae.decoders import LinearDecoder
from vsae.encoders import DictionaryEncoder
from vsae.guides import AmortizedGuide
from vsae.models.matryoshka import MatryoshkaAutoencoder
from vsae.posteriors.batch_topk import BatchTopKPosterior
from vsae.presets.topk import HALF
from vsae.select import check_k

PUBLISHED = (1, 3, 7, 15, 32)  # prefixes of 65 536 latents: 2048 times these


def matryoshka_autoencoder(
    d_model: int,
    latents: int,
    *,
    k: int,
    prefixes: Sequence[int] | None = None,
    weights: Sequence[float] | None = None,
    width: int | None = None,
    prior: nn.Module | None = None,
    noise: float | nn.Module = HALF,
    normalizer: nn.Module | None = None,
) -> Autoencoder:
    r"""The Matryoshka SAE over BatchTopK codes.

    .. math:: \sum_{m \in \mathcal M} \lVert x - b - W_{:m}^\top z_{:m} \rVert^2

    The published loss has AuxK besides: see :func:`vsae.with_auxk`.

    Args:
        d_model: Width of an activation.
        latents: Number of latents.
        k: Active latents per row, on average over a batch.
        prefixes: Sizes of the nested dictionaries, the last being ``latents``; the published
            1/32, 3/32, 7/32, 15/32 and all of them if ``None``.
        weights: Of the prefixes but the last, relative to it; ones if ``None``, as published.
        width: Slots per row; ``min(4k, latents)`` if ``None``.
        prior: Of the codes, with a sparse form; :class:`priors.FlatPrior`, no penalty, if ``None``.
        noise: σ in (normalised) activation units; it matters only relative to a prior's penalty.
        normalizer: Units the model works in.

    Raises:
        ConfigError: ``matryoshka.prefixes`` (under 32 latents, give your own),
            ``matryoshka.weights``, ``prior.bad_dim``, ``posterior.width``, ``select.k``.

    Example:
        >>> import torch
        >>> sae = matryoshka_autoencoder(4, 64, k=3)
        >>> sae.model.prefixes, sae.encode(torch.ones(2, 4)).shape
        ((2, 6, 14, 30, 64), torch.Size([2, 64]))

    Source:
        Bussmann, Nabeshima, Karvonen & Nanda (2025), *Learning Multi-Level Features with Matryoshka
        Sparse Autoencoders*, 2503.17547.
    """
    width = min(4 * k, latents) if width is None else width
    check_k(width, latents)
    decoder = LinearDecoder(latents, d_model)
    model = MatryoshkaAutoencoder(
        decoder,
        FlatPrior(latents) if prior is None else prior,
        width=width,
        noise=noise,
        prefixes=[latents * part // 32 for part in PUBLISHED] if prefixes is None else prefixes,
        weights=weights,
    )
    posterior = BatchTopKPosterior(DictionaryEncoder(decoder), k=k, width=width)
    return Autoencoder(model, AmortizedGuide(posterior), normalizer)
