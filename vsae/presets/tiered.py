"""The autoencoder in tiers as one call."""

from collections.abc import Sequence

from torch import nn

from priors._prior import check_positive
from priors.tiered_laplace import TieredLaplacePrior
from priors.tiers import check_count, check_sizes
from vsae.autoencoder import Autoencoder
from vsae.curriculum import Curriculum
from vsae.decoders import LinearDecoder
from vsae.errors import ConfigError
from vsae.guides import AmortizedGuide
from vsae.models.tiered import TieredAutoencoder
from vsae.posteriors.tiered import TieredPosterior
from vsae.presets.topk import HALF
from vsae.tiered_encoder import TieredEncoder


def tiered_autoencoder(
    d_model: int,
    sizes: Sequence[int],
    *,
    l1: float | Sequence[float],
    learnable: bool = False,
    floor: float = 1e-3,
    noise: float = HALF,
    curriculum: Curriculum | None = None,
    clip: Sequence[float | None] | None = None,
    normalizer: nn.Module | None = None,
) -> Autoencoder:
    r"""Tiers of latents, each encoded from the one before, that explain an activation together.

    .. math:: \lVert x - \hat x\rVert^2 + \sum_i λ_i \lVert z_i\rVert_1, \qquad
        b_i = 2σ^2 / λ_i

    With the noise :math:`σ^2 = ½` of the default and fixed scales the ELBO per row is that loss
    plus constants, the published one with :math:`λ_i = λ w_i`. Learned scales begin there.

    Args:
        d_model: Width of an activation.
        sizes: Latents of each tier; the first should be at least ``d_model``.
        l1: λ, in (normalised) activation units: one number, or one per tier.
        learnable: Whether the tiers' scales :math:`b_i` are learned; they then need a ``noise``
            near that of the data, see :class:`priors.TieredLaplacePrior`.
        floor: The least of a learned scale, in the units of the codes.
        noise: σ in (normalised) activation units.
        curriculum: When each tier joins; all from the beginning if ``None``.
        clip: Greatest norm of the gradient of each tier of the encoder; any if ``None``.
        normalizer: Units the model works in; raw activations of a large norm train badly.

    Raises:
        ConfigError: ``tiers.sizes``, ``tiers.count``, ``tiers.clip``, ``prior.bad_l1``,
            ``prior.bad_floor``, ``noise.scale``.

    Example:
        >>> import torch
        >>> tiered_autoencoder(4, (8, 6, 4), l1=0.1).encode(torch.zeros(2, 4)).shape
        torch.Size([2, 18])

    Source:
        *Compositional Hierarchies* (tiered HSAE, under review).
    """
    sizes = check_sizes(sizes)
    given = l1 if isinstance(l1, Sequence) else [l1] * len(sizes)
    strengths = [check_positive("l1", one) for one in check_count("l1", given, sizes)]
    ramps = Curriculum.none(len(sizes)) if curriculum is None else curriculum
    check_count("curriculum", ramps.starts, sizes)
    decoder, encoder = LinearDecoder(sum(sizes), d_model), TieredEncoder(d_model, sizes, clip=clip)
    encoder.align(decoder)
    if not isinstance(noise, float | int) or not 0 < noise < float("inf"):
        raise ConfigError(
            f"tiers need a fixed positive noise: got {noise!r}. The scales of the prior follow it.",
            code="noise.scale",
        )
    scales = [2 * noise**2 / strength for strength in strengths]
    prior = TieredLaplacePrior(sizes, scales=scales, learnable=learnable, floor=floor, ramps=ramps)
    model = TieredAutoencoder(decoder, prior, sizes=sizes, noise=noise)
    return Autoencoder(model, AmortizedGuide(TieredPosterior(encoder, ramps)), normalizer)
