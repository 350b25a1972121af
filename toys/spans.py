"""In which layers features are present: spans that begin at one layer and end at another."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Generator, Tensor

from priors.errors import ConfigError


class Spans(ABC):
    """A law of the layers of each feature; *the following method makes one*."""

    @abstractmethod
    def draw(self, features: int, layers: int, generator: Generator) -> Bool[Tensor, "F n"]:
        """True where a feature is present; of each feature a contiguous run, never empty."""


@dataclass(frozen=True, kw_only=True)
class EveryLayer(Spans):
    """All features in all layers.

    Example:
        >>> EveryLayer().draw(2, 3, torch.Generator()).all().item()
        True
    """

    def draw(self, features: int, layers: int, generator: Generator) -> Bool[Tensor, "F n"]:
        return torch.ones(features, layers, dtype=torch.bool)


@dataclass(frozen=True, kw_only=True)
class RandomSpans(Spans):
    """A feature appears at one layer and vanishes after another, all such runs equally likely.

    Args:
        least: Fewest layers of a feature.

    Raises:
        ConfigError: ``toy.span``, on drawing, unless ``1 <= least <= layers``.

    Example:
        >>> RandomSpans(least=2).draw(100, 4, torch.Generator()).sum(1).unique().tolist()
        [2, 3, 4]
    """

    least: int = 1

    def draw(self, features: int, layers: int, generator: Generator) -> Bool[Tensor, "F n"]:
        if not 1 <= self.least <= layers:
            raise ConfigError(
                f"no span of {self.least} of {layers} layers: expected 1 <= least <= layers.",
                code="toy.span",
                context={"least": self.least, "layers": layers},
            )
        runs = [(a, b) for a in range(layers) for b in range(a + self.least, layers + 1)]
        chosen = torch.tensor(runs)[torch.randint(len(runs), (features,), generator=generator)]
        layer = torch.arange(layers)
        return (layer >= chosen[:, :1]) & (layer < chosen[:, 1:])


@dataclass(frozen=True, kw_only=True)
class TwoModels(Spans):
    """Model diffing: "layers" are two models; features are shared, or of one of them alone.

    Numbers are exact, to the nearest feature; which features they are is random.

    Args:
        first: Share of the features that only the first model has.
        second: Share that only the second has.

    Raises:
        ConfigError: ``toy.span`` unless shares are probabilities of sum <= 1, and on drawing for
            other than two layers.

    Example:
        >>> spans = TwoModels(first=0.2, second=0.1).draw(10, 2, torch.Generator())
        >>> spans.all(1).sum().item(), spans.sum(0).tolist()
        (7, [9, 8])
    """

    first: float
    second: float

    def __post_init__(self) -> None:
        if not (self.first >= 0 and self.second >= 0 and self.first + self.second <= 1):
            raise ConfigError(
                f"shares of features of one model alone: got {self.first} and {self.second}, "
                "expected non-negative shares of sum <= 1.",
                code="toy.span",
            )

    def draw(self, features: int, layers: int, generator: Generator) -> Bool[Tensor, "F n"]:
        if layers != 2:
            raise ConfigError(
                f"two models are two layers: got {layers}. Use RandomSpans for more.",
                code="toy.span",
                context={"layers": layers},
            )
        order = torch.randperm(features, generator=generator)
        first, second = round(self.first * features), round(self.second * features)
        present = torch.ones(features, 2, dtype=torch.bool)
        present[order[:first], 1] = False
        present[order[first : first + second], 0] = False
        return present
