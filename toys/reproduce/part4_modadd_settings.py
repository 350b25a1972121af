"""What the networks that add are trained on in ``part4``."""

from dataclasses import dataclass, field

from toys.reproduce.part4_truth_training import Training


@dataclass(frozen=True, kw_only=True)
class ModAddSettings:
    """Sizes; the defaults are the run that is reported. Chosen on the choosing seed, by hand.

    Args:
        networks: Of two and of three blocks.
        latents: ``K``, about 59, the number of numbers.
        rows: Of 3481, those trained on.
        training: Of every arm.
        coupling: Strength over ridge of the rings.
        noise: σ of variational arms, in normalised units.
        inside: The share of an atom's squared norm in a layer from which it lies in a plane.
    """

    networks: tuple[str, ...] = ("two-blocks", "three-blocks")
    latents: int = 60
    rows: int = 2_800
    training: Training = field(
        default_factory=lambda: Training(target=16.0, batch=128, first_steps=500, steps=500)
    )
    coupling: float = 1.0
    noise: float = 0.7
    inside: float = 0.9


def modadd_smoke() -> ModAddSettings:
    """A tiny run that only shows that everything works."""
    training = Training(target=16.0, batch=64, first_steps=3, steps=3)
    return ModAddSettings(networks=("two-blocks",), training=training)
