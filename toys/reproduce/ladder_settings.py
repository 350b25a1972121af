"""What a run of ``vsae reproduce ladder`` is made of: every number that decides a result."""

from dataclasses import asdict, dataclass

WORLDS = ("clusters", "layers", "rings")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What every model is made of; the defaults are the run that is reported.

    Args:
        steps: Updates per model.
        batch: Rows per update.
        lr: Learning rate, decayed to 0 over the last fifth.
        rows: Rows to train on.
        held: Rows held out, half to choose matches and half to score them.
        levels: Latents of the fine and of the coarse level; flat SAEs have as many together.
        target: Active latents per row, of all levels together, that β is controlled to.
        l1: λ of the fine and of the coarse level, times β.
        gamma: Strength of the consistency.
        eta: Strength η of a graph on the fine level, times β.
        neighbours: Of each fine latent in the graph.
        noise: σ of the variational ladder, in normalised units of √d per row.
        draws: Of the null models.
    """

    steps: int = 2_000
    batch: int = 256
    lr: float = 3e-3
    rows: int = 20_000
    held: int = 6_000
    levels: tuple[int, int] = (64, 16)
    target: float = 6.0
    l1: tuple[float, float] = (1.0, 0.5)
    gamma: float = 0.3
    eta: float = 0.3
    neighbours: int = 3
    noise: float = 0.3
    draws: int = 100


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A run: which seeds, which worlds, and of what size."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    worlds: tuple[str, ...] = WORLDS
    sizes: Sizes = Sizes()

    def to_dict(self) -> dict:
        """For ``run.json``."""
        found = asdict(self)
        return found | {"steps": self.sizes.steps, "data": [f"the toy {w}" for w in self.worlds]}


def settings(*, smoke: bool, seeds: int | None) -> Settings:
    """The reported run, or a tiny one that only shows that everything works."""
    if not smoke:
        return Settings(seeds=tuple(range(seeds or 5)))
    small = Sizes(steps=8, batch=64, rows=300, held=300, draws=20)
    return Settings(seeds=tuple(range(seeds or 1)), sizes=small)
