"""Schedules: pure functions of the step, as values that print and compare."""

from dataclasses import dataclass

from priors.errors import ConfigError


@dataclass(frozen=True)
class Constant:
    """Always ``value``."""

    value: float = 1.0

    def __call__(self, step: int) -> float:
        return self.value


@dataclass(frozen=True)
class LinearWarmup:
    """From ``value/steps`` in a straight line to ``value``, reached at step ``steps - 1``.

    KL warm-up (``beta=LinearWarmup(1000)``) keeps latents from collapsing before they are used.

    Example:
        >>> LinearWarmup(4)(0), LinearWarmup(4)(1), LinearWarmup(4)(9)
        (0.25, 0.5, 1.0)

    Source:
        Sønderby et al. (2016), *Ladder Variational Autoencoders*, §2.3.
    """

    steps: int
    value: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(
                f"a warm-up takes at least one step: got {self.steps}. Use Constant.",
                code="schedule.steps",
            )

    def __call__(self, step: int) -> float:
        return self.value * min(1.0, (step + 1) / self.steps)


@dataclass(frozen=True)
class CubicWarmup:
    r"""From above 0 along a cubic to ``value``, reached at step ``steps - 1``.

    .. math:: \min(1, (t + 1) / T)^3

    Counting from ``t + 1`` makes the first factor positive: the first update is not lost.

    Example:
        >>> CubicWarmup(2)(0), CubicWarmup(2)(1), CubicWarmup(2)(9)
        (0.125, 1.0, 1.0)

    Source:
        *Compositional Hierarchies* (tiered HSAE, under review), §5.
    """

    steps: int
    value: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(
                f"a warm-up takes at least one step: got {self.steps}. Use Constant.",
                code="schedule.steps",
            )

    def __call__(self, step: int) -> float:
        return self.value * min(1.0, (step + 1) / self.steps) ** 3


@dataclass(frozen=True)
class LinearDecay:
    """``value`` until ``start``, then in a straight line to 0 at ``end``."""

    start: int
    end: int
    value: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ConfigError(
                f"a decay needs 0 <= start < end: got {self.start} and {self.end}.",
                code="schedule.steps",
            )

    def __call__(self, step: int) -> float:
        return self.value * min(1.0, max(0.0, (self.end - step) / (self.end - self.start)))
