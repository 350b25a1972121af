"""Crosscoders of codes in slots, as one call each: acausal, every layer in and out."""

from collections.abc import Sequence

from torch import nn

from priors._prior import check_positive
from priors.bernoulli import BernoulliPrior
from priors.flat import FlatPrior
from vsae.atom_norms import AbstractAtomNorm
from vsae.decoupled_decoder import DecoupledDecoder
from vsae.decoupled_encoder import DecoupledEncoder
from vsae.layered_autoencoder import LayeredAutoencoder
from vsae.layered_decoder import LayeredDecoder
from vsae.layered_encoder import LayeredEncoder
from vsae.layers import check_layers
from vsae.models.support import SupportAutoencoder
from vsae.posteriors import BatchTopKPosterior, JumpReLUPosterior, TopKPosterior
from vsae.presets.dense_crosscoders import crosscoder
from vsae.presets.jumprelu import SLOTS
from vsae.presets.topk import HALF
from vsae.select import check_k


def topk_crosscoder(
    layers: Sequence[int],
    latents: int,
    *,
    k: int,
    prior: nn.Module | None = None,
    noise: float | nn.Module = HALF,
    norm: AbstractAtomNorm | None = None,
    normalizer: nn.Module | None = None,
) -> LayeredAutoencoder:
    r"""The TopK crosscoder: ``k`` active latents per row, by code times size of atom.

    Args:
        layers: Width of every layer.
        latents: Number of latents.
        k: Active latents per row.
        prior: Of the codes, with a sparse form; :class:`priors.FlatPrior`, no penalty, if ``None``.
        noise: σ in (normalised) activation units; it matters only relative to a prior's penalty.
        norm: The size of an atom, which is 1; :class:`vsae.SumOfNorms` if ``None``.
        normalizer: Units the model works in.

    Raises:
        ConfigError: ``prior.bad_dim``, ``layers.widths``; ``select.k`` unless ``0 < k <= latents``.

    Example:
        >>> import torch
        >>> topk_crosscoder((4, 4), 16, k=3).code(torch.zeros(2, 2, 4)).z.shape
        torch.Size([2, 3])
    """
    check_k(k, latents)
    decoder = LayeredDecoder(latents, layers, norm=norm)
    prior = FlatPrior(latents) if prior is None else prior
    model = SupportAutoencoder(decoder, prior, width=k, noise=noise)
    return crosscoder(
        model, TopKPosterior(LayeredEncoder(decoder, layers), k=k), layers, normalizer
    )


def batch_topk_crosscoder(
    layers: Sequence[int],
    latents: int,
    *,
    k: int,
    width: int | None = None,
    prior: nn.Module | None = None,
    noise: float | nn.Module = HALF,
    norm: AbstractAtomNorm | None = None,
    normalizer: nn.Module | None = None,
) -> LayeredAutoencoder:
    r"""The BatchTopK crosscoder: ``k`` active latents per row on average over a batch.

    Args:
        layers: Width of every layer.
        latents: Number of latents.
        k: Active latents per row, on average over a batch.
        width: Slots per row; ``min(4k, latents)`` if ``None``.
        prior: Of the codes, with a sparse form; :class:`priors.FlatPrior`, no penalty, if ``None``.
        noise: σ in (normalised) activation units; it matters only relative to a prior's penalty.
        norm: The size of an atom, which is 1; :class:`vsae.SumOfNorms` if ``None``.
        normalizer: Units the model works in.

    Raises:
        ConfigError: ``prior.bad_dim``, ``posterior.width``, ``layers.widths``; ``select.k``.

    Example:
        >>> import torch
        >>> batch_topk_crosscoder((4, 4), 16, k=3).code(torch.zeros(2, 2, 4)).z.shape
        torch.Size([2, 12])

    Source:
        Minder et al. (2025), *Robustly Identifying Concepts Introduced During Chat Fine-Tuning
        Using Crosscoders*, 2504.02922.
    """
    width = min(4 * k, latents) if width is None else width
    check_k(width, latents)
    decoder = LayeredDecoder(latents, layers, norm=norm)
    prior = FlatPrior(latents) if prior is None else prior
    model = SupportAutoencoder(decoder, prior, width=width, noise=noise)
    posterior = BatchTopKPosterior(LayeredEncoder(decoder, layers), k=k, width=width)
    return crosscoder(model, posterior, layers, normalizer)


