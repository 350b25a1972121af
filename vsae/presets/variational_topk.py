"""Variational TopK in three readings: which codes pay the KL, and whether there is noise."""

from torch import nn

from priors._prior import check_positive
from priors.isotropic import IsotropicPrior
from priors.slab import SlabPrior
from vsae.autoencoder import Autoencoder
from vsae.decoders import LinearDecoder
from vsae.encoders import DictionaryEncoder
from vsae.guides import AmortizedGuide
from vsae.links import TopKLink
from vsae.models.sae import SparseAutoencoder
from vsae.models.support import SupportAutoencoder
from vsae.posteriors.fixed_variance import FixedVarianceGaussianPosterior
from vsae.posteriors.gaussian_topk import GaussianTopKPosterior
from vsae.posteriors.point import PointPosterior
from vsae.select import check_k


def variational_topk_autoencoder(
    d_model: int,
    latents: int,
    *,
    k: int,
    alpha: float,
    scale: float = 1.0,
    normalizer: nn.Module | None = None,
) -> Autoencoder:
    r"""TopK of a noisy code, KL on *all* latents: the vSAE as its paper words it.

    .. math:: \mathbb E_{ε}\lVert x - \hat x(\mathrm{top}_k(μ + sε))\rVert^2
        + α \tfrac12 \lVert μ\rVert^2 + \text{const}

    Args:
        d_model: Width of an activation.
        latents: Number of latents; codes are dense.
        k: Active latents per row.
        alpha: Weight of the KL beside the squared error, in (normalised) activation units squared:
            the noise is :math:`σ^2 = α/2`, and the loss α times the negative ELBO.
        scale: Standard deviation :math:`s` of the posterior, in the units of the codes.
        normalizer: Units the model works in.

    Raises:
        ConfigError: ``select.k``, ``prior.bad_alpha``, ``prior.bad_scale``.

    Example:
        >>> import torch
        >>> variational_topk_autoencoder(4, 16, k=3, alpha=0.1).encode(torch.ones(2, 4)).shape
        torch.Size([2, 16])

    Source:
        Baker & Li (2025), *Analysis of Variational Sparse Autoencoders*, 2509.22994.
    """
    model = _linked(d_model, latents, k, alpha)
    encoder = DictionaryEncoder(model.decoder)
    posterior = FixedVarianceGaussianPosterior(encoder, scale=scale)
    return Autoencoder(model, AmortizedGuide(posterior), normalizer)


def shrunk_topk_autoencoder(
    d_model: int,
    latents: int,
    *,
    k: int,
    alpha: float,
    normalizer: nn.Module | None = None,
) -> Autoencoder:
    r"""TopK with ℓ2 shrinkage of *all* latents and no noise: the vSAE as its results were made.

    .. math:: \lVert x - \hat x(\mathrm{top}_k(μ))\rVert^2 + α \tfrac12 \lVert μ\rVert^2

    The released configurations fix the variance, which in the released code switches the noise
    off. Latents that are not selected are shrunk too, and die of it: ``docs/models``.

    Args:
        d_model: Width of an activation.
        latents: Number of latents; codes are dense.
        k: Active latents per row.
        alpha: The weight of the penalty, in (normalised) activation units squared; σ² = α/2.
        normalizer: Units the model works in.

    Raises:
        ConfigError: ``select.k``, ``prior.bad_alpha``.

    Example:
        >>> import torch
        >>> sae = shrunk_topk_autoencoder(4, 16, k=3, alpha=0.1)
        >>> sae.encode(torch.ones(2, 4)).count_nonzero(-1)
        tensor([3, 3])

    Source:
        Baker & Li (2025), *Analysis of Variational Sparse Autoencoders*, 2509.22994, released code
        (``var_flag=0``).
    """
    model = _linked(d_model, latents, k, alpha)
    posterior = PointPosterior(DictionaryEncoder(model.decoder))
    return Autoencoder(model, AmortizedGuide(posterior), normalizer)


def masked_variational_topk_autoencoder(
    d_model: int,
    latents: int,
    *,
    k: int,
    alpha: float,
    scale: float = 1.0,
    normalizer: nn.Module | None = None,
) -> Autoencoder:
    r"""TopK with Gaussian amplitudes, KL on the *selected* latents only ("masked KL").

    .. math:: \mathbb E_{ε}\lVert x - \hat x(μ_S + sε)\rVert^2
        + α \sum_{j \in S} \mathrm{KL}\big(\mathcal N(μ_j, s^2) \,\|\, \mathcal N(0, 1)\big)

    Args:
        d_model: Width of an activation.
        latents: Number of latents; codes are in slots, so there may be many.
        k: Active latents per row.
        alpha: Weight of the KL beside the squared error, in (normalised) activation units squared;
            σ² = α/2.
        scale: Standard deviation :math:`s` of the amplitudes.
        normalizer: Units the model works in.

    Raises:
        ConfigError: ``select.k``, ``prior.bad_alpha``, ``prior.bad_scale``.

    Example:
        >>> import torch
        >>> sae = masked_variational_topk_autoencoder(4, 16, k=3, alpha=0.1)
        >>> sae.code(torch.ones(2, 4)).l0()
        tensor([3, 3])

    Source:
        Baker & Li (2025), *Analysis of Variational Sparse Autoencoders*, 2509.22994, later code.
    """
    check_k(k, latents)
    model = SupportAutoencoder(
        LinearDecoder(latents, d_model),
        SlabPrior(IsotropicPrior(latents)),
        width=k,
        noise=_noise(alpha),
    )
    posterior = GaussianTopKPosterior(DictionaryEncoder(model.decoder), k=k, scale=scale)
    return Autoencoder(model, AmortizedGuide(posterior), normalizer)


def _linked(d_model: int, latents: int, k: int, alpha: float) -> SparseAutoencoder:
    check_k(k, latents)
    decoder, prior = LinearDecoder(latents, d_model), IsotropicPrior(latents)
    return SparseAutoencoder(decoder, prior, noise=_noise(alpha), link=TopKLink(k))


def _noise(alpha: float) -> float:
    """σ of "MSE + α·KL"."""
    return (check_positive("alpha", alpha) / 2) ** 0.5
