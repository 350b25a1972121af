"""What the toys of ``part4`` are made of."""

from dataclasses import dataclass, field

from toys.copula import CopulaCase, SupportCorrelation
from toys.correlation import blocks
from toys.layered import LayeredCase
from toys.magnitudes import PositiveNormal
from toys.reproduce.part4_truth_training import Training
from toys.spans import EveryLayer, RandomSpans, TwoModels
from toys.turning import Fresh, Rotating

TWO_MODELS = "two-models"
CHOOSING = 100  # the seed on which sizes, rates and strengths were chosen; not one of the reported

_FLAT = CopulaCase(
    dependence=SupportCorrelation(structure=blocks((4,) * 8, 0.4)),
    rate=1 / 16,
    magnitude=PositiveNormal(loc=1.0, scale=0.25),
    d_model=24,
)

CASES: dict[str, LayeredCase] = {
    "persistent": LayeredCase(flat=_FLAT, spans=EveryLayer(), turning=Rotating(degrees=0.0)),
    "turning": LayeredCase(flat=_FLAT, spans=RandomSpans(), turning=Rotating(degrees=15.0)),
    "fresh": LayeredCase(flat=_FLAT, spans=RandomSpans(), turning=Fresh()),
    TWO_MODELS: LayeredCase(
        flat=_FLAT, layers=2, spans=TwoModels(first=0.25, second=0.25), turning=Rotating()
    ),
}
"""The cases of ``toys.layered`` with features that fire together, in eight groups of four."""


@dataclass(frozen=True, kw_only=True)
class LayeredSettings:
    """Sizes; the defaults are the run that is reported. Chosen on the choosing seed, by hand.

    Args:
        cases: Of ``CASES``.
        latents: ``K``; there are 32 features.
        rows: For training.
        held: For measuring.
        training: Of every arm; two features fire on a row on average.
        ratio: Of ℓ1 + graph, what a latent of typical size pays the graph for firing alone, over
            half of what it pays ℓ1.
        coupling: Strength over ridge of a graph alone.
        noise: σ of variational arms, in normalised units; the true one is a little less.
    """

    cases: tuple[str, ...] = ("persistent", "turning", TWO_MODELS)
    latents: int = 48
    rows: int = 20_000
    held: int = 4_000
    training: Training = field(
        default_factory=lambda: Training(target=2.0, batch=256, first_steps=750, steps=750)
    )
    ratio: float = 0.25
    coupling: float = 2.0
    noise: float = 0.8


def layered_smoke() -> LayeredSettings:
    """A tiny run that only shows that everything works."""
    training = Training(target=2.0, batch=64, first_steps=6, steps=6)
    return LayeredSettings(cases=("turning", TWO_MODELS), rows=400, held=200, training=training)
