"""What the words of ``recovery`` are made of."""

from dataclasses import dataclass, field

from toys.reproduce.recovery_words_arms import WORD_ARMS
from vsae.recipes.recovery import RecoveryRecipe
from vsae.recipes.sparse_coding import SparseCodingRecipe

GATES = ("none", "learned", "shuffled", "tree", "tree-shuffled")


@dataclass(frozen=True, kw_only=True)
class WordSettings:
    """Sizes; the defaults are the run that is reported. Chosen on the choosing seed, by hand.

    Args:
        latents: ``K``.
        least: Trusted words at or below a concept for it to count.
        arms: The field's.
        batch: Rows per update of these.
        seen: Rows that they see.
        rates: Their learning rates: each has the one of the greatest explained variance.
        coding: Sparse coding, at each of ``ks``.
        ks: Active latents per row of it.
        slab: Spike and slab after ℓ1.
        gates: Structures between its gates.
        levels: Values of L0 that its firings are trimmed to, the surest kept.
        common: Values of L0 at which arms are compared.
    """

    latents: int = 256
    least: int = 16
    arms: tuple[str, ...] = tuple(WORD_ARMS)
    batch: int = 256
    seen: int = 50_000
    rates: tuple[float, ...] = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
    coding: SparseCodingRecipe = field(
        default_factory=lambda: SparseCodingRecipe(k=8, l1_rows=20_000, relaxed_rows=10_000)
    )
    ks: tuple[int, ...] = (3, 8, 20)
    slab: RecoveryRecipe = field(
        default_factory=lambda: RecoveryRecipe(
            l1=(3.0, 0.8),
            l1_rows=20_000,
            slab_rows=10_000,
            moves=0,
            final_rows=0,
            noise=(0.6, 0.3),
            shape=1.0,
            spread=0.15,
        )
    )
    gates: tuple[str, ...] = GATES
    levels: tuple[float, ...] = (3.0, 7.0)
    common: tuple[float, ...] = (4.0, 8.0, 16.0)


def word_smoke() -> WordSettings:
    """A tiny run that only shows that everything works."""
    return WordSettings(
        latents=64,
        arms=("l1", "topk", "hierarchical"),
        seen=512,
        rates=(0.02,),
        coding=SparseCodingRecipe(k=8, l1_rows=512, relaxed_rows=256, iterations=5),
        ks=(3, 12),
        slab=RecoveryRecipe(
            l1=(3.0, 0.8),
            l1_rows=512,
            slab_rows=512,
            final_rows=0,
            noise=(0.6, 0.3),
            iterations=3,
            moves=0,
            spread=0.15,
        ),
        gates=("none", "tree", "tree-shuffled"),
        levels=(3.0,),
    )
