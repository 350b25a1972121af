"""The arms: ours, flat ones of equal width, and ours with one thing changed at a time."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from priors.softmax_weights import SoftmaxWeightsPrior
from toys.reproduce.tiered_settings import Settings
from vsae.autoencoder import Autoencoder
from vsae.curriculum import Curriculum
from vsae.errors import BottleneckWarning
from vsae.normalizers import IdentityNormalizer
from vsae.presets.dense import l1_autoencoder
from vsae.presets.tiered import tiered_autoencoder
from vsae.presets.topk import topk_autoencoder
from vsae.tiered_encoder import TieredEncoder

Build = Callable[[Settings, int, nn.Module, float], Autoencoder]

FALLING, EQUAL, RISING = (1.0, 0.5, 0.25), (1.0, 1.0, 1.0), (0.25, 0.5, 1.0)
PUBLISHED = (0.1, 0.3, 0.6)
NARROW = (21, 43, 64)  # d/3, 2d/3, d of d = 64, as published
ABOVE = 4.0  # a learned scale begins at so many times its floor


@dataclass(frozen=True)
class Arm:
    """A row of the tables.

    Args:
        label: As tables and figures print it.
        build: ``(settings, d_model, normalizer, strength) -> Autoencoder``, untrained.
        strengths: Values of its knob.
        knob: The symbol of it.
        sizes: Latents of its tiers if they are not the settings'; flat codes are dealt into those.
        tiered: Whether its codes are in tiers.
    """

    label: str
    build: Build
    strengths: tuple[float, ...]
    knob: str = "λ"
    sizes: tuple[int, ...] | None = None
    tiered: bool = True

    @property
    def middle(self) -> float:
        """The strength at which the learning rate is chosen and other arms are set beside it."""
        return self.strengths[len(self.strengths) // 2]


def curriculum(settings: Settings) -> Curriculum:
    """Tiers that join one after another, the first at once."""
    later = len(settings.sizes) - 1
    return Curriculum(settings.starts, (0,) + (settings.ramp,) * later)


def weighted(weights: Sequence[float]) -> Build:
    """Ours with fixed scales: λ times these weights."""

    def build(settings: Settings, d_model: int, normalizer: nn.Module, l1: float) -> Autoencoder:
        return tiered_autoencoder(
            d_model,
            settings.sizes,
            l1=[l1 * weight for weight in weights],
            curriculum=curriculum(settings),
            clip=settings.clip,
            normalizer=normalizer,
        )

    return build


def learned(settings: Settings, d_model: int, normalizer: nn.Module, noise: float) -> Autoencoder:
    """Ours with learned scales above a floor; its knob is the noise that they are weighed by."""
    return tiered_autoencoder(
        d_model,
        settings.sizes,
        l1=2 * noise**2 / (ABOVE * settings.floor),
        learnable=True,
        floor=settings.floor,
        noise=noise,
        curriculum=curriculum(settings),
        clip=settings.clip,
        normalizer=normalizer,
    )


def softmax(settings: Settings, d_model: int, normalizer: nn.Module, l1: float) -> Autoencoder:
    """Ours with the published weights, learned, of the same sum as :data:`FALLING` ones."""
    pair = weighted(EQUAL)(settings, d_model, normalizer, l1)
    pair.model.prior = SoftmaxWeightsPrior(settings.sizes, l1=l1 * sum(FALLING), weights=PUBLISHED)
    return pair


def at_once(settings: Settings, d_model: int, normalizer: nn.Module, l1: float) -> Autoencoder:
    """Ours without a curriculum."""
    weights = [l1 * weight for weight in FALLING]
    return tiered_autoencoder(
        d_model, settings.sizes, l1=weights, clip=settings.clip, normalizer=normalizer
    )


def unclipped(settings: Settings, d_model: int, normalizer: nn.Module, l1: float) -> Autoencoder:
    """Ours without a limit on any tier's gradient."""
    weights, ramps = [l1 * weight for weight in FALLING], curriculum(settings)
    return tiered_autoencoder(
        d_model, settings.sizes, l1=weights, curriculum=ramps, normalizer=normalizer
    )


def layer_norm(settings: Settings, d_model: int, normalizer: nn.Module, l1: float) -> Autoencoder:
    """Ours with the published LayerNorm between tiers: centred, learned weights, ε = 10⁻⁵."""
    pair = weighted(FALLING)(settings, d_model, normalizer, l1)
    norms = [nn.LayerNorm(size) for size in settings.sizes[:-1]]
    encoder = TieredEncoder(d_model, settings.sizes, clip=settings.clip, norms=norms)
    encoder.align(pair.model.decoder)
    pair.guide.posterior.encoder = encoder
    return pair


def raw(settings: Settings, d_model: int, normalizer: nn.Module, l1: float) -> Autoencoder:
    """Ours without a normaliser: λ in raw units, which is times their length in normalised ones."""
    units, strength = IdentityNormalizer(), l1 * float(normalizer.scale)
    return weighted(FALLING)(settings, d_model, units, strength)


def narrow(settings: Settings, d_model: int, normalizer: nn.Module, l1: float) -> Autoencoder:
    """Ours in the published sizes: a bottleneck, and half as many latents."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BottleneckWarning)  # it is the point
        return tiered_autoencoder(
            d_model,
            NARROW,
            l1=[l1 * weight for weight in FALLING],
            curriculum=curriculum(settings),
            clip=settings.clip,
            normalizer=normalizer,
        )


def flat(settings: Settings, d_model: int, normalizer: nn.Module, l1: float) -> Autoencoder:
    """The ℓ1 SAE."""
    return l1_autoencoder(d_model, settings.latents, l1=l1, normalizer=normalizer)


def topk(settings: Settings, d_model: int, normalizer: nn.Module, k: float) -> Autoencoder:
    """The TopK SAE."""
    return topk_autoencoder(d_model, settings.latents, k=int(k), normalizer=normalizer)


TIERED, LEARNED, BASES = "tiered", "learned", ("l1", "topk")
_STRENGTHS = (0.6, 1.0, 1.7)
COMPARED: dict[str, Arm] = {
    TIERED: Arm("tiered, weights 1 : ½ : ¼", weighted(FALLING), _STRENGTHS),
    LEARNED: Arm("tiered, learned scales", learned, (0.2, 0.27, 0.36), "σ"),
    "l1": Arm("ℓ1", flat, (0.4, 0.8, 1.6), tiered=False),
    "topk": Arm("TopK", topk, (8.0, 12.0, 20.0), "k", tiered=False),
}
"""Arms at matched L0, by name."""

_ONE = (_STRENGTHS[1],)
CHANGED: dict[str, Arm] = {
    "equal": Arm("weights 1 : 1 : 1", weighted(EQUAL), _ONE),
    "rising": Arm("weights ¼ : ½ : 1", weighted(RISING), _ONE),
    "softmax": Arm("softmax weights", softmax, _ONE),
    "at_once": Arm("no curriculum", at_once, _ONE),
    "unclipped": Arm("no clipping", unclipped, _ONE),
    "layer_norm": Arm("LayerNorm, ε = 10⁻⁵", layer_norm, _ONE),
    "raw": Arm("no normaliser", raw, _ONE),
    "narrow": Arm("published sizes", narrow, _ONE, sizes=NARROW),
}
"""Ours at one strength with one thing changed, by name."""

ARMS = COMPARED | CHANGED
