"""What a run of ``vsae reproduce recovery-16k`` is made of: every number that decides a result."""

import math
from dataclasses import asdict, dataclass, field, replace

from toys.synth import SYNTH_16K, SynthCase
from toys.synth_directions import OrthogonalisedDirections
from toys.synth_parts import ZipfRates
from toys.synth_trees import SynthTrees
from vsae.recipes.recovery import RecoveryRecipe

SLAB_ROWS = 600_000  # of Data A; no moves, one size: the recipe as when its cost was measured
TIMES = 8  # the rows and the batch of Data A, whose rarest features fire ten times as often


def _recipe() -> RecoveryRecipe:
    small = RecoveryRecipe()
    return replace(
        small,
        l1_rows=TIMES * small.l1_rows,
        slab_rows=TIMES * SLAB_ROWS,
        final_rows=TIMES * small.final_rows,
        batch_size=TIMES * small.batch_size,
        moves=0,
        spread=0.15,
    )


@dataclass(frozen=True, kw_only=True)
class Settings16k:
    """Sizes; the defaults are the whole protocol.

    Args:
        seeds: Of toy, rows and weights.
        case: The law of the toy; there are as many latents as features.
        recipe: Ours, on the whole.
        batch: Rows per update of the field's arm; the published one.
        lr: Its learning rate, in a straight line to 0 over the last fifth; not tuned.
        seen: Rows that it sees, as many times those of ours as on Data A.
        published: Rows that the published runs see: for the cost.
        sample: Rows of which units, first atoms and first amplitudes are taken.
        first: Of these, those of which first amplitudes are; a batch of ours at least.
        test: Held-out rows.
        share: Of the protocol that is run.
    """

    seeds: tuple[int, ...] = (1,)
    case: SynthCase = SYNTH_16K
    recipe: RecoveryRecipe = field(default_factory=_recipe)
    batch: int = 1024
    lr: float = 1e-3
    seen: int = 16_000_000
    published: int = 200_000_000
    sample: int = 32_768
    first: int = 20_000
    test: int = 32_768
    share: float = 1.0

    def part(self, rows: int, batch: int) -> int:
        """The share of so many rows, one update at least."""
        return batch * max(1, round(self.share * rows / batch))

    @property
    def part_recipe(self) -> RecoveryRecipe:
        """The share of ours that is run."""
        whole, batch = self.recipe, self.recipe.batch_size
        return replace(
            whole,
            l1_rows=self.part(whole.l1_rows, batch),
            slab_rows=self.part(whole.slab_rows, batch),
            final_rows=self.part(whole.final_rows, batch),
        )

    @property
    def part_seen(self) -> int:
        """The share of the field's rows that is run."""
        return self.part(self.seen, self.batch)

    @property
    def spread_steps(self) -> tuple[int, int]:
        """Steps of the descent that spreads the directions: run, and of the whole."""
        directions = self.case.directions
        assert isinstance(directions, OrthogonalisedDirections)
        return math.ceil(self.share * directions.steps), directions.steps

    @property
    def part_case(self) -> SynthCase:
        """The toy that is run: directions that many steps along."""
        directions = self.case.directions
        assert isinstance(directions, OrthogonalisedDirections)
        return replace(self.case, directions=replace(directions, steps=self.spread_steps[0]))

    def to_dict(self) -> dict:
        """For ``run.json``."""
        return asdict(self)


def settings(*, smoke: bool, seeds: int | None, share: float) -> Settings16k:
    """The whole, its first part, or a tiny one that only shows that everything works."""
    chosen = _smoke() if smoke else Settings16k()
    if share < 1 and not smoke:  # fewer rows where little is learned, and little can be seen
        chosen = replace(chosen, sample=16_384, first=2_048, test=1_024)
    if seeds:
        chosen = replace(chosen, seeds=tuple(range(1, 1 + seeds)))
    return replace(chosen, share=share)


def _smoke() -> Settings16k:
    case = replace(
        SYNTH_16K,
        features=128,
        d_model=32,
        rates=ZipfRates(exponent=0.5, low=0.01, high=0.3),
        trees=SynthTrees(roots=4, branching=2, depth=2),
        directions=OrthogonalisedDirections(steps=5, rate=3e-4),
    )
    recipe = RecoveryRecipe(
        l1_rows=2_048, slab_rows=2_048, final_rows=512, batch_size=256, iterations=4
    )
    return Settings16k(
        case=case,
        recipe=recipe,
        batch=128,
        seen=4_096,
        published=8_192,
        sample=1_024,
        first=512,
        test=512,
    )
