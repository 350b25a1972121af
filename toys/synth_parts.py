"""What a synthetic benchmark says of each feature: how often it fires, and how strongly."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from priors.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ZipfRates:
    r"""Firing rates that fall as a power of the rank, mapped linearly onto given bounds.

    .. math:: p_i = p_{\min} + (p_{\max} - p_{\min})
        \frac{i^{-α} - F^{-α}}{1 - F^{-α}}, \qquad i = 1 … F

    Args:
        exponent: ``α > 0``.
        low: Rate of the rarest feature, the last.
        high: Rate of the most frequent, the first.

    Raises:
        ConfigError: ``toy.rate`` unless ``0 < low < high < 1`` and the exponent is positive.

    Example:
        >>> [round(p, 4) for p in ZipfRates(exponent=1.0, low=0.1, high=0.4).of(3).tolist()]
        [0.4, 0.175, 0.1]
    """

    exponent: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not (0 < self.low < self.high < 1 and 0 < self.exponent < math.inf):
            raise ConfigError(
                f"no Zipf rates: got {self.low} to {self.high} with exponent {self.exponent}, "
                "expected 0 < low < high < 1 and an exponent > 0.",
                code="toy.rate",
            )

    def of(self, features: int) -> Float[Tensor, " F"]:
        """The rates of ``F`` features, in falling order, float64."""
        if features < 2:
            raise ConfigError(
                f"rates fall from one feature to another: got {features}, expected at least 2.",
                code="toy.size",
            )
        power = torch.arange(1, features + 1, dtype=torch.float64) ** -self.exponent
        return self.low + (self.high - self.low) * (power - power[-1]) / (1 - power[-1])


class PerFeature(ABC):
    """A number for each feature, drawn once per toy; *the following method makes one*."""

    @abstractmethod
    def draw(self, features: int, generator: Generator) -> Float[Tensor, " F"]:
        """The numbers of ``F`` features, float32 whatever the default dtype."""


@dataclass(frozen=True, kw_only=True)
class LinearlySpaced(PerFeature):
    """From one number at the first feature to another at the last, in equal steps.

    Args:
        start: Of the first feature, ``>= 0``, in activation units.
        stop: Of the last.

    Raises:
        ConfigError: ``toy.scale`` for a negative number.

    Example:
        >>> LinearlySpaced(start=5.0, stop=4.0).draw(3, torch.Generator()).tolist()
        [5.0, 4.5, 4.0]
    """

    start: float
    stop: float

    def __post_init__(self) -> None:
        _check((self.start, self.stop), f"from {self.start} to {self.stop}")

    def draw(self, features: int, generator: Generator) -> Float[Tensor, " F"]:
        device = generator.device
        return torch.linspace(self.start, self.stop, features, device=device, dtype=torch.float32)


@dataclass(frozen=True, kw_only=True)
class FoldedNormal(PerFeature):
    """Of each feature, the absolute value of a normal variable.

    Args:
        loc: Mean of the normal, ``>= 0``, in activation units.
        scale: Its standard deviation, ``>= 0``.

    Raises:
        ConfigError: ``toy.scale`` for a negative number.

    Example:
        >>> FoldedNormal(loc=0.5, scale=0.0).draw(2, torch.Generator()).tolist()
        [0.5, 0.5]
    """

    loc: float
    scale: float

    def __post_init__(self) -> None:
        _check((self.loc, self.scale), f"loc {self.loc} and scale {self.scale}")

    def draw(self, features: int, generator: Generator) -> Float[Tensor, " F"]:
        normal = torch.empty(features, dtype=torch.float32, device=generator.device)
        return (self.loc + self.scale * normal.normal_(generator=generator)).abs()


@dataclass(frozen=True, kw_only=True)
class LowRankCopula:
    r"""A Gaussian copula of few common factors: :math:`C = LL^\top + \mathrm{diag}(1 - |ℓ_i|^2)`.

    The loadings :math:`L ∼ N(0, s^2)` are drawn once per toy.

    Args:
        rank: Number of common factors, ``r >= 1``.
        scale: ``s``, positive; a pair's correlation has the standard deviation :math:`s^2\sqrt r`.

    Raises:
        ConfigError: ``toy.infeasible_correlation``, on construction if no such copula is meant,
            from :meth:`draw` if a feature's loadings have a norm of 1 or more.

    Example:
        >>> LowRankCopula(rank=8, scale=0.1).draw(5, torch.Generator()).shape
        torch.Size([5, 8])
    """

    rank: int
    scale: float

    def __post_init__(self) -> None:
        if self.rank < 1 or not 0 < self.scale < math.inf:
            raise ConfigError(
                f"no copula of rank {self.rank} and scale {self.scale}: expected a rank >= 1 and "
                "a scale > 0. Independent features have no copula.",
                code="toy.infeasible_correlation",
            )

    def draw(self, features: int, generator: Generator) -> Float[Tensor, "F r"]:
        """The loadings ``L``, float32."""
        shape, device = (features, self.rank), generator.device
        normal = torch.empty(shape, dtype=torch.float32, device=device)
        loadings = self.scale * normal.normal_(generator=generator)
        largest = loadings.norm(dim=1).max().item()
        if largest >= 1:
            raise ConfigError(
                f"a feature's common factors have the variance {largest**2}: expected < 1, of the "
                "1 it has in all. Lower the rank or the scale.",
                code="toy.infeasible_correlation",
                context={"rank": self.rank, "scale": self.scale},
            )
        return loadings


def _check(numbers: tuple[float, ...], got: str) -> None:
    if not all(0 <= number < math.inf for number in numbers):
        raise ConfigError(
            f"a size per feature is not negative: got {got}, expected numbers >= 0.",
            code="toy.scale",
        )
