"""Laws of the size of an active feature, each a map of a standard normal variable."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.special import ndtr, ndtri

from priors.errors import ConfigError


class MagnitudeLaw(ABC):
    """A law on positive reals; *the following method makes one*.

    Written as an increasing map of a standard normal, so that a Gaussian copula can correlate
    magnitudes of any law.
    """

    @abstractmethod
    def from_normal(self, h: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The magnitude whose quantile is that of ``h`` under ``N(0, 1)``."""

    def moments(self) -> tuple[float, float]:
        """Its mean and mean square, by quadrature of :meth:`from_normal` over 12 deviations."""
        nodes, weights = np.polynomial.legendre.leggauss(128)
        nodes, weights = 12 * nodes, weights * np.exp(-((12 * nodes) ** 2) / 2)
        size = self.from_normal(torch.from_numpy(nodes))
        weight = torch.from_numpy(weights / weights.sum())
        return (weight @ size).item(), (weight @ size**2).item()


@dataclass(frozen=True, kw_only=True)
class ConstantMagnitude(MagnitudeLaw):
    """Always the same size.

    Args:
        value: The size, in activation units.

    Example:
        >>> ConstantMagnitude(value=2.0).from_normal(torch.tensor([-1.0, 3.0])).tolist()
        [2.0, 2.0]
    """

    value: float = 1.0

    def __post_init__(self) -> None:
        _check(self.value > 0, f"a constant of {self.value}", "a value > 0")

    def from_normal(self, h: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return torch.full_like(h, self.value)


@dataclass(frozen=True, kw_only=True)
class UniformMagnitude(MagnitudeLaw):
    """Uniform between two bounds.

    Args:
        low: Lower bound, ``>= 0``.
        high: Upper bound, ``> low``.

    Example:
        >>> UniformMagnitude(low=1.0, high=3.0).from_normal(torch.tensor([0.0])).tolist()
        [2.0]
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        _check(
            0 <= self.low < self.high < math.inf,
            f"bounds {self.low} and {self.high}",
            "0 <= low < high",
        )

    def from_normal(self, h: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return self.low + (self.high - self.low) * ndtr(h)


@dataclass(frozen=True, kw_only=True)
class PositiveNormal(MagnitudeLaw):
    r"""A normal variable given that it is positive; with ``loc = 0``, the folded (half) normal.

    Quantile, in the upper tail so that large values keep their digits:
    :math:`μ - s\,Φ^{-1}\bigl(Φ(-h)\,Φ(μ/s)\bigr)`.

    Args:
        loc: ``μ`` of the normal before conditioning.
        scale: ``s`` of the normal before conditioning.

    Example:
        >>> PositiveNormal(loc=0.0, scale=1.0).from_normal(torch.tensor([0.0]))  # the median
        tensor([0.6745])
    """

    loc: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        # Below -8 scales the conditioning event itself underflows the formula's precision.
        good = 0 < self.scale < math.inf and -8 <= self.loc / self.scale < math.inf
        _check(good, f"loc {self.loc}, scale {self.scale}", "scale > 0 and loc >= -8 scale")

    def from_normal(self, h: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        positive = ndtr(torch.tensor(self.loc / self.scale, dtype=torch.float64)).item()
        upper = torch.special.erfc(h / 2**0.5) / 2  # torch's ndtr(-h) is 0 beyond 8.3
        return self.loc - self.scale * ndtri(upper * positive)


@dataclass(frozen=True, kw_only=True)
class LogNormalMagnitude(MagnitudeLaw):
    """``exp(N(loc, scale²))``: heavy-tailed.

    Args:
        loc: Mean of the logarithm.
        scale: Standard deviation of the logarithm.

    Example:
        >>> LogNormalMagnitude(loc=0.0, scale=0.5).from_normal(torch.tensor([0.0])).tolist()
        [1.0]
    """

    loc: float = 0.0
    scale: float = 0.5

    def __post_init__(self) -> None:
        good = 0 < self.scale < math.inf and math.isfinite(self.loc)
        _check(good, f"loc {self.loc}, scale {self.scale}", "a finite loc and scale > 0")

    def from_normal(self, h: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return (self.loc + self.scale * h).exp()


def _check(good: bool, got: str, expected: str) -> None:
    if not good:
        raise ConfigError(
            f"not a law of magnitudes: got {got}, expected {expected}.", code="toy.magnitude"
        )
