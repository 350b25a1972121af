"""The JumpReLU SAE, as one call."""

from collections.abc import Callable

from torch import nn

from priors._prior import check_positive
from priors.bernoulli import BernoulliPrior
from priors.flat import FlatPrior
from vsae.autoencoder import Autoencoder
from vsae.decoders import LinearDecoder
from vsae.encoders import DictionaryEncoder
from vsae.guides import AmortizedGuide
from vsae.models.support import SupportAutoencoder
from vsae.posteriors.jumprelu import JumpReLUPosterior
from vsae.presets.topk import HALF
from vsae.select import check_k

SLOTS = 256  # room for a few hundred active latents per row


def jumprelu_autoencoder(
    d_model: int,
    latents: int,
    *,
    l0: float,
    width: int | None = None,
    threshold: float = 0.3,
    bandwidth: float = 0.3,
    prior: nn.Module | None = None,
    normalizer: nn.Module | None = None,
    encoder: Callable[[LinearDecoder], nn.Module] = DictionaryEncoder,
) -> Autoencoder:
    r"""The JumpReLU SAE, :math:`\lVert x - \hat x\rVert^2 + λ\lVert z\rVert_0`.

    The penalty is the KL of the site ``active`` under a Bernoulli prior of rate
    :math:`ρ = 1/(1 + e^λ)`.

    Args:
        d_model: Width of an activation.
        latents: Number of latents.
        l0: The coefficient λ, in squared (normalised) activation units per active latent.
        width: Slots per row, ``min(256, latents)`` if ``None``; several times the L0 aimed at, as
            rows with more lose the least of them. ``latents`` truncates nothing, and is slow.
        threshold: Initial θ, in the units of the codes.
        bandwidth: Of the kernel through which θ learns, likewise. Both defaults are for activations
            of unit variance per neuron (:class:`vsae.AffineNormalizer`) and thousands of steps; the
            source has 1e-3, and many more steps.
        prior: Of the codes, with a sparse form; :class:`priors.FlatPrior`, no penalty, if ``None``.
        normalizer: Units the model works in.
        encoder: :class:`vsae.DictionaryEncoder`, or :class:`vsae.ScreenedEncoder` where bfloat16 is
            fast.

    Raises:
        ConfigError: ``prior.bad_l0`` unless λ is positive; ``posterior.threshold``; ``select.k``
            unless ``0 < width <= latents``.

    Example:
        >>> import torch
        >>> jumprelu_autoencoder(4, 16, l0=0.01, width=16).encode(torch.ones(2, 4)).shape
        torch.Size([2, 16])

    Source:
        Rajamanoharan et al. (2024), *Jumping Ahead*, 2407.14435.
    """
    check_positive("l0", l0)
    width = min(SLOTS, latents) if width is None else width
    check_k(width, latents)
    decoder = LinearDecoder(latents, d_model)
    model = SupportAutoencoder(
        decoder,
        FlatPrior(latents) if prior is None else prior,
        width=width,
        noise=HALF,
        activity=BernoulliPrior.from_price(latents, l0),
    )
    posterior = JumpReLUPosterior(
        encoder(decoder), width=width, threshold=threshold, bandwidth=bandwidth
    )
    return Autoencoder(model, AmortizedGuide(posterior), normalizer)
