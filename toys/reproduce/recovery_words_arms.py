"""The arms of the words: the field's with their sweeps, and what ours are called."""

from collections.abc import Callable

from toys.reproduce.flat_arms import Arm, Size, l1, variational, with_k
from toys.reproduce.recovery_arms import CHILDREN, SUBSPACE
from vsae.autoencoder import Autoencoder
from vsae.presets import (
    batch_topk_autoencoder,
    hierarchical_autoencoder,
    matryoshka_autoencoder,
    topk_autoencoder,
    with_auxk,
)

WORDS = "words"  # the key of sweeps
DEAD_AFTER = 4_000  # rows, two epochs: flat_arms has ten thousand, five
OURS, L1, SLAB = "ours", "ours-l1", "ours-slab"
CONTROL = "random-words"

_KS = (3.0, 8.0, 20.0)


def with_auxk_k(preset: Callable[..., Autoencoder]) -> Callable[[Size, float], Autoencoder]:
    """A preset whose knob is ``k``, whose dead latents learn from what is left."""

    def build(size: Size, strength: float) -> Autoencoder:
        return with_auxk(with_k(preset)(size, strength), after=DEAD_AFTER)

    return build


def hierarchical(size: Size, strength: float) -> Autoencoder:
    """Two levels: every active root has an active child."""
    return hierarchical_autoencoder(
        size.d_model,
        size.latents // (1 + CHILDREN),
        k=int(strength),
        branching=(CHILDREN,),
        subspaces=(SUBSPACE,),
        normalizer=size.normalizer,
    )


WORD_ARMS: dict[str, Arm] = {
    "l1": Arm(label="ℓ1 SAE", knob="λ", build=l1, strengths={WORDS: (2.0, 2.5, 3.2)}),
    "topk": Arm(
        label="TopK + AuxK",
        knob="k",
        build=with_auxk_k(topk_autoencoder),
        strengths={WORDS: _KS},
    ),
    "batch_topk": Arm(
        label="BatchTopK + AuxK",
        knob="k",
        build=with_auxk_k(batch_topk_autoencoder),
        strengths={WORDS: _KS},
    ),
    "matryoshka": Arm(
        label="Matryoshka + AuxK",
        knob="k",
        build=with_auxk_k(matryoshka_autoencoder),
        strengths={WORDS: _KS},
    ),
    "hierarchical": Arm(
        label="H-SAE", knob="roots", build=hierarchical, strengths={WORDS: (2.0, 5.0, 12.0)}
    ),
    "isotropic": Arm(
        label="V-SAE, isotropic",
        knob="σ",
        build=variational,
        strengths={WORDS: (0.5, 0.7, 0.95)},
    ),
}
"""The field's by name, in the order of tables."""

WORD_LABELS = {
    OURS: "ours, sparse coding",
    L1: "ours, ℓ1 alone",
    f"{SLAB} none": "ours, slab",
    f"{SLAB} learned": "ours, slab + learned couplings",
    f"{SLAB} shuffled": "ours, slab + couplings shuffled",
    f"{SLAB} tree": "ours, slab + WordNet's tree",
    f"{SLAB} tree-shuffled": "ours, slab + tree shuffled",
    CONTROL: "control: random words as atoms",
} | {name: arm.label for name, arm in WORD_ARMS.items()}
"""As tables and figures print them, in their order."""
