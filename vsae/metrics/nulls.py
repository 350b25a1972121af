"""A statistic beside the values it takes when there is nothing to be found."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from vsae.errors import ConfigError


@dataclass(frozen=True)
class AgainstNull:
    """A value, and its null model's mean and 95 % range over ``draws`` draws.

    nan where the statistic is not defined.
    """

    value: float
    null_mean: float
    null_low: float
    null_high: float
    draws: int

    @property
    def beyond(self) -> bool:
        """Whether the value lies outside the null's 95 % range."""
        return self.value < self.null_low or self.value > self.null_high


def against_null(
    value: float, null: Callable[[Generator], float], *, draws: int, generator: Generator
) -> AgainstNull:
    """A value beside draws of the statistic under its null model.

    Args:
        value: As found.
        null: The statistic after one random destruction of what it measures.
        draws: How many; at least 20, as quantiles of fewer say nothing.
        generator: The source of randomness, on the CPU; the global one is never used.

    Raises:
        ConfigError: ``nulls.draws``.

    Example:
        >>> found = against_null(
        ...     3.0, lambda g: torch.rand(1, generator=g).item(), draws=99, generator=Generator()
        ... )
        >>> found.beyond, 0.3 < found.null_mean < 0.7
        (True, True)
    """
    if draws < 20:
        raise ConfigError(
            f"a null model of {draws} draws has no 95 % range: expected at least 20.",
            code="nulls.draws",
        )
    drawn = torch.tensor([float(null(generator)) for _ in range(draws)], dtype=torch.float64)
    low, high = drawn.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return AgainstNull(float(value), float(drawn.mean()), low, high, draws)


def dealt_out(values: Tensor, generator: Generator) -> Tensor:
    """The rows of ``values`` in a random order."""
    return values[torch.randperm(len(values), generator=generator).to(values.device)]
