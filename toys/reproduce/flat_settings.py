"""What a run of ``flat`` is made of: every number that decides a result but those of the arms."""

from dataclasses import asdict, dataclass, replace

VALIDATION = 1_000  # the seed on which learning rates are chosen; no result is of it


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Sizes; the defaults are the run that is reported.

    Args:
        seeds: Of the toy, its rows, weights and the order of rows.
        steps: Updates per model.
        batch: Rows per update.
        rates: Learning rates, of which each arm gets the better; decayed to 0 over the last fifth.
        features: Of the toy, ``F``; half in groups of four at 0.8, half in pairs at -0.8.
        toy_width: Dimension of its activations.
        toy_latents: ``K`` on the toy.
        firing: Rate of a feature.
        noise: Of the toy, per neuron; feature magnitudes are around 1.
        toy_rows: Training rows of the toy.
        toy_test: Held-out rows of the toy.
        layer: The residual stream after this block.
        stories: Stories read, one in ten of them held out.
        stories_latents: ``K`` on the stories.
        ends: Whether only an arm's least and greatest strength are run.
        toy_common: Values of L0 at which arms are compared on the toy.
        stories_common: The same on the stories.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 400
    batch: int = 256
    rates: tuple[float, ...] = (1e-2, 3e-2)
    features: int = 64
    toy_width: int = 32
    toy_latents: int = 128
    firing: float = 0.05
    noise: float = 0.05
    toy_rows: int = 65_536
    toy_test: int = 8_192
    layer: int = 2
    stories: int = 200
    stories_latents: int = 256
    ends: bool = False
    toy_common: tuple[float, ...] = (2.5, 3.2, 4.0, 6.0)
    stories_common: tuple[float, ...] = (6.0, 8.0, 12.0, 16.0)

    def to_dict(self) -> dict:
        """For ``run.json``."""
        return asdict(self)

    def common(self, data: str) -> tuple[float, ...]:
        """Values of L0 at which arms are compared."""
        return {"toy": self.toy_common, "stories": self.stories_common}[data]


def settings(
    *, smoke: bool, seeds: int | None, steps: int | None = None, toy_latents: int | None = None
) -> Settings:
    """The reported run, or a tiny one that only shows that everything works."""
    chosen = Settings()
    if smoke:
        chosen = Settings(
            seeds=(0, 1),
            steps=10,
            batch=64,
            toy_latents=64,
            toy_rows=2_048,
            toy_test=512,
            stories=10,
            stories_latents=128,
            ends=True,
        )
    given = {
        "seeds": tuple(range(seeds)) if seeds else None,
        "steps": steps,
        "toy_latents": toy_latents,
    }
    return replace(chosen, **{name: value for name, value in given.items() if value is not None})
