"""AuxK, added to any autoencoder whose encoder has a row per latent."""

from torch import nn

from priors._prior import check_positive
from vsae.autoencoder import Autoencoder
from vsae.dead_latents import DeadLatents
from vsae.encoders import AbstractDictionaryEncoder
from vsae.errors import ConfigError
from vsae.guides import AmortizedGuide
from vsae.hierarchical_encoder import HierarchicalEncoder
from vsae.layered_autoencoder import LayeredAutoencoder
from vsae.likelihood import FixedNoise
from vsae.models.crosscoder import Crosscoder
from vsae.models.residual import ResidualAutoencoder
from vsae.models.sae import SparseAutoencoder
from vsae.posteriors.auxk import AuxKPosterior


def with_auxk(
    autoencoder: Autoencoder, *, after: int, k: int | None = None, coefficient: float = 1 / 32
) -> Autoencoder:
    r"""The same autoencoder, whose dead latents learn to explain what the code leaves.

    .. math:: L + α \lVert (x - \hat x) - \sum_{i\ \text{dead}} z'_i w_i \rVert^2

    It shares all parameters with ``autoencoder``. In evaluation mode nothing is added. What revives
    a latent is a positive score on some row: one whose bias is so low that it has none gets no
    gradient here either (:func:`vsae.resample` is for those).

    Args:
        autoencoder: With a :class:`vsae.DictionaryEncoder` and fixed noise.
        after: Rows without firing after which a latent is dead; 10 million in the source.
        k: Dead latents used per row; half of ``d`` if ``None``, as in the source.
        coefficient: α.

    Raises:
        ConfigError: ``auxk.pair`` for another encoder, for learned noise, of which α would be a
            multiple, or for a link, behind which a latent is never zero; ``dead.after``,
            ``select.k``, ``prior.bad_coefficient``.

    Example:
        >>> from vsae import topk_autoencoder
        >>> sae = with_auxk(topk_autoencoder(4, 16, k=3), after=1000)
        >>> sae.model.dead().tolist()  # none as yet
        []

    Source:
        Gao et al. (2024), *Scaling and evaluating sparse autoencoders*, §2.4, A.2.
    """
    model, posterior = autoencoder.model, autoencoder.guide.posterior
    encoder = getattr(posterior, "encoder", None)  # top-down guides have none
    _check(model.model if isinstance(model, Crosscoder) else model, encoder)
    dead = DeadLatents(posterior.latents, after=after).to(autoencoder.W_dec.device)
    noise = model.noise().item() / check_positive("coefficient", coefficient) ** 0.5
    k = max(1, model.decoder.d_model // 2) if k is None else k
    guide = AmortizedGuide(AuxKPosterior(posterior, dead, k=k))
    if isinstance(model, Crosscoder):
        inner = ResidualAutoencoder(model.model, dead, residual_noise=noise)
        crossed = Crosscoder(inner, model.layers, targets=model.targets, skip=model.skip)
        return LayeredAutoencoder(crossed, guide, autoencoder.normalizer)
    residual = ResidualAutoencoder(model, dead, residual_noise=noise)
    return Autoencoder(residual, guide, autoencoder.normalizer)


def _check(model: nn.Module, encoder: nn.Module | None) -> None:
    link = model.link if isinstance(model, SparseAutoencoder) else nn.Identity()
    fixed = isinstance(model.noise, FixedNoise)
    linear = isinstance(encoder, AbstractDictionaryEncoder | HierarchicalEncoder)
    if isinstance(model, ResidualAutoencoder):
        raise ConfigError("AuxK once more: got a pair that has it.", code="auxk.pair")
    if not (fixed and linear and isinstance(link, nn.Identity)):
        raise ConfigError(
            "AuxK needs fixed noise, a DictionaryEncoder and codes that the guide makes sparse: "
            f"got {type(model.noise).__name__}, {type(encoder).__name__} and the link "
            f"{type(link).__name__}.",
            code="auxk.pair",
        )
