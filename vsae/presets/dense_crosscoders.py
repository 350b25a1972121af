"""Crosscoders of dense codes, as one call each: acausal, every layer in and out."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from priors._prior import check_positive
from priors.laplace import LaplacePrior
from vsae.atom_norms import AbstractAtomNorm
from vsae.encoders import LinearEncoder
from vsae.guides import AmortizedGuide
from vsae.layered_autoencoder import LayeredAutoencoder
from vsae.layered_decoder import LayeredDecoder
from vsae.layered_encoder import LayeredEncoder
from vsae.models.crosscoder import Crosscoder
from vsae.models.sae import SparseAutoencoder
from vsae.posteriors import GaussianPosterior, ReLUPosterior
from vsae.presets.topk import HALF


def point_crosscoder(
    layers: Sequence[int],
    prior: nn.Module,
    *,
    norm: AbstractAtomNorm | None = None,
    normalizer: nn.Module | None = None,
) -> LayeredAutoencoder:
    r"""The deterministic crosscoder, :math:`\sum_l \lVert x_l - \hat x_l\rVert^2 - \log p(z)`.

    A ReLU point posterior under any prior, at :math:`σ^2 = ½`: the prior's -log density *is* the
    penalty. Under :class:`priors.GraphLaplacianPrior` it is ½ :math:`z^\top Λ z`.

    Args:
        layers: Width of every layer.
        prior: Any prior; its ``dim`` is the number of latents.
        norm: The size of an atom, which is 1; :class:`vsae.SumOfNorms` if ``None``.
        normalizer: Units the model works in, e.g. :class:`vsae.LayerNormalizer`.

    Raises:
        ConfigError: ``layers.widths``.

    Example:
        >>> from priors import Graph, GraphLaplacianPrior
        >>> pair = point_crosscoder((4, 4), GraphLaplacianPrior(Graph.ring(16)))
        >>> pair.encode(torch.zeros(3, 2, 4)).shape
        torch.Size([3, 16])

    Source:
        *From Organized Shelves to Layered Catalogs* (document B), in its deterministic form.
    """
    decoder = LayeredDecoder(prior().event_shape[0], layers, norm=norm)
    model = SparseAutoencoder(decoder, prior, noise=HALF)
    return crosscoder(model, ReLUPosterior(LayeredEncoder(decoder, layers)), layers, normalizer)


def l1_crosscoder(
    layers: Sequence[int],
    latents: int,
    *,
    l1: float,
    norm: AbstractAtomNorm | None = None,
    normalizer: nn.Module | None = None,
) -> LayeredAutoencoder:
    r"""The crosscoder, :math:`\sum_l \lVert x_l - \hat x_l\rVert^2 + λ \sum_k z_k s_k`.

    With :math:`s_k` the size of atom ``k``, the sum of its norms in all layers unless ``norm`` says
    otherwise; atoms are kept at size 1. :func:`point_crosscoder` under a Laplace prior of scale
    :math:`2σ^2/λ`.

    Args:
        layers: Width of every layer.
        latents: Number of latents.
        l1: The coefficient λ, in (normalised) activation units.
        norm: The size of an atom; :class:`vsae.SumOfNorms` if ``None``.
        normalizer: Units the model works in, e.g. :class:`vsae.LayerNormalizer`.

    Raises:
        ConfigError: ``prior.bad_l1`` unless λ is positive; ``layers.widths``.

    Example:
        >>> l1_crosscoder((4, 4), 16, l1=0.1).encode(torch.zeros(3, 2, 4)).shape
        torch.Size([3, 16])

    Source:
        Lindsey et al. (2024), *Sparse Crosscoders for Cross-Layer Features and Model Diffing*.
    """
    check_positive("l1", l1)
    prior = LaplacePrior(latents, scale=1 / l1)
    return point_crosscoder(layers, prior, norm=norm, normalizer=normalizer)


def variational_crosscoder(
    layers: Sequence[int],
    prior: nn.Module,
    *,
    noise: float | nn.Module,
    link: nn.Module | None = None,
    scale: float = 0.1,
    norm: AbstractAtomNorm | None = None,
    normalizer: nn.Module | None = None,
) -> LayeredAutoencoder:
    r"""The variational crosscoder: a diagonal Gaussian posterior under any prior.

    With :class:`priors.GraphLaplacianPrior` it is the structured-KL crosscoder. With the link
    ``nn.ReLU()`` codes are rectified Gaussians, sparse and non-negative.

    Args:
        layers: Width of every layer.
        prior: Any prior; its ``dim`` is the number of latents.
        noise: σ in (normalised) activation units; "MSE + α·KL" is σ² = α/2.
        link: ``nn.Identity()`` if ``None``, or ``nn.ReLU()``.
        scale: The posterior's standard deviation to begin with, in the units of the codes.
        norm: The size of an atom, which is 1; :class:`vsae.SumOfNorms` if ``None``.
        normalizer: Units the model works in.

    Raises:
        ConfigError: ``prior.bad_scale`` unless ``scale`` is positive; ``noise.scale``.

    Example:
        >>> from priors import Graph, GraphLaplacianPrior
        >>> pair = variational_crosscoder((4, 4), GraphLaplacianPrior(Graph.ring(16)), noise=0.3)
        >>> pair.posterior(torch.zeros(3, 2, 4))["z"].variance.shape
        torch.Size([3, 16])

    Source:
        *From Organized Shelves to Layered Catalogs* (document B); Kingma & Welling (2014).
    """
    check_positive("scale", scale)
    latents = prior().event_shape[0]
    decoder = LayeredDecoder(latents, layers, norm=norm)
    encoder = LinearEncoder(decoder.d_model, 2 * latents)
    with torch.no_grad():
        encoder.W_enc[:, :latents] = LayeredEncoder(decoder, layers).W_enc.mT
        encoder.b_enc[latents:] = scale + math.log(-math.expm1(-scale))  # softplus⁻¹
    model = SparseAutoencoder(decoder, prior, noise=noise, link=link)
    return crosscoder(model, GaussianPosterior(encoder), layers, normalizer)


def crosscoder(
    model: nn.Module, posterior: nn.Module, layers: Sequence[int], normalizer: nn.Module | None
) -> LayeredAutoencoder:
    """The acausal crosscoder of any flat model and any posterior."""
    return LayeredAutoencoder(Crosscoder(model, layers), AmortizedGuide(posterior), normalizer)
