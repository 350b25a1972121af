"""The angle of a child's direction, or of its offset, with its parent's."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from vsae.batches import check_finite
from vsae.metrics.edge_scores import EdgeScores, score_edges
from vsae.metrics.hierarchy import (
    check_parents,
    check_setting,
    check_shapes,
    dealt,
    edges_of,
    levels,
)

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class EdgeDistribution:
    """Cosines of the edges, with exact chance, and raw ones of ``draws`` shuffled hierarchies."""

    scores: EdgeScores
    null: Float[Tensor, "draws E"]

    def quantiles(self, of: tuple[float, ...] = QUANTILES) -> tuple[float, ...]:
        """Of the edges' defined values; nan without any."""
        return _quantiles(self.scores.values, of)

    def null_quantiles(self, of: tuple[float, ...] = QUANTILES) -> tuple[float, ...]:
        """Of the shuffled edges' defined values."""
        return _quantiles(self.null, of)


@dataclass(frozen=True)
class ParentChildCosine:
    """Cosine with the parent: of the child itself, and of ``child - parent``."""

    child: EdgeDistribution
    offset: EdgeDistribution


def parent_child_cosine(
    atoms: Tensor, parents: Tensor, *, generator: Generator, draws: int = 20
) -> ParentChildCosine:
    r"""Cosine of each child, and of its offset, with its parent: 0 where Park's geometry holds.

    .. math:: \cos(a_c, a_p), \qquad \cos(a_c - a_p,\, a_p)

    If children are *added* to their parents (an H-SAE's child atom is an offset), the first should
    be 0; if they stand for themselves (:func:`vsae.metrics.concept_vectors`, or the atoms of a flat
    dictionary), the second should. Of *unit* atoms the second is
    :math:`-\sqrt{(1 - \cos)/2}`, a function of the first, and says nothing. An offset of length 0
    has cosine 0. The claim holds in whitened coordinates only: pass them.

    In many dimensions any two directions are nearly orthogonal: a cosine near 0 means something
    only where shuffled parents give another.

    Args:
        atoms: ``(K, d)``; a zero row, or one of nan alone, is a latent without a direction: nan.
        parents: ``(K,)`` int64, -1 for a root.
        generator: Of the shuffled parents, on the CPU.
        draws: Number of shuffled hierarchies of which raw cosines are returned.

    Raises:
        ShapeError, DTypeError: ``hierarchy.shape``, ``hierarchy.dtype``.
        GraphError: ``hierarchy.out_of_range``, ``hierarchy.cycle``.
        ConfigError: ``hierarchy.setting`` unless ``draws >= 1``.
        NonFiniteDataError: ``data.nonfinite`` if a row is partly finite.

    Example:
        >>> vectors = torch.tensor([[1.0, 0.0], [1.0, 1.0]])  # child = parent + orthogonal offset
        >>> found = parent_child_cosine(
        ...     vectors, torch.tensor([-1, 0]), generator=torch.Generator().manual_seed(0)
        ... )
        >>> round(found.child.scores.mean, 4), found.offset.scores.mean
        (0.7071, 0.0)

    Source:
        Park, Choe, Jiang & Veitch (2024), 2406.01506, theorem 8; whitening after 2311.03658.
    """
    check_setting(draws >= 1, "draws", draws, "draws >= 1")
    check_shapes([("atoms", atoms, (None, None))])
    parents = check_parents(parents, len(atoms))
    atoms = atoms.detach().cpu().double()
    absent = atoms.isnan().all(-1) | (atoms == 0).all(-1)
    check_finite(torch.where(absent[:, None], 0.0, atoms))
    edges, directions = edges_of(parents), _Directions(atoms)
    defined, depth = ~absent[edges].any(-1), levels(parents)[edges[:, 0]]
    null = torch.full((2, draws, len(edges)), math.nan, dtype=torch.float64)
    for draw in range(draws):
        new = dealt(edges[defined], depth[defined], generator)
        child, parent = atoms[new[:, 0]], atoms[new[:, 1]]
        null[0, draw, defined] = torch.cosine_similarity(child, parent, dim=-1)
        null[1, draw, defined] = torch.cosine_similarity(child - parent, parent, dim=-1)
    return ParentChildCosine(
        EdgeDistribution(score_edges(parents, directions.child, defined), null[0]),
        EdgeDistribution(score_edges(parents, directions.offset, defined), null[1]),
    )


class _Directions:
    """Cosines of any children with any parents."""

    def __init__(self, atoms: Tensor) -> None:
        self.atoms, self.unit = atoms, torch.nn.functional.normalize(atoms, dim=-1)

    def child(self, children: Tensor, parents: Tensor) -> Tensor:
        return self.unit[children] @ self.unit[parents].mT

    def offset(self, children: Tensor, parents: Tensor) -> Tensor:
        one, other = self.atoms[children], self.atoms[parents]
        along = one @ self.unit[parents].mT - other.norm(dim=-1)
        length = torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist")
        return torch.where(length > 0, along / length, 0.0)


def _quantiles(values: Tensor, of: tuple[float, ...]) -> tuple[float, ...]:
    defined = values[~values.isnan()].numpy()  # numpy's: torch's refuses 2^24 numbers or more
    return tuple(np.quantile(defined, of).tolist()) if len(defined) else (math.nan,) * len(of)
