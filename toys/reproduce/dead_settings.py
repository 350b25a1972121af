"""What a run of ``vsae reproduce dead`` is made of: every number that decides a result."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Sizes and strengths; the defaults are the run that is reported.

    Args:
        seeds: Of the toy, the weights, the order of rows and the draws of resampling.
        latents: ``K`` of the remedies' table, 16 per dimension.
        k: Active latents per row there.
        steps: Updates there.
        batch: Rows per update.
        lr: Learning rate, decayed linearly to 0 over the last fifth; high, so that latents die.
        test: Held-out rows of the toy, on which everything is measured.
        after: Rows without firing after which AuxK takes a latent for dead.
        resample_at: Steps after which the dead are resampled.
        resample_rows: Training rows that decide who is dead then, and of which rows are drawn.
        noise: σ of the V-SAEs, in normalised activation units.
        loc: Mean of their priors, below 0: latents are off unless the row says otherwise.
        collapse_latents: ``K`` of the collapse.
        collapse_steps: Updates there.
        ks: Active latents per row there.
        alphas: Weights of the KL there, at the ``k`` of the remedies.
        alpha: The one for all ``ks``.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    latents: int = 1024
    k: int = 8
    steps: int = 500
    batch: int = 256
    lr: float = 1e-2
    test: int = 40_000
    after: int = 20_000
    resample_at: tuple[int, ...] = (125, 250)
    resample_rows: int = 20_000
    noise: float = 0.3
    loc: float = -1.0
    collapse_latents: int = 512
    collapse_steps: int = 1000
    ks: tuple[int, ...] = (4, 8, 16)
    alphas: tuple[float, ...] = (0.1, 1.0)
    alpha: float = 0.3

    def to_dict(self) -> dict:
        """For ``run.json``."""
        return asdict(self) | {"data": ["a copula toy", "layer 2 of stories260K"]}


def settings(*, smoke: bool, seeds: int | None) -> Settings:
    """The reported run, or a tiny one that only shows that everything works."""
    if not smoke:
        return Settings(seeds=tuple(range(seeds or 3)))
    return Settings(
        seeds=tuple(range(seeds or 1)),
        latents=256,
        steps=16,
        test=2_000,
        after=1_000,
        resample_at=(8,),
        resample_rows=2_000,
        collapse_latents=128,
        collapse_steps=8,
        ks=(4, 8),
        alphas=(1.0,),
    )
