"""The Switch SAE as one call."""

from torch import nn

from priors.flat import FlatPrior
from vsae.autoencoder import Autoencoder
from vsae.decoders import LinearDecoder
from vsae.encoders import DictionaryEncoder
from vsae.guides import AmortizedGuide
from vsae.models.switch import SwitchAutoencoder
from vsae.posteriors.switch import SwitchPosterior
from vsae.presets.topk import HALF


def switch_autoencoder(
    d_model: int,
    latents: int,
    *,
    k: int,
    experts: int = 16,
    balance: float | None = None,
    prior: nn.Module | None = None,
    noise: float | nn.Module = HALF,
    normalizer: nn.Module | None = None,
) -> Autoencoder:
    r"""The Switch SAE, :math:`\lVert x - \hat x\rVert^2 + α E \sum_i f_i P_i`.

    With the noise :math:`σ^2 = ½` of the default, in training the ELBO per row is that loss plus
    constants.

    Args:
        d_model: Width of an activation.
        latents: Number of latents, all experts together.
        k: Active latents per row.
        experts: ``E``, which divides ``latents``.
        balance: α, in (normalised) activation units squared; ``d_model / 100``, as in the released
            code, if ``None``.
        prior: Of the codes, with a sparse form; :class:`priors.FlatPrior`, no penalty, if ``None``.
        noise: σ in (normalised) activation units; it matters only relative to a penalty.
        normalizer: Units the model works in.

    Raises:
        ConfigError: ``switch.experts``, ``switch.balance``, ``select.k`` unless
            ``0 < k <= latents / experts``.

    Example:
        >>> import torch
        >>> switch_autoencoder(4, 16, k=3, experts=2).encode(torch.zeros(2, 4)).shape
        torch.Size([2, 16])

    Source:
        Mudide et al. (2024), *Efficient Dictionary Learning with Switch Sparse Autoencoders*,
        2410.08201.
    """
    decoder = LinearDecoder(latents, d_model)
    model = SwitchAutoencoder(
        decoder,
        FlatPrior(latents) if prior is None else prior,
        experts=experts,
        width=k,
        noise=noise,
        balance=d_model / 100 if balance is None else balance,
    )
    posterior = SwitchPosterior(DictionaryEncoder(decoder), experts=experts, k=k)
    return Autoencoder(model, AmortizedGuide(posterior), normalizer)
