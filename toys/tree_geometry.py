"""Where the features of a forest point: laws of dictionaries that know families."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from priors.errors import ConfigError
from toys.directions import (
    Directions,
    OrthonormalDirections,
    SimplexDirections,
    SpreadDirections,
)
from toys.forest import Forest


class Layout(NamedTuple):
    """Unit ``directions (F, d)``; of each node, an orthonormal basis ``(s, d)`` of its children's.

    A node without children has a basis ``(0, d)``.
    """

    directions: Float[Tensor, "F d"]
    subspaces: tuple[Float[Tensor, "_ d"], ...]


class TreeGeometry(ABC):
    """A law of the directions of a forest's features; *the following method makes one*."""

    @abstractmethod
    def draw(self, forest: Forest, d_model: int, generator: Generator) -> Layout:
        """A unit direction per node, and the subspaces of the families."""


@dataclass(frozen=True, kw_only=True)
class AnyDirections(TreeGeometry):
    """Directions that know nothing of the tree, as in the published tree: orthonormal ones.

    A family's subspace is what its children's directions span.

    Args:
        directions: Law of all features' directions.
    """

    directions: Directions = field(default_factory=OrthonormalDirections)

    def draw(self, forest: Forest, d_model: int, generator: Generator) -> Layout:
        rows = self.directions.draw(forest.size, d_model, generator)
        families = (rows[list(forest.children(node))] for node in range(forest.size))
        return Layout(rows, tuple(_span(family) for family in families))


@dataclass(frozen=True, kw_only=True)
class OrthogonalFamilies(TreeGeometry):
    r"""Park et al.'s geometry where there is room: every subspace orthogonal to every other.

    The children of a node lie in a subspace of their own; all these and all roots are orthogonal.
    A concept, the sum of the directions on its path, is then orthogonal to the *difference* of any
    concept below it and itself, and to that of any two below it. Siblings are as
    ``categorical`` or ``independent`` says; with simplices ``F`` may exceed ``d``.

    Args:
        dimension: Dimension ``s`` of a family's subspace.
        categorical: Law of exclusive children's directions in it.
        independent: Law of other children's.

    Raises:
        ConfigError: ``toy.too_many_features``, on drawing, if roots and subspaces do not fit in
            ``d``: use :class:`PackedFamilies`.

    Example:
        >>> forest = Forest.balanced((1, 3), probability=(0.5, 0.2), exclusive=True)
        >>> rows, spaces = OrthogonalFamilies(dimension=2).draw(forest, 8, torch.Generator())
        >>> torch.allclose(rows[0] @ rows[1:].T, torch.zeros(3), atol=1e-6), spaces[0].shape
        (True, torch.Size([2, 8]))

    Source:
        Park et al. (2024), 2406.01506, theorems 4.1 and 4.4 (hierarchy as orthogonality).
    """

    dimension: int
    categorical: Directions = field(default_factory=SimplexDirections)
    independent: Directions = field(default_factory=OrthonormalDirections)

    def draw(self, forest: Forest, d_model: int, generator: Generator) -> Layout:
        roots = forest.children(-1)
        parents = [node for node in range(forest.size) if forest.children(node)]
        needed = len(roots) + self.dimension * len(parents)
        frame = OrthonormalDirections().draw(needed, d_model, generator)
        spaces = [frame[:0]] * forest.size
        for family, parent in enumerate(parents):
            start = len(roots) + family * self.dimension
            spaces[parent] = frame[start : start + self.dimension]
        rows = frame.new_zeros(forest.size, d_model)
        rows[list(roots)] = frame[: len(roots)]
        for parent in parents:
            law = self.categorical if forest.excludes(parent) else self.independent
            rows[list(forest.children(parent))] = _inside(
                law, len(forest.children(parent)), spaces[parent], generator
            )
        return Layout(rows, tuple(spaces))


@dataclass(frozen=True, kw_only=True)
class PackedFamilies(TreeGeometry):
    r"""Park et al.'s geometry in superposition: any number of families in ``d`` dimensions.

    Along a path orthogonality is exact: a family's subspace is drawn uniformly among those
    orthogonal to its parent's direction and to all above, so that a concept is orthogonal to its
    offset from its parent. Between families it holds only as for random directions, with
    cosines of the order of :math:`1/\sqrt d`.

    Args:
        dimension: Dimension ``s`` of a family's subspace.
        categorical: Law of exclusive children's directions in it.
        independent: Law of other children's.
        roots: Law of the roots' directions.

    Raises:
        ConfigError: ``toy.too_many_features``, on drawing, if a path and one subspace do not fit.

    Example:
        >>> forest = Forest.balanced((50, 3), probability=(0.02, 0.2), exclusive=True)
        >>> rows, _ = PackedFamilies(dimension=2).draw(forest, 16, torch.Generator())
        >>> rows.shape, torch.allclose(rows[7] @ rows[71:74].T, torch.zeros(3), atol=1e-6)
        (torch.Size([200, 16]), True)

    Source:
        Park et al. (2024), 2406.01506; superposition as in Elhage et al. (2022).
    """

    dimension: int
    categorical: Directions = field(default_factory=SimplexDirections)
    independent: Directions = field(default_factory=OrthonormalDirections)
    roots: Directions = field(default_factory=SpreadDirections)

    def draw(self, forest: Forest, d_model: int, generator: Generator) -> Layout:
        if forest.depth - 1 + self.dimension > d_model:
            raise ConfigError(
                f"a path of {forest.depth - 1} features and a family of {self.dimension} dimensions"
                f" cannot be orthogonal in {d_model} dimensions.",
                code="toy.too_many_features",
                context={"dimension": self.dimension, "d_model": d_model},
            )
        roots = list(forest.children(-1))
        drawn = self.roots.draw(len(roots), d_model, generator)
        rows = drawn.new_zeros(forest.size, d_model)
        rows[roots] = drawn
        spaces, above = [], forest.ancestors() | torch.eye(forest.size, dtype=torch.bool)
        for node in range(forest.size):
            if not (children := list(forest.children(node))):
                spaces.append(rows[:0])
                continue
            spaces.append(_beside(rows[above[node]], self.dimension, generator))
            law = self.categorical if forest.excludes(node) else self.independent
            rows[children] = _inside(law, len(children), spaces[node], generator)
        return Layout(rows, tuple(spaces))


def _inside(law: Directions, count: int, basis: Tensor, generator: Generator) -> Tensor:
    return law.draw(count, len(basis), generator) @ basis


def _beside(path: Tensor, dimension: int, generator: Generator) -> Tensor:
    """A uniformly random subspace orthogonal to the orthonormal rows of ``path``."""
    given = path.double()
    drawn = torch.randn(dimension, path.shape[1], generator=generator, dtype=torch.float64)
    q, _ = torch.linalg.qr(torch.cat([given, drawn]).mT)  # Gram-Schmidt, the path first
    return q[:, len(path) :].mT.to(path.dtype)


def _span(rows: Tensor) -> Tensor:
    """An orthonormal basis of what rows span."""
    if not len(rows):
        return rows
    _, size, right = torch.linalg.svd(rows.double(), full_matrices=False)
    return right[size > 1e-6 * size[0]].to(rows.dtype)
