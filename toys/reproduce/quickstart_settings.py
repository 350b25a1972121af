"""What a quickstart run is made of: every number that decides a result, in one place."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Sizes and strengths; the defaults are the run that is reported.

    Args:
        layer: The residual stream after this block.
        stories: Stories read, one in ten of them held out.
        latents: ``K``, four per dimension of the stream.
        first_steps: Updates of the first ℓ1 run, at a learning rate of ``first_lr``.
        first_l1: Its λ.
        steps: Updates of every arm, each started from the first run.
        lr: Their learning rate, decayed linearly to 0 over the last fifth.
        batch: Rows per update.
        l1s: λ of the ℓ1 arm.
        noises: σ of the V-SAEs, as multiples of the first run's root mean square residual.
        neighbours: Of each latent in the graph.
        blocks: Clusters of latents at most.
        strength_over_ridge: λ/γ of the graph prior before both are scaled.
        coactivation_rows: Rows over which codes are correlated.
        seed: Of weights, rows and noise.
        toy_steps: Updates per model in part (i).
        toy_cases: Its cases.
    """

    layer: int = 2
    stories: int = 300
    latents: int = 256
    first_steps: int = 1500
    first_lr: float = 3e-3
    first_l1: float = 2.0
    steps: int = 1000
    lr: float = 1e-3
    batch: int = 256
    l1s: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    noises: tuple[float, ...] = (0.7, 1.0, 1.5)
    neighbours: int = 4
    blocks: int = 32
    strength_over_ridge: float = 1.0
    coactivation_rows: int = 20_000
    seed: int = 0
    toy_steps: int = 1000
    toy_cases: tuple[str, ...] = ("case1", "case4", "case5", "case6")

    def to_dict(self) -> dict:
        """For ``run.json``."""
        return asdict(self)


def settings(*, smoke: bool, seed: int = 0) -> Settings:
    """The reported run, or a tiny one that only shows that everything works."""
    if not smoke:
        return Settings(seed=seed)
    return Settings(
        stories=40,
        latents=64,
        first_steps=60,
        steps=40,
        l1s=(0.5, 1.0, 2.0),
        noises=(0.7, 1.5),
        blocks=8,
        coactivation_rows=2000,
        seed=seed,
        toy_steps=20,
        toy_cases=("case4",),
    )
