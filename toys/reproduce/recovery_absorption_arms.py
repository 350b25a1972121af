"""The arms of the toys with known wrong solutions: the field's, and what ours are called."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from toys.reproduce.flat_arms import DEAD_AFTER, Size, jumprelu, l1, with_k
from toys.reproduce.recovery_absorption_cases import (
    ABSORBED,
    BIASED,
    HEDGED,
    RANDOM,
    Absorbing,
    Hedging,
    Known,
)
from toys.reproduce.recovery_arms import ARMS
from toys.reproduce.recovery_ceiling import TRUTH
from toys.reproduce.recovery_synthetic import L1, SLAB, STILL
from vsae.autoencoder import Autoencoder
from vsae.presets import (
    batch_topk_autoencoder,
    hierarchical_autoencoder,
    matryoshka_autoencoder,
    topk_autoencoder,
    with_auxk,
)

TREE, SHUFFLED, CODING = "ours-tree", "ours-tree-shuffled", "ours-coding"
LEVELS = 2  # of all trees here

Strengths = Callable[[tuple[int, ...]], tuple[float, ...]]
"""Values of a knob, given the numbers of active latents of a case."""


@dataclass(frozen=True, kw_only=True)
class ToyArm:
    """An architecture with one knob, told how many trees there are where it can use that.

    Args:
        knob: What its strength is.
        build: ``(known, strength)``: an untrained pair.
        strengths: Of a case; all are reported unless one is chosen.
        chosen: Whether one of them is chosen, for all cases.
        trees: Whether it is for trees alone.
    """

    knob: str
    build: Callable[[Known, float], Autoencoder]
    strengths: Strengths
    chosen: bool = False
    trees: bool = False

    def of(self, case: Absorbing | Hedging) -> tuple[float, ...]:
        """Its strengths on a case; none where it has no use."""
        return () if self.trees and not case.roots else self.strengths(case.ks)


def flat(build: Callable[[Size, float], Autoencoder]) -> Callable[[Known, float], Autoencoder]:
    """An architecture that needs to know sizes alone."""

    def built(known: Known, strength: float) -> Autoencoder:
        return build(size_of(known), strength)

    return built


def size_of(known: Known) -> Size:
    """The sizes of a problem."""
    return Size(d_model=known.d_model, latents=known.case.latents, normalizer=known.normalizer)


def with_auxk_k(preset: Callable[..., Autoencoder]) -> Callable[[Known, float], Autoencoder]:
    """A preset whose knob is ``k``, whose dead latents learn from what is left."""

    def built(known: Known, strength: float) -> Autoencoder:
        return with_auxk(with_k(preset)(size_of(known), strength), after=DEAD_AFTER)

    return built


def matryoshka(known: Known, strength: float) -> Autoencoder:
    """Two prefixes: as many latents as there are roots, which is best for it, and all."""
    size = size_of(known)
    pair = matryoshka_autoencoder(
        size.d_model,
        size.latents,
        k=int(strength),
        prefixes=(known.case.roots, size.latents),
        normalizer=size.normalizer,
    )
    return with_auxk(pair, after=DEAD_AFTER)


def hierarchical(known: Known, strength: float) -> Autoencoder:
    """Of the true shape: as many roots and children as there are, each family in its own space."""
    size, roots = size_of(known), known.case.roots
    children = size.latents // roots - 1
    return hierarchical_autoencoder(
        size.d_model,
        roots,
        k=int(strength),
        branching=(children,),
        subspaces=(children,),
        normalizer=size.normalizer,
    )


def as_given(ks: tuple[int, ...]) -> tuple[float, ...]:
    """The numbers of active latents themselves."""
    return tuple(map(float, ks))


def of_roots(ks: tuple[int, ...]) -> tuple[float, ...]:
    """As many roots as make so many active latents, at least one."""
    return tuple(dict.fromkeys(float(max(1, k // LEVELS)) for k in ks))


def always(*strengths: float) -> Strengths:
    """The same whatever the case."""
    return lambda ks: strengths


ABSORPTION_ARMS: Mapping[str, ToyArm] = {
    "l1": ToyArm(knob="λ", build=flat(l1), strengths=always(0.3, 1.0, 3.0), chosen=True),
    "topk": ToyArm(knob="k", build=with_auxk_k(topk_autoencoder), strengths=as_given),
    "batch_topk": ToyArm(knob="k", build=with_auxk_k(batch_topk_autoencoder), strengths=as_given),
    "jumprelu": ToyArm(
        knob="λ", build=flat(jumprelu), strengths=always(0.3, 1.0, 3.0), chosen=True
    ),
    "matryoshka": ToyArm(knob="k", build=matryoshka, strengths=as_given, trees=True),
    "hierarchical": ToyArm(knob="roots", build=hierarchical, strengths=of_roots, trees=True),
}
"""The field's by name, in the order of tables."""

SOLUTIONS: Mapping[str, str] = {
    TRUTH: "exact: the truth",
    ABSORBED: "exact: absorbed",
    HEDGED: "exact: hedged, no bias",
    BIASED: "exact: hedged, with a bias",
    RANDOM: "control: random atoms",
}
"""The known solutions as tables and figures print them."""

OURS: Mapping[str, str] = {
    SLAB: "ours, spike and slab",
    STILL: "ours, no moves",
    TREE: "ours, no moves, true tree given",
    SHUFFLED: "ours, no moves, shuffled tree given",
    L1: "ours, ℓ1 phase alone",
    CODING: "ours, sparse coding",
}
"""Ours as tables and figures print them, in their order."""


def label(arm: str, strength: float | None) -> str:
    """A model as people read it, with its strength unless that is chosen."""
    if arm not in ABSORPTION_ARMS:
        name = {**SOLUTIONS, **OURS}[arm]
        return name if strength is None else f"{name}, k = {strength:g}"
    own = ABSORPTION_ARMS[arm]
    return ARMS[arm].label if own.chosen else f"{ARMS[arm].label}, {own.knob} = {strength:g}"
