"""Document A's six toy cases: as written (dense Gaussian codes), and read as sparse features.

What the document states, what was lost, and what is chosen here and why:

=========  =============================================  =========================================
case       stated                                         chosen
=========  =============================================  =========================================
1          two orthogonal directions, variances 1 : 0.2   -
2          two directions at 45°, equal variance          variance 1
3          a set of features all correlated at 0.8        one set of all 20 features
4          a set all at -0.8: impossible beyond a pair    10 pairs at -0.8
5          mixed correlated and anti-correlated groups    two fives at 0.8, five pairs at -0.8
6          random positive-definite, specified            blocks of 8, 6, 4, 2; random signed
           off-diagonal structure                         correlations inside, none across
=========  =============================================  =========================================

Lost: the number of points ``M``, the input dimension ``N`` and the noise. Chosen: ``N = 12`` in
every case, so that the six train as one batched model; 20 features in 3-6, so that features
outnumber dimensions (superposition) while 32 latents still outnumber features; noise 0.1 per
coordinate, because its square, 0.01, is the smallest MSE in the document's table, which is what
the best reconstruction of noisy inputs can reach. The variance of case 6 is 1 per feature:
"covariance" is read as correlation, since no scales are stated.

In case 6 the structure is imposed by blocks because then covariance and precision have the same
pattern; a sparse pattern in one alone would be dense in the other, and "the true graph" ambiguous.

``CASES`` are the document's words. Their codes are Gaussian and dense, hence identify the span of
the features at most (a linear-Gaussian model is invariant under any invertible mixing of its
latents), and no code is ever exactly zero. ``SPARSE_CASES`` put the same correlation into the
copula that makes features fire together, so that sparsity and feature recovery have a meaning.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from priors.errors import ConfigError
from toys.copula import CopulaCase, LatentCorrelation
from toys.correlation import (
    BlockCorrelation,
    CorrelationStructure,
    Equicorrelated,
    Independent,
    RandomCorrelation,
    blocks,
    pairs,
)
from toys.directions import AngledPair, Directions, OrthonormalDirections, SpreadDirections
from toys.magnitudes import PositiveNormal
from toys.toy import CodeLaw, Toy, check_toy, gaussian_truth, per_feature


@dataclass(frozen=True, kw_only=True)
class GaussianLaw(CodeLaw):
    """Codes ``z ~ N(0, C)``.

    Args:
        factor: ``(F, F)`` Cholesky factor of the covariance ``C``.
    """

    factor: Float[Tensor, "F F"]

    def sample(self, rows: int, generator: Generator) -> Float[Tensor, "rows F"]:
        shape = (rows, self.factor.shape[0])
        white = torch.randn(shape, generator=generator, dtype=torch.float64)
        return (white @ self.factor.mT).to(torch.get_default_dtype())


@dataclass(frozen=True, kw_only=True)
class GaussianCase:
    r"""Correlated Gaussian codes projected to activations: :math:`z ∼ N(0, SCS),\; x = zD + ε`.

    Args:
        structure: The correlation ``C``.
        variance: ``S²``, one for all features or one each.
        directions: Law of the dictionary ``D``.
        d_model: Dimension ``d`` of the activations.
        noise: Standard deviation of ``ε``, in activation units.

    Raises:
        ConfigError: ``toy.variance``, ``toy.size``, ``toy.noise``, ``toy.d_model``.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> toy = CASES["case3"].build(generator)
        >>> toy.sample(5, generator).x.shape, toy.graph
        (torch.Size([5, 12]), Graph(num_nodes=20, num_edges=190, num_components=1))

    Source:
        Li et al. (2025), *From Unruly Stacks to Organized Shelves*, §3.1.
    """

    structure: CorrelationStructure
    variance: float | tuple[float, ...] = 1.0
    directions: Directions = field(default_factory=SpreadDirections)
    d_model: int = 12
    noise: float = 0.1

    def __post_init__(self) -> None:
        check_toy(self.d_model, self.noise)
        variances = per_feature(self.variance, self.features, "variance")
        if not all(0 < variance < float("inf") for variance in variances):
            raise ConfigError(
                f"variances must be positive and finite: got {self.variance}.", code="toy.variance"
            )

    @property
    def features(self) -> int:
        """Number of features ``F``."""
        return self.structure.size

    def build(self, generator: Generator) -> Toy:
        """Draws dictionary and covariance. ``Toy.precision`` is the codes' inverse covariance."""
        dictionary = self.directions.draw(self.features, self.d_model, generator)
        correlation = self.structure.matrix(generator)
        variances = per_feature(self.variance, self.features, "variance")
        scale = torch.tensor(variances, dtype=torch.float64).sqrt()
        covariance = scale[:, None] * correlation * scale
        precision, graph = gaussian_truth(covariance)
        dtype = torch.get_default_dtype()
        return Toy(
            law=GaussianLaw(factor=torch.linalg.cholesky(covariance)),
            dictionary=dictionary,
            noise=self.noise,
            correlation=correlation.to(dtype),
            precision=precision.to(dtype),
            support=None,
            graph=graph,
        )


_MIXED = BlockCorrelation(parts=(*blocks((5, 5), 0.8).parts, *pairs(5, -0.8).parts))
_RANDOM = BlockCorrelation(
    parts=tuple(RandomCorrelation(size=n, degrees_of_freedom=n + 2) for n in (8, 6, 4, 2))
)
_STRUCTURES: dict[str, CorrelationStructure] = {
    "case1": Independent(size=2),
    "case2": Independent(size=2),
    "case3": Equicorrelated(size=20, correlation=0.8),
    "case4": pairs(10, -0.8),
    "case5": _MIXED,
    "case6": _RANDOM,
}
_DIRECTIONS: dict[str, Directions] = {
    "case1": OrthonormalDirections(),
    "case2": AngledPair(degrees=45.0),
}

CASES: dict[str, GaussianCase] = {
    name: GaussianCase(
        structure=structure,
        variance=(1.0, 0.2) if name == "case1" else 1.0,
        directions=_DIRECTIONS.get(name, SpreadDirections()),
    )
    for name, structure in _STRUCTURES.items()
}
"""The six cases as written; case 4 in its feasible reading, anti-correlated pairs."""

SPARSE_CASES: dict[str, CopulaCase] = {
    name: CopulaCase(
        dependence=LatentCorrelation(structure=structure),
        rate=0.1,
        # Sizes near 1 and bounded away from 0, so that firing is visible above the noise of 0.1.
        magnitude=PositiveNormal(loc=1.0, scale=0.25),
        scale=(1.0, 0.2**0.5) if name == "case1" else 1.0,
        directions=_DIRECTIONS.get(name, SpreadDirections()),
    )
    for name, structure in _STRUCTURES.items()
}
"""The same correlations and directions, where features fire on a tenth of rows."""
