"""What is trained: an architecture with its sizes, as a value that a worker process can be sent."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from priors.tree import Tree
from toys.reproduce.flat_arms import Size
from vsae.autoencoder import Autoencoder
from vsae.presets import batch_topk_autoencoder, topk_autoencoder
from vsae.presets.hierarchical import hierarchical_autoencoder
from vsae.presets.matryoshka import PUBLISHED, matryoshka_autoencoder


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """How to build an untrained autoencoder; *subclasses say of what kind*.

    Args:
        k: Selected latents per row: of a tree, its roots.
    """

    k: int

    @property
    @abstractmethod
    def label(self) -> str:
        """As tables and figures print it, without sizes."""

    @property
    @abstractmethod
    def tree(self) -> Tree:
        """The latents; of a flat dictionary, a tree of roots alone."""

    @property
    def rated_as(self) -> str:
        """The label of the arm whose learning rate it gets: its own, if it is no variant."""
        return self.label

    @property
    def latents(self) -> int:
        """Of all levels."""
        return self.tree.latents

    @abstractmethod
    def build(self, size: Size) -> Autoencoder:
        """The untrained pair; of ``size`` only the width and the units are looked at."""

    def describe(self) -> dict[str, str | int]:
        """Columns of the long table of models."""
        branching = "×".join(map(str, self.tree.branching)) or "–"
        named: dict[str, str | int] = {"arm": self.label, "k": self.k}
        return named | {"m": self.tree.roots, "a": branching, "latents": self.latents}


@dataclass(frozen=True, kw_only=True)
class Flat(Recipe):
    """A flat dictionary.

    Args:
        arm: A name in ``FLATS``.
        width: Latents.
    """

    arm: str
    width: int

    @property
    def label(self) -> str:
        return FLATS[self.arm].label

    @property
    def tree(self) -> Tree:
        return Tree(self.width)

    def build(self, size: Size) -> Autoencoder:
        k = min(self.k, self.width)
        return FLATS[self.arm].preset(size.d_model, self.width, k=k, normalizer=size.normalizer)


@dataclass(frozen=True)
class FlatArm:
    """A flat architecture, by its preset."""

    label: str
    preset: Callable[..., Autoencoder]


def matryoshka(d_model: int, latents: int, *, k: int, normalizer: nn.Module) -> Autoencoder:
    """Published prefixes, also of dictionaries too small for them."""
    prefixes = sorted({max(1, round(latents * part / 32)) for part in PUBLISHED})
    return matryoshka_autoencoder(d_model, latents, k=k, prefixes=prefixes, normalizer=normalizer)


FLATS = {
    "topk": FlatArm("TopK", topk_autoencoder),
    "batch_topk": FlatArm("BatchTopK", batch_topk_autoencoder),
    "matryoshka": FlatArm("Matryoshka", matryoshka),
}
"""By name, in the order of tables."""


@dataclass(frozen=True, kw_only=True)
class Hierarchical(Recipe):
    """An H-SAE with the library's defaults: ReLU on every level, orthogonality as a mean square.

    Args:
        roots: ``m``.
        branching: Children of every latent of a level, ``a``, one number per level below the first.
        subspaces: ``s``, as many.
    """

    roots: int
    branching: tuple[int, ...]
    subspaces: tuple[int, ...]

    @property
    def label(self) -> str:
        return "H-SAE"

    @property
    def tree(self) -> Tree:
        return Tree(self.roots, self.branching)

    def describe(self) -> dict[str, str | int]:
        return super().describe() | {"s": "×".join(map(str, self.subspaces)) or "–"}

    def build(self, size: Size) -> Autoencoder:
        d_model = size.d_model
        return hierarchical_autoencoder(
            d_model,
            self.roots,
            k=self.k,
            branching=self.branching,
            subspaces=self.subspaces,
            orthogonality=ORTHOGONALITY * d_model if self.roots > 1 else 0.0,
            normalizer=size.normalizer,
        )


ORTHOGONALITY = 0.1  # published for rows of unit norm; rows of mean square d have d times the loss
L1 = 1e-3  # published for rows of unit norm; √d as much in our units
