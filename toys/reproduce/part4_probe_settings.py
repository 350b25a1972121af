"""What the causal probe of ``part4`` is made of."""

from dataclasses import dataclass, field

from toys.reproduce.part4_truth_training import Training


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """Sizes; the defaults are the run that is reported.

    Args:
        arms: Crosscoders that are asked.
        stories: Read, one in ten of them held out: trained on the others, asked about these.
        latents: ``K``.
        training: Of every arm.
        asked: Latents switched off, and as many others of equal frequency.
        rarest: Least share of the rows on which a latent that is asked fires.
        commonest: Greatest.
    """

    arms: tuple[str, ...] = ("l1", "topk")
    stories: int = 200
    latents: int = 512
    training: Training = field(
        default_factory=lambda: Training(
            target=16.0, batch=512, first_steps=0, steps=1_000, lr=3e-3
        )
    )
    asked: int = 20
    rarest: float = 0.003
    commonest: float = 0.2


def probe_smoke() -> ProbeSettings:
    """A tiny run that only shows that everything works."""
    training = Training(target=8.0, batch=64, first_steps=0, steps=6, lr=3e-3)
    return ProbeSettings(
        stories=20, latents=32, training=training, asked=2, rarest=0.0, commonest=1.0
    )
