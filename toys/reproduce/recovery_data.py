"""Synthetic data of the recovery benchmark, and what of it is true."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from toys.recovery_cases import RECOVERY_CASES
from toys.reproduce.recovery_saelens_data import SAELENS_CASES
from toys.reproduce.recovery_truth import AbstractTruth, Directions, Subspaces
from toys.synth import SynthToy
from toys.synth_subspaces import SubspaceToy
from toys.toy import Toy
from toys.tree_cases import TreeToy
from vsae.batches import stream
from vsae.metrics import levels
from vsae.normalizers import AffineNormalizer

ROWS, HELD_OUT, OTHERS = (1_000_000 * n for n in (11, 12, 13))  # random streams
CHUNK = 16_384  # rows drawn at once: their codes are not kept
SAMPLE = 32_768  # rows of codes of which correlations are taken
WATCHED = 2048  # held-out rows that are looked at during training
FLOOR = 0.05  # the least eigenvalue of an estimated correlation


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Which rows.

    Args:
        case: A name in ``RECOVERY_CASES`` or ``SAELENS_CASES``.
        generator: The seed of the toy and of its rows.
        rows: Distinct training rows.
        test: Held-out rows.
    """

    case: str
    generator: int
    rows: int
    test: int


class Problem:
    """Training and held-out rows of one toy.

    Args:
        draw: Which.
    """

    def __init__(self, draw: Draw) -> None:
        case = (RECOVERY_CASES | SAELENS_CASES)[draw.case]
        self.draw, self.toy = draw, case.build(Generator().manual_seed(draw.generator))
        generator = stream(draw.generator, ROWS)
        sizes = [min(CHUNK, draw.rows - at) for at in range(0, draw.rows, CHUNK)]
        self.train = torch.cat([self.toy.sample(size, generator).x for size in sizes])
        self.test, codes = self.toy.sample(draw.test, stream(draw.generator, HELD_OUT))
        self.normalizer = AffineNormalizer.fit(self.train)
        self.truth: AbstractTruth = Directions(self.toy.dictionary, codes)
        if isinstance(self.toy, SubspaceToy):
            self.truth = Subspaces(self.toy, codes)

    @cached_property
    def watched(self) -> tuple[AbstractTruth, Float[Tensor, "rows d"]]:
        """The truth of the first held-out rows, and these: for looks during training."""
        rows = slice(0, WATCHED)
        if isinstance(self.toy, SubspaceToy):
            return self.truth, self.test
        return Directions(self.toy.dictionary, self.truth.strengths[rows]), self.test[rows]

    @property
    def d_model(self) -> int:
        """Width of an activation."""
        return self.train.shape[1]

    @property
    def l0(self) -> float:
        """Features that truly fire on a row."""
        return float((self.truth.strengths > 0).sum(-1, dtype=torch.float64).mean())

    @cached_property
    def codes(self) -> Float[Tensor, "rows F"]:
        """True codes of other rows."""
        return self.toy.sample(SAMPLE, stream(self.draw.generator, OTHERS)).codes

    @cached_property
    def correlation(self) -> Float[Tensor, "F F"]:
        """Of a copula, its own; else that of true codes, eigenvalues floored, float64."""
        if isinstance(self.toy, Toy) and self.toy.precision is not None:
            return self.toy.correlation.double()
        found = torch.nan_to_num(self.codes.double().T.corrcoef())
        found.diagonal().fill_(1.0)
        values, vectors = torch.linalg.eigh(found)
        found = (vectors * values.clamp(min=FLOOR)) @ vectors.mT
        scale = found.diagonal().sqrt()
        return found / scale / scale[:, None]

    @property
    def parents(self) -> Tensor | None:
        """The parent of each feature, -1 for none; nothing where there are no trees."""
        return self.toy.parents if isinstance(self.toy, SynthToy | TreeToy) else None

    @property
    def groups(self) -> dict[str, Bool[Tensor, " F"]]:
        """Features by their place in a tree; nothing where there are no trees."""
        return {} if self.parents is None else groups(self.parents)


def groups(parents: Int[Tensor, " F"]) -> dict[str, Bool[Tensor, " F"]]:
    """Features that are in no tree, roots, and those of each depth; none that is empty."""
    depth, tied = levels(parents), parents >= 0
    above = torch.zeros_like(tied)
    above[parents[tied]] = True
    found = {"untied": (depth == 0) & ~above, "root": (depth == 0) & above}
    found |= {f"depth {n}": depth == n for n in range(1, int(depth.max()) + 1)}
    return {name: group for name, group in found.items() if group.any()}


def ancestors(parents: Int[Tensor, " F"]) -> Bool[Tensor, "F F"]:
    """Whether one of two features is above the other in a tree: they fire together.

    Example:
        >>> ancestors(torch.tensor([-1, 0, 1, -1])).int().tolist()
        [[0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    """
    related = torch.zeros(len(parents), len(parents), dtype=torch.bool)
    node = above = torch.arange(len(parents))
    while bool((above >= 0).any()):
        above = torch.where(above >= 0, parents[above], -1)
        held = above >= 0
        related[node[held], above[held]] = True
    return related | related.mT


def exclusions(parents: Int[Tensor, " F"]) -> Bool[Tensor, "F F"]:
    """Pairs of one tree, neither above the other: if siblings exclude, these never fire together.

    Example:
        >>> exclusions(torch.tensor([-1, 0, 0, -1])).nonzero().tolist()
        [[1, 2], [2, 1]]
    """
    root = torch.arange(len(parents))
    while bool((parents[root] >= 0).any()):
        root = torch.where(parents[root] >= 0, parents[root], root)
    same = root == root[:, None]
    return same & ~ancestors(parents) & ~torch.eye(len(root), dtype=torch.bool)


@lru_cache(maxsize=1)
def problem(draw: Draw) -> Problem:
    """A pure function of its argument; the last one is kept."""
    return Problem(draw)
