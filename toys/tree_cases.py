"""Toys with a hierarchy as their truth: forest, directions, concepts and subspaces."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from priors.errors import ConfigError
from priors.graph import Graph
from toys.forest import Forest
from toys.magnitudes import ConstantMagnitude, MagnitudeLaw
from toys.toy import Toy, ToyBatch, check_toy
from toys.tree_geometry import AnyDirections, OrthogonalFamilies, PackedFamilies, TreeGeometry
from toys.tree_law import TreeLaw


@dataclass(frozen=True, kw_only=True, eq=False)
class TreeToy:
    r"""A toy whose features are the nodes of a forest, and all that is true of it.

    :math:`x = z D + ε` as of any :class:`toys.toy.Toy`: the row of a child is what it *adds* to
    its parent. What a node means as a whole is the sum along its path, its *concept*:

    .. math:: o_i = s_i\, \mathbb E[m]\, d_i, \qquad \ell_i = \ell_{π(i)} + o_i

    Args:
        toy: The toy; its ``graph`` ties parents and children, ``correlation`` and ``support`` are
            the expected φ correlation of the supports, ``precision`` is ``None``.
        law: Its law, with moments in closed form.
        subspaces: Of each node, an orthonormal basis ``(s, d)`` of its children's subspace;
            ``(0, d)`` without children.
    """

    toy: Toy
    law: TreeLaw
    subspaces: tuple[Float[Tensor, "_ d"], ...]

    def sample(self, rows: int, generator: Generator) -> ToyBatch:
        """``rows`` independent rows and their codes; see :meth:`toys.toy.Toy.sample`."""
        return self.toy.sample(rows, generator)

    @property
    def forest(self) -> Forest:
        """Who is whose parent, and how often each fires."""
        return self.law.forest

    @property
    def parents(self) -> Int[Tensor, " F"]:
        """The parent of each node, -1 for a root."""
        return torch.tensor(self.forest.parents)

    @property
    def dictionary(self) -> Float[Tensor, "F d"]:
        """Unit directions ``d_i``."""
        return self.toy.dictionary

    @property
    def offsets(self) -> Float[Tensor, "F d"]:
        """What each node adds on average when it fires, ``o_i``, in activation units."""
        size = self.law.scale.double() * self.law.magnitude.moments()[0]
        return (size[:, None] * self.dictionary).to(self.dictionary.dtype)

    @property
    def concepts(self) -> Float[Tensor, "F d"]:
        """Concept vectors ``ℓ_i``: the offsets summed from the root down to the node."""
        offsets = self.offsets
        return offsets + self.forest.ancestors().to(offsets.dtype) @ offsets

    def second_moment(self) -> Float[Tensor, "d d"]:
        """The expected ``x xᵀ`` of an activation, noise included, float64."""
        return self._of_rows(self.law.second_moment())

    def covariance(self) -> Float[Tensor, "d d"]:
        """The covariance of an activation, noise included, float64."""
        return self._of_rows(self.law.covariance())

    def _of_rows(self, of_codes: Tensor) -> Tensor:
        rows = self.dictionary.double()
        noise = torch.eye(rows.shape[1], dtype=torch.float64) * self.toy.noise**2
        return rows.mT @ of_codes @ rows + noise


@dataclass(frozen=True, kw_only=True)
class TreeCase:
    """Features in a hierarchy.

    Args:
        forest: Who is whose parent, firing probabilities, which siblings exclude each other.
        geometry: Law of the directions.
        magnitude: Law of an active feature's size, in activation units.
        lengths: Factor on the size, one for all features or one per level.
        spread: Relative standard deviation of that factor between features: it is drawn once per
            toy, ``length · (1 + spread · N)``.
        d_model: Dimension ``d`` of the activations.
        noise: Standard deviation of the noise, in activation units.

    Raises:
        ConfigError: ``toy.d_model``, ``toy.noise``, ``toy.size``, ``toy.scale`` on construction;
            ``toy.scale`` from :meth:`build` if a drawn factor is not positive, and those of the
            geometry.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> toy = TREE_CASES["published"].build(generator)
        >>> toy.sample(5, generator).x.shape, toy.parents[-3:].tolist()
        (torch.Size([5, 20]), [2, 2, 2])
        >>> round(toy.forest.expected_l0, 6)
        1.12
    """

    forest: Forest
    geometry: TreeGeometry = field(default_factory=AnyDirections)
    magnitude: MagnitudeLaw = field(default_factory=ConstantMagnitude)
    lengths: tuple[float, ...] = (1.0,)
    spread: float = 0.0
    d_model: int = 20
    noise: float = 0.0

    def __post_init__(self) -> None:
        check_toy(self.d_model, self.noise)
        if len(self.lengths) not in (1, self.forest.depth):
            raise ConfigError(
                f"{len(self.lengths)} lengths for {self.forest.depth} levels: expected one, or "
                "one per level.",
                code="toy.size",
            )
        if not all(0 < n < float("inf") for n in self.lengths) or not 0 <= self.spread < 1:
            raise ConfigError(
                f"lengths must be positive and their spread in [0, 1): got {self.lengths} and "
                f"{self.spread}.",
                code="toy.scale",
            )

    @property
    def features(self) -> int:
        """Number of features ``F``."""
        return self.forest.size

    def build(self, generator: Generator) -> TreeToy:
        """Draws directions and lengths."""
        directions, subspaces = self.geometry.draw(self.forest, self.d_model, generator)
        law = TreeLaw(forest=self.forest, magnitude=self.magnitude, scale=self._scale(generator))
        support = self.forest.correlation().to(directions.dtype)
        toy = Toy(
            law=law,
            dictionary=directions,
            noise=self.noise,
            correlation=support,
            precision=None,
            support=support,
            graph=Graph.tree(self.forest.parents),
        )
        return TreeToy(toy=toy, law=law, subspaces=subspaces)

    def _scale(self, generator: Generator) -> Tensor:
        lengths = self.lengths * (self.forest.depth // len(self.lengths))
        level = torch.tensor(lengths, dtype=torch.float64)[list(self.forest.levels)]
        normal = torch.randn(self.features, generator=generator, dtype=torch.float64)
        scale = level * (1 + self.spread * normal)
        if not bool((scale > 0).all()):
            raise ConfigError(
                f"a feature drew the length {scale.min().item()}: expected > 0. Lower the spread.",
                code="toy.scale",
            )
        return scale


_TWO = Forest.balanced((8, 4), probability=(0.15, 0.2), exclusive=True)
_THREE = Forest.balanced((6, 3, 3), probability=(0.2, 0.25, 0.25), exclusive=True)
_MANY_TWO = Forest.balanced((32, 4), probability=(0.05, 0.2), exclusive=True)
_MANY_THREE = Forest.balanced((16, 4, 4), probability=(0.1, 0.2, 0.2), exclusive=True)

TREE_CASES = {
    "published": TreeCase(forest=Forest.matryoshka(), spread=0.05),
    "park-2": TreeCase(
        forest=_TWO, geometry=OrthogonalFamilies(dimension=3), d_model=32, noise=0.05
    ),
    "park-3": TreeCase(
        forest=_THREE, geometry=OrthogonalFamilies(dimension=2), d_model=64, noise=0.05
    ),
    "packed-2": TreeCase(
        forest=_MANY_TWO, geometry=PackedFamilies(dimension=3), d_model=64, noise=0.05
    ),
    "packed-3": TreeCase(
        forest=_MANY_THREE, geometry=PackedFamilies(dimension=3), d_model=64, noise=0.05
    ),
}
