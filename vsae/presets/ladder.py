"""Ladders as one call each: deterministic, and variational."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from priors._prior import check_positive
from priors.isotropic import IsotropicPrior
from priors.laplace import LaplacePrior
from priors.product import ProductPrior
from priors.tiers import check_count, check_sizes
from vsae.additive_decoder import AdditiveDecoder
from vsae.autoencoder import Autoencoder
from vsae.chain_decoder import ChainDecoder
from vsae.consistency import AbstractConsistency, StoppedConsistency
from vsae.errors import ConfigError
from vsae.guides import AmortizedGuide
from vsae.ladder_encoder import LadderEncoder
from vsae.lateral_decoder import LateralDecoder, random_levels
from vsae.likelihood import LearnedNoise
from vsae.models.gaussian_ladder import GaussianLadderAutoencoder
from vsae.models.ladder import LadderAutoencoder
from vsae.posteriors.ladder import GaussianLadderPosterior, LadderPosterior
from vsae.precision_weighted import PrecisionWeightedGuide
from vsae.presets.topk import HALF


def ladder_autoencoder(
    d_model: int,
    sizes: Sequence[int],
    *,
    l1: float | Sequence[float],
    decoder: type[LateralDecoder] | type[AdditiveDecoder] = LateralDecoder,
    consistency: type[AbstractConsistency] | None = StoppedConsistency,
    gamma: float | Sequence[float] = 1.0,
    structures: Sequence[nn.Module | None] | None = None,
    normalizer: nn.Module | None = None,
) -> Autoencoder:
    r"""The ladder SAE: levels of ReLU codes, each computed from, and explaining, the one below.

    .. math:: \lVert x - \hat x\rVert^2 + \sum_\ell γ_\ell \lVert z_{\ell-1} - W^{(\ell)\top}
        z_\ell - b^{(\ell)}\rVert^2 + \sum_\ell λ_\ell \lVert z_\ell\rVert_1 +
        \sum_\ell \Big(η_\ell\, z_\ell^\top L_\ell z_\ell +
        \frac{ρ_\ell}2 \lVert z_\ell\rVert^2\Big)

    In training mode the ELBO per row is that loss plus constants (:math:`σ^2 = ½`); one level is
    :func:`vsae.l1_autoencoder`.

    Args:
        d_model: Width of an activation.
        sizes: Latents of each level, the finest first.
        l1: λ, in (normalised) activation units: one per level, or that of the finest, halved from
            level to level.
        decoder: How levels make an activation: the class :class:`vsae.LateralDecoder` or
            :class:`vsae.AdditiveDecoder`.
        consistency: The class :class:`vsae.Consistency` or :class:`vsae.StoppedConsistency`;
            ``None`` for levels that are not tied.
        gamma: γ: one for every level but the finest, whose is 0, or one per level; 0 for no term.
        structures: A further belief for each level, or ``None``, multiplied with the Laplace
            prior: a :class:`priors.GraphLaplacianPrior` of strength :math:`2η_\ell` and ridge
            :math:`ρ_\ell`, best a small one.
        normalizer: Units the model works in.

    Raises:
        ConfigError: ``tiers.sizes``, ``tiers.count``, ``prior.bad_l1``, ``ladder.gamma``,
            ``ladder.decoder`` for anything but a class of decoder, ``product.factors``,
            ``product.learned``.

    Example:
        >>> ladder_autoencoder(4, (16, 6), l1=0.1).encode(torch.zeros(2, 4)).shape
        torch.Size([2, 22])

    Source:
        *From Organized Shelves to Layered Catalogs* (structured-prior crosscoders and ladder SAEs).
    """
    sizes = check_sizes(sizes)
    if not hasattr(decoder, "from_levels"):
        raise ConfigError(
            f"levels make an activation by a class of decoder: got {decoder!r}, expected "
            "LateralDecoder or AdditiveDecoder itself.",
            code="ladder.decoder",
        )
    given = l1 if isinstance(l1, Sequence) else [l1 / 2**i for i in range(len(sizes))]
    strengths = [check_positive("l1", one) for one in check_count("l1", given, sizes)]
    beliefs = [LaplacePrior(n, scale=1 / one) for n, one in zip(sizes, strengths, strict=True)]
    if structures is not None:
        further = zip(beliefs, check_count("structures", structures, sizes), strict=True)
        beliefs = [one if two is None else ProductPrior(two, one) for one, two in further]
    levels = random_levels(d_model, sizes)
    encoder = LadderEncoder(d_model, sizes)
    encoder.align(levels)
    tie, scales = None, _scales(gamma, sizes)
    if consistency is not None and any(scales):
        tie = consistency(levels, scales)
    model = LadderAutoencoder(decoder.from_levels(levels), beliefs, noise=HALF, consistency=tie)
    return Autoencoder(model, AmortizedGuide(LadderPosterior(encoder)), normalizer)


def variational_ladder_autoencoder(
    d_model: int,
    sizes: Sequence[int],
    *,
    noise: float | nn.Module,
    prior: nn.Module | None = None,
    loc: float = -1.0,
    spread: float = 0.5,
    learnable: bool = False,
    link: nn.Module | None = None,
    scale: float = 0.1,
    normalizer: nn.Module | None = None,
) -> Autoencoder:
    r"""The variational ladder: a Gaussian chain, inferred top-down by precision-weighted merging.

    Codes are rectified Gaussians (link ``nn.ReLU()``). Biases ``loc`` and spreads below the
    coarsest level say how often latents fire without a reason from above: learned, they drift to
    where about half of all latents fire a little, so that by default they are fixed. Warm β up
    (:class:`vsae.LinearWarmup`): without it levels are switched off before they are any use.

    Args:
        d_model: Width of an activation.
        sizes: Latents of each level, the finest first.
        noise: σ in (normalised) activation units.
        prior: Of the coarsest level; isotropic, of variance 1 around ``loc``, if ``None``.
        loc: Where pre-activations are believed to be: below zero they are mostly silent.
        spread: Standard deviation of each level given the one above.
        learnable: Whether these biases and spreads are learned.
        link: From sites to codes; ``nn.ReLU()`` if ``None``.
        scale: The evidence's standard deviation to begin with, in the units of the codes.
        normalizer: Units the model works in.

    Raises:
        ConfigError: ``tiers.sizes``, ``prior.bad_scale``, ``noise.scale``, ``ladder.latents``.

    Example:
        >>> pair = variational_ladder_autoencoder(4, (8, 3), noise=0.3)
        >>> pair.posterior(torch.zeros(2, 4))["z_1"].variance.shape
        torch.Size([2, 8])

    Source:
        Sønderby et al. (2016), *Ladder Variational Autoencoders*.
    """
    sizes, levels = check_sizes(sizes), random_levels(d_model, sizes)
    check_positive("scale", scale)
    encoder = LadderEncoder(d_model, sizes, numbers=2)
    encoder.align(levels)
    with torch.no_grad():
        for layer, size in zip(encoder.layers, sizes, strict=True):
            layer.b_enc[size:] = scale + math.log(-math.expm1(-scale))  # softplus⁻¹
        for level in levels[1:]:
            level.b_dec.fill_(loc)
            level.b_dec.requires_grad_(learnable)
    model = GaussianLadderAutoencoder(
        ChainDecoder(levels),
        IsotropicPrior(sizes[-1], loc=loc) if prior is None else prior,
        spreads=[LearnedNoise(spread) if learnable else spread for _ in sizes[:-1]],
        noise=noise,
        link=nn.ReLU() if link is None else link,
    )
    guide = PrecisionWeightedGuide(model, GaussianLadderPosterior(encoder))
    return Autoencoder(model, guide, normalizer)


def _scales(gamma: float | Sequence[float], sizes: tuple[int, ...]) -> list[float | None]:
    """``s`` of each level, at σ² = ½; ``None`` where γ is 0."""
    given = gamma if isinstance(gamma, Sequence) else [0.0, *[gamma] * (len(sizes) - 1)]
    strengths = check_count("gamma", given, sizes)
    if not all(0 <= one < math.inf for one in strengths):
        raise ConfigError(
            f"consistency has finite strengths of at least 0: got gamma={gamma}.",
            code="ladder.gamma",
        )
    return [None if one == 0 else HALF / one**0.5 for one in strengths]
