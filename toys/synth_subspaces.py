"""Concepts of more than one dimension: a concept fires as a direction inside its own subspace."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from priors.errors import ConfigError
from toys.directions import OrthonormalDirections
from toys.magnitudes import MagnitudeLaw, PositiveNormal
from toys.toy import CodeLaw, Toy, ToyBatch, check_toy, weighted_graph


@dataclass(frozen=True, kw_only=True, eq=False)
class SubspaceLaw(CodeLaw):
    r"""Coordinates :math:`z_c = f_c\, m_c\, v_c` of concepts in bases of their subspaces.

    Concept ``c`` fires with probability ``p``, with a size ``m`` and a direction ``v`` uniform on
    the unit sphere of its :math:`n_c` dimensions; in one dimension :math:`v = 1`, an ordinary
    feature. All are independent.

    Args:
        concept: ``(F,)``, of each coordinate its concept, in rising order.
        rate: ``p``.
        magnitude: The law ``m`` of an active concept's size, in activation units.
    """

    concept: Int[Tensor, " F"]
    rate: float
    magnitude: MagnitudeLaw

    def sample(self, rows: int, generator: Generator) -> Float[Tensor, "rows F"]:
        concepts = int(self.concept[-1]) + 1
        uniform = torch.rand(rows, concepts, generator=generator, dtype=torch.float64)
        normal = torch.randn(rows, concepts, generator=generator, dtype=torch.float64)
        shape = (rows, len(self.concept))
        inside = torch.randn(shape, generator=generator, dtype=torch.float64)
        line = self.concept.bincount()[self.concept] == 1
        inside = torch.where(line, inside.abs(), inside)
        size = self.magnitude.from_normal(normal) * (uniform < self.rate)
        factor = size / norms(inside, self.concept, concepts)
        return (factor[:, self.concept] * inside).to(torch.get_default_dtype())


@dataclass(frozen=True, kw_only=True, eq=False)
class SubspaceToy:
    r"""A toy whose true parts are subspaces, and what of it can be recovered.

    :math:`x = z D + ε` as of any :class:`toys.toy.Toy`, but the basis of a subspace is arbitrary:
    no row of ``dictionary`` and no single coordinate is true where :math:`n_c > 1`. True are the
    subspaces, which concepts fire (:meth:`strengths` above 0), and how strongly. A latent speaks of
    the concept whose subspace its atom lies in (:meth:`cosines` near 1), wherever it lies there.

    Args:
        toy: The toy; its ``graph`` ties the coordinates of a concept, ``support`` is 1 among them.
        law: Its law.
    """

    toy: Toy
    law: SubspaceLaw

    def sample(self, rows: int, generator: Generator) -> ToyBatch:
        """``rows`` independent rows and their coordinates; see :meth:`toys.toy.Toy.sample`."""
        return self.toy.sample(rows, generator)

    @property
    def dictionary(self) -> Float[Tensor, "F d"]:
        """Orthonormal bases of the subspaces, one under the other."""
        return self.toy.dictionary

    @property
    def concept(self) -> Int[Tensor, " F"]:
        """Of each coordinate, its concept."""
        return self.law.concept

    @property
    def dimensions(self) -> Int[Tensor, " C"]:
        """Of each concept, the dimension of its subspace."""
        return self.concept.bincount()

    def strengths(self, codes: Float[Tensor, "rows F"]) -> Float[Tensor, "rows C"]:
        """How strongly each concept fires, in activation units, whatever basis is used."""
        return norms(codes, self.concept, len(self.dimensions))

    def cosines(self, atoms: Float[Tensor, "K d"]) -> Float[Tensor, "K C"]:
        """Of each atom and each subspace, the cosine of the angle between them."""
        inside = norms(atoms @ self.dictionary.mT, self.concept, len(self.dimensions))
        return inside / atoms.norm(dim=1, keepdim=True)

    def same_concept(self) -> Bool[Tensor, "F F"]:
        """Whether two coordinates are of one concept."""
        return self.concept == self.concept[:, None]


@dataclass(frozen=True, kw_only=True)
class SubspaceCase:
    """Concepts of several dimensions, in superposition.

    Args:
        dimensions: Of each concept, the dimension of its subspace.
        rate: Firing probability of a concept in (0, 1).
        magnitude: Law of an active concept's size, in activation units.
        d_model: Dimension ``d`` of the activations.
        noise: Standard deviation of the noise, in activation units.

    Raises:
        ConfigError: ``toy.empty`` for no concepts, ``toy.size`` for a dimension below 1,
            ``toy.too_many_features`` for one above ``d_model``, ``toy.rate``, ``toy.d_model``,
            ``toy.noise``.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> toy = SubspaceCase(dimensions=(1, 3), rate=0.5, d_model=8).build(generator)
        >>> x, codes = toy.sample(5, generator)
        >>> codes.shape, toy.strengths(codes).shape, toy.concept.tolist()
        (torch.Size([5, 4]), torch.Size([5, 2]), [0, 1, 1, 1])

    Source:
        Engels et al. (2024), *Not All Language Model Features Are One-Dimensionally Linear*,
        2405.14860, for features that are irreducible and of several dimensions.
    """

    dimensions: tuple[int, ...]
    rate: float = 0.05
    magnitude: MagnitudeLaw = field(default_factory=PositiveNormal)
    d_model: int = 32
    noise: float = 0.05

    def __post_init__(self) -> None:
        check_toy(self.d_model, self.noise)
        if not self.dimensions:
            raise ConfigError("no concepts: got 0, expected at least 1.", code="toy.empty")
        if min(self.dimensions) < 1:
            raise ConfigError(
                f"a concept has a dimension >= 1: got {self.dimensions}.", code="toy.size"
            )
        if max(self.dimensions) > self.d_model:
            raise ConfigError(
                f"a concept of {max(self.dimensions)} dimensions among {self.d_model}: expected at "
                "most as many.",
                code="toy.too_many_features",
            )
        if not 0 < self.rate < 1:
            raise ConfigError(
                f"a firing rate is a probability strictly inside (0, 1): got {self.rate}.",
                code="toy.rate",
            )

    @property
    def features(self) -> int:
        """Number of coordinates ``F``."""
        return sum(self.dimensions)

    def build(self, generator: Generator) -> SubspaceToy:
        """Draws the subspaces, each uniformly and independently."""
        bases = [OrthonormalDirections().draw(n, self.d_model, generator) for n in self.dimensions]
        concept = torch.arange(len(bases)).repeat_interleave(torch.tensor(self.dimensions))
        law = SubspaceLaw(concept=concept, rate=self.rate, magnitude=self.magnitude)
        together = (concept == concept[:, None]).to(torch.get_default_dtype())
        toy = Toy(
            law=law,
            dictionary=torch.cat(bases),
            noise=self.noise,
            correlation=together,
            precision=None,
            support=together,
            graph=weighted_graph(together),
        )
        return SubspaceToy(toy=toy, law=law)


def norms(
    coordinates: Float[Tensor, "rows F"], concept: Int[Tensor, " F"], concepts: int
) -> Float[Tensor, "rows C"]:
    """Of each row, the norm of the coordinates of each concept."""
    squares = coordinates.new_zeros(len(coordinates), concepts)
    return squares.index_add_(1, concept, coordinates.square()).sqrt()
