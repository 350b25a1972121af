"""Which latent is a child of which: a tree with as many children for every latent of a level."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from operator import index

import torch
from jaxtyping import Int
from torch import Tensor

from priors.errors import ConfigError
from priors.graph import Graph


@dataclass(frozen=True)
class Tree:
    r"""``roots`` latents, each with ``branching[0]`` children, each of those with the next number.

    Latents are numbered level by level; the children of the ``i``-th of a level are neighbours:

    .. math:: \mathrm{node}(ℓ, i) = o_ℓ + i, \quad \mathrm{parent}(ℓ, i) =
        \mathrm{node}(ℓ - 1, \lfloor i / a_ℓ \rfloor), \quad o_ℓ = \sum_{l < ℓ} n_l, \quad
        n_ℓ = m\, a_1 \cdots a_ℓ

    Args:
        roots: Latents of the first level, :math:`m`.
        branching: Children of every latent of a level but the last, :math:`a_1, a_2, …`; empty for
            a flat dictionary.

    Raises:
        ConfigError: ``tree.size`` unless every number is a positive integer.

    Example:
        >>> tree = Tree(2, (3,))
        >>> tree.sizes, tree.latents, tree.parents().tolist()
        ((2, 6), 8, [-1, -1, 0, 0, 0, 1, 1, 1])

    Source:
        Muchane, Richardson, Park & Veitch (2025), 2506.01197, §3.1, for two levels.
    """

    roots: int
    branching: Sequence[int] = ()

    def __post_init__(self) -> None:
        try:
            roots, branching = index(self.roots), tuple(map(index, self.branching))
        except TypeError:
            roots, branching = 0, ()
        if min(roots, *branching, 2**62) < 1 or isinstance(self.roots, bool):
            raise ConfigError(
                f"a tree needs latents on every level: got roots={self.roots!r}, "
                f"branching={self.branching!r}, expected a positive integer and a sequence of "
                "them. For a flat dictionary, leave branching out.",
                code="tree.size",
                context={"roots": self.roots, "branching": self.branching},
            )
        object.__setattr__(self, "roots", roots)
        object.__setattr__(self, "branching", branching)

    @property
    def depth(self) -> int:
        """Number of levels."""
        return 1 + len(self.branching)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Latents of each level."""
        return tuple(self.roots * prod(self.branching[:level]) for level in range(self.depth))

    @property
    def offsets(self) -> tuple[int, ...]:
        """The number of the first latent of each level."""
        return tuple(sum(self.sizes[:level]) for level in range(self.depth))

    @property
    def latents(self) -> int:
        """Latents of all levels."""
        return sum(self.sizes)

    def parents(self) -> Int[Tensor, " K"]:
        """The parent of every latent, -1 for a root."""
        parts = [torch.full((self.roots,), -1)]
        for above, each, size in zip(self.offsets, self.branching, self.sizes, strict=False):
            parts.append(above + torch.arange(size).repeat_interleave(each))
        return torch.cat(parts)

    def levels(self) -> Int[Tensor, " K"]:
        """The level of every latent, from 0."""
        return torch.arange(self.depth).repeat_interleave(torch.tensor(self.sizes))

    def families(self) -> Int[Tensor, " K"]:
        """The root above every latent: labels for ``BlockDiagonalPrior.from_labels``."""
        parts = [torch.arange(self.roots).repeat_interleave(n // self.roots) for n in self.sizes]
        return torch.cat(parts)

    def graph(self) -> Graph:
        """Every latent linked to its parent: for :class:`priors.GraphLaplacianPrior`."""
        return Graph.tree(self.parents())