def decoupled_crosscoder(
    layers: Sequence[int],
    latents: int,
    *,
    k: int,
    width: int | None = None,
    prior: nn.Module | None = None,
    noise: float | nn.Module = HALF,
    normalizer: nn.Module | None = None,
) -> LayeredAutoencoder:
    r"""BatchTopK over latents *and* layers: a latent may be active in some layers alone.

    A code has ``latents · layers`` coordinates, latent ``k`` in layer ``l`` at ``k · layers + l``;
    ``pair.encode(x).unflatten(-1, (-1, len(layers)))`` sets them apart.

    Args:
        layers: Width of every layer, all equal.
        latents: Number of latents.
        k: Active pairs of latent and layer per row, on average over a batch.
        width: Slots per row; ``min(4k, latents · layers)`` if ``None``.
        prior: Of all coordinates, with a sparse form; :class:`priors.FlatPrior` if ``None``.
        noise: σ in (normalised) activation units; it matters only relative to a prior's penalty.
        normalizer: Units the model works in.

    Raises:
        ConfigError: ``layers.widths``, ``layers.unequal``, ``posterior.width``; ``select.k``.

    Example:
        >>> import torch
        >>> decoupled_crosscoder((4, 4), 16, k=3).encode(torch.ones(2, 2, 4)).shape
        torch.Size([2, 32])

    Source:
        As :class:`vsae.DecoupledDecoder`.
    """
    coordinates = latents * len(check_layers(layers))
    width = min(4 * k, coordinates) if width is None else width
    check_k(width, coordinates)
    decoder = DecoupledDecoder(latents, layers)
    prior = FlatPrior(coordinates) if prior is None else prior
    model = SupportAutoencoder(decoder, prior, width=width, noise=noise)
    posterior = BatchTopKPosterior(DecoupledEncoder(decoder), k=k, width=width)
    return crosscoder(model, posterior, layers, normalizer)


def jumprelu_crosscoder(
    layers: Sequence[int],
    latents: int,
    *,
    l0: float,
    width: int | None = None,
    threshold: float = 0.3,
    bandwidth: float = 0.3,
    prior: nn.Module | None = None,
    norm: AbstractAtomNorm | None = None,
    normalizer: nn.Module | None = None,
) -> LayeredAutoencoder:
    r"""The JumpReLU crosscoder, :math:`\sum_l \lVert x_l - \hat x_l\rVert^2 + λ\lVert z\rVert_0`.

    Args:
        layers: Width of every layer.
        latents: Number of latents.
        l0: The coefficient λ, in squared (normalised) activation units per active latent.
        width: Slots per row, ``min(256, latents)`` if ``None``.
        threshold: Initial θ, in the units of the codes.
        bandwidth: Of the kernel through which θ learns, likewise.
        prior: Of the codes, with a sparse form; :class:`priors.FlatPrior`, no penalty, if ``None``.
        norm: The size of an atom, which is 1; :class:`vsae.SumOfNorms` if ``None``.
        normalizer: Units the model works in.

    Raises:
        ConfigError: ``prior.bad_l0`` unless λ is positive; ``posterior.threshold``,
            ``layers.widths``; ``select.k`` unless ``0 < width <= latents``.

    Example:
        >>> import torch
        >>> jumprelu_crosscoder((4, 4), 16, l0=0.01).encode(torch.ones(2, 2, 4)).shape
        torch.Size([2, 16])

    Source:
        Rajamanoharan et al. (2024), *Jumping Ahead*, 2407.14435.
    """
    check_positive("l0", l0)
    width = min(SLOTS, latents) if width is None else width
    check_k(width, latents)
    decoder = LayeredDecoder(latents, layers, norm=norm)
    prior = FlatPrior(latents) if prior is None else prior
    activity = BernoulliPrior.from_price(latents, l0)
    model = SupportAutoencoder(decoder, prior, width=width, noise=HALF, activity=activity)
    encoder = LayeredEncoder(decoder, layers)
    posterior = JumpReLUPosterior(encoder, width=width, threshold=threshold, bandwidth=bandwidth)
    return crosscoder(model, posterior, layers, normalizer)
