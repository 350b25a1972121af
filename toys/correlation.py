"""Correlation structures of features: who goes with whom, checked for feasibility when stated."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from priors.errors import ConfigError

INFEASIBLE = "toy.infeasible_correlation"


class CorrelationStructure(ABC):
    """A correlation matrix as a value; *the following method and ``size`` make a structure*."""

    size: int

    @abstractmethod
    def matrix(self, generator: Generator) -> Float[Tensor, "F F"]:
        """The correlation matrix, float64, unit diagonal, positive-definite."""


@dataclass(frozen=True, kw_only=True)
class Independent(CorrelationStructure):
    """No correlation at all: the identity.

    Args:
        size: Number of features ``F``.
    """

    size: int

    def __post_init__(self) -> None:
        _check_size(self.size)

    def matrix(self, generator: Generator) -> Float[Tensor, "F F"]:
        return torch.eye(self.size, dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class Equicorrelated(CorrelationStructure):
    r"""Every pair of features at one correlation: :math:`C = ρJ + (1-ρ)I`.

    Its eigenvalues are :math:`1 + (F-1)ρ` and :math:`1-ρ`, so :math:`ρ ∈ (-1/(F-1), 1)`: a set of
    features can all be strongly correlated, but only a *pair* can be strongly anti-correlated.

    Args:
        size: Number of features ``F``.
        correlation: The common correlation.

    Raises:
        ConfigError: ``toy.infeasible_correlation`` outside that range; the message names the bound.

    Example:
        >>> Equicorrelated(size=3, correlation=0.8).matrix(torch.Generator())[0].tolist()
        [1.0, 0.8, 0.8]
        >>> Equicorrelated(size=5, correlation=-0.8)
        Traceback (most recent call last):
        priors.errors.ConfigError: 5 features cannot all be correlated at -0.8: ...

    Source:
        Horn & Johnson (2013), *Matrix Analysis*, §1.3: the spectrum of ``aI + bJ``.
    """

    size: int
    correlation: float

    def __post_init__(self) -> None:
        _check_size(self.size)
        low = -1 / (self.size - 1) if self.size > 1 else -1.0
        if not low < self.correlation < 1:
            raise ConfigError(
                f"{self.size} features cannot all be correlated at {self.correlation}: got a matrix"
                f" that is not positive-definite, expected a correlation in ({low:.4g}, 1)."
                " Anti-correlated pairs are feasible down to -1:"
                f" pairs({self.size // 2}, {self.correlation}).",
                code=INFEASIBLE,
                context={"size": self.size, "correlation": self.correlation, "bound": low},
            )

    def matrix(self, generator: Generator) -> Float[Tensor, "F F"]:
        full = torch.full((self.size, self.size), self.correlation, dtype=torch.float64)
        return full.fill_diagonal_(1.0)


@dataclass(frozen=True, kw_only=True)
class RandomCorrelation(CorrelationStructure):
    r"""A random positive-definite correlation matrix: a Wishart draw scaled to unit diagonal.

    :math:`C = D^{-1/2} G G^\top D^{-1/2}`, ``G`` standard normal ``(F, n)``, ``D`` the diagonal.
    Every sign occurs; off-diagonals have standard deviation :math:`n^{-1/2}` exactly, and ``C`` is
    positive-definite with probability 1 without any repair.

    Args:
        size: Number of features ``F``.
        degrees_of_freedom: ``n >= F``; few make correlations strong, many make them weak.

    Raises:
        ConfigError: ``toy.infeasible_correlation`` if ``n < F``, when ``C`` would be singular.

    Example:
        >>> c = RandomCorrelation(size=4, degrees_of_freedom=6).matrix(torch.Generator())
        >>> bool(torch.linalg.eigvalsh(c).min() > 0), c.diagonal().tolist()
        (True, [1.0, 1.0, 1.0, 1.0])

    Source:
        Muirhead (1982), *Aspects of Multivariate Statistical Theory*, §5.1.
    """

    size: int
    degrees_of_freedom: int

    def __post_init__(self) -> None:
        _check_size(self.size)
        if self.degrees_of_freedom < self.size:
            raise ConfigError(
                f"a random correlation of {self.size} features from {self.degrees_of_freedom}"
                f" degrees of freedom is singular: expected at least {self.size}.",
                code=INFEASIBLE,
                context={"size": self.size, "degrees_of_freedom": self.degrees_of_freedom},
            )

    def matrix(self, generator: Generator) -> Float[Tensor, "F F"]:
        shape = (self.size, self.degrees_of_freedom)
        rows = torch.randn(shape, generator=generator, dtype=torch.float64)
        rows = rows / rows.norm(dim=1, keepdim=True)
        lower = (rows @ rows.mT).tril(-1)  # a product is symmetric only up to rounding
        return (lower + lower.mT).fill_diagonal_(1.0)


@dataclass(frozen=True, kw_only=True)
class BlockCorrelation(CorrelationStructure):
    """Groups of features, each with its own structure, independent of each other.

    Args:
        parts: The groups' structures, in the order of the features.

    Raises:
        ConfigError: ``toy.empty`` if there is no group.

    Example:
        >>> mixed = BlockCorrelation(parts=(*blocks((3,), 0.8).parts, *pairs(1, -0.8).parts))
        >>> mixed.matrix(torch.Generator())[:, 3].tolist()
        [0.0, 0.0, 0.0, 1.0, -0.8]
    """

    parts: tuple[CorrelationStructure, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ConfigError("no groups: got 0 parts, expected at least 1.", code="toy.empty")

    @property
    def size(self) -> int:
        """Number of features over all groups."""
        return sum(part.size for part in self.parts)

    def matrix(self, generator: Generator) -> Float[Tensor, "F F"]:
        return torch.block_diag(*(part.matrix(generator) for part in self.parts))


@dataclass(frozen=True, kw_only=True)
class GivenCorrelation(CorrelationStructure):
    """A correlation matrix written out.

    Args:
        rows: The matrix, as a tuple of rows.

    Raises:
        ConfigError: ``toy.infeasible_correlation`` if it is not symmetric with unit diagonal and
            positive-definite; the message names the smallest eigenvalue.

    Example:
        >>> GivenCorrelation(rows=((1.0, 0.3), (0.3, 1.0))).size
        2
    """

    rows: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        _check_size(len(self.rows))
        if any(len(row) != len(self.rows) for row in self.rows):
            widths = sorted({len(row) for row in self.rows})
            raise ConfigError(
                f"a correlation matrix is square: got {len(self.rows)} rows of widths {widths}.",
                code=INFEASIBLE,
            )
        check_correlation(torch.tensor(self.rows, dtype=torch.float64))

    @property
    def size(self) -> int:
        """Number of features."""
        return len(self.rows)

    def matrix(self, generator: Generator) -> Float[Tensor, "F F"]:
        return torch.tensor(self.rows, dtype=torch.float64)


def blocks(sizes: tuple[int, ...], correlation: float) -> BlockCorrelation:
    """Groups of these sizes, each equicorrelated at ``correlation``, independent of each other."""
    parts = tuple(Equicorrelated(size=size, correlation=correlation) for size in sizes)
    return BlockCorrelation(parts=parts)


def pairs(count: int, correlation: float) -> BlockCorrelation:
    """``count`` pairs of features at ``correlation``, feasible for anything inside (-1, 1)."""
    return blocks((2,) * count, correlation)


def check_correlation(matrix: Float[Tensor, "F F"]) -> None:
    """Raises ``toy.infeasible_correlation`` unless the matrix is a non-singular correlation."""
    finite = bool(matrix.isfinite().all())
    if not finite or not torch.equal(matrix, matrix.mT) or bool((matrix.diagonal() != 1).any()):
        raise ConfigError(
            "not a correlation matrix: expected finite entries, exact symmetry and a unit diagonal."
            " Divide a covariance by its standard deviations.",
            code=INFEASIBLE,
        )
    smallest = torch.linalg.eigvalsh(matrix.double())[0].item()
    # An eigenvalue below F·eps is indistinguishable from zero in the matrix's own rounding.
    if smallest <= matrix.shape[0] * torch.finfo(torch.float64).eps:
        raise ConfigError(
            f"these correlations cannot hold together: the matrix is not positive-definite, its"
            f" smallest eigenvalue is {smallest:.3g}, expected > 0. Weaken some of them.",
            code=INFEASIBLE,
            context={"smallest_eigenvalue": smallest},
        )


def _check_size(size: int) -> None:
    if size < 1:
        raise ConfigError(f"no features: got {size}, expected at least 1.", code="toy.empty")
