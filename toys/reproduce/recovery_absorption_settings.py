"""What the part ``absorption`` of ``recovery`` is made of."""

from dataclasses import dataclass, field

from toys.reproduce.recovery_absorption_arms import ABSORPTION_ARMS
from toys.reproduce.recovery_absorption_cases import ABSORPTION_CASES
from vsae.recipes.recovery import RecoveryRecipe
from vsae.recipes.sparse_coding import SparseCodingRecipe


@dataclass(frozen=True, kw_only=True)
class AbsorptionSettings:
    """Sizes; the defaults are the run that is reported. Chosen on the choosing seed, by hand.

    Args:
        cases: Names of ``ABSORPTION_CASES``.
        arms: The field's.
        rows: Rows to train on.
        test: Held-out rows.
        recipe: Ours, in few and small batches: the toys are tiny.
        coding: Sparse coding, at each number of active latents of a case.
        seen: Rows that the field's arms see.
        batch: Rows per update of these.
        rates: Their learning rates, of which each has the best.
    """

    cases: tuple[str, ...] = tuple(ABSORPTION_CASES)
    arms: tuple[str, ...] = tuple(ABSORPTION_ARMS)
    rows: int = 20_000
    test: int = 4_096
    recipe: RecoveryRecipe = field(
        default_factory=lambda: RecoveryRecipe(
            l1_rows=25_600, slab_rows=25_600, final_rows=3_200, batch_size=64
        )
    )
    coding: SparseCodingRecipe = field(
        default_factory=lambda: SparseCodingRecipe(
            k=1, l1_rows=25_600, relaxed_rows=12_800, batch_size=64
        )
    )
    seen: int = 64_000
    batch: int = 64
    rates: tuple[float, ...] = (1e-2, 3e-2, 1e-1)


def absorption_smoke() -> AbsorptionSettings:
    """A tiny run that only shows that everything works."""
    return AbsorptionSettings(
        cases=("families", "together"),
        arms=("l1", "topk", "matryoshka", "hierarchical"),
        rows=2_048,
        test=512,
        recipe=RecoveryRecipe(
            l1_rows=512, slab_rows=512, final_rows=256, batch_size=128, iterations=3, moves=2
        ),
        coding=SparseCodingRecipe(k=1, l1_rows=512, relaxed_rows=256, batch_size=128, iterations=5),
        seen=1_024,
        rates=(1e-2,),
    )
