"""What a run of ``vsae reproduce tiered`` is made of: every number that decides a result."""

from dataclasses import asdict, dataclass

VALIDATION = 1_000  # the seed on which learning rates are chosen; no result is of it


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Sizes and strengths; the defaults are the run that is reported.

    Args:
        seeds: Of weights and the order of rows.
        steps: Updates per model.
        batch: Rows per update.
        rates: Learning rates, of which each arm gets the better; decayed to 0 over the last fifth.
        search: Updates of the models that are trained to choose it.
        stories: Stories read, one in ten of them held out.
        layer: The residual stream after this block.
        norm: The mean norm that rows are rescaled to.
        sizes: Latents of our tiers; flat arms have as many in all.
        clip: Greatest norm of the gradient of each tier of the encoder.
        starts: Updates at which tiers begin to join.
        ramp: Updates until they are there in full.
        floor: The least of a learned scale, in the units of normalised codes.
        common: Values of L0 at which arms are compared.
        watched: Updates between two looks at a model in training.
        document_steps: Updates of the published configuration.
        document_batch: Rows per update there.
        document_warmup: Of those, of the learning rate.
        ends: Whether only an arm's least and greatest strength are run.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 5_000
    batch: int = 256
    rates: tuple[float, ...] = (3e-3, 1e-2)
    search: int = 2_000
    stories: int = 400
    layer: int = 2
    norm: float = 300.0
    sizes: tuple[int, ...] = (128, 64, 64)
    clip: tuple[float, ...] = (1.0, 2.0, 5.0)
    starts: tuple[int, ...] = (0, 500, 1_000)
    ramp: int = 500
    floor: float = 0.15
    common: tuple[float, ...] = (9.0, 12.0, 16.0)
    watched: int = 100
    document_steps: int = 3_000
    document_batch: int = 2_048
    document_warmup: int = 2_000
    ends: bool = False

    @property
    def latents(self) -> int:
        """``K``, all tiers together."""
        return sum(self.sizes)

    def to_dict(self) -> dict:
        """For ``run.json``."""
        return asdict(self) | {"data": [f"layer {self.layer} of stories260K"]}


def settings(*, smoke: bool, seeds: int | None) -> Settings:
    """The reported run, or a tiny one that only shows that everything works."""
    if not smoke:
        return Settings(seeds=tuple(range(seeds or 3)))
    return Settings(
        seeds=tuple(range(seeds or 1)),
        steps=30,
        batch=64,
        rates=(1e-2,),
        search=10,
        stories=10,
        starts=(0, 8, 16),
        ramp=4,
        watched=10,
        document_steps=20,
        document_batch=128,
        document_warmup=10,
        ends=True,
    )
