"""Schedules: pure functions of the step, as values that print and compare."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Constant:
    """Always ``value``."""

    value: float = 1.0

    def __call__(self, step: int) -> float:
        return self.value


@dataclass(frozen=True)
class LinearWarmup:
    """From 0 to ``value`` in a straight line over the first ``steps`` steps, then ``value``.

    KL warm-up (``beta=LinearWarmup(1000)``) keeps latents from collapsing before they are used.

    Example:
        >>> LinearWarmup(4)(0), LinearWarmup(4)(1), LinearWarmup(4)(9)
        (0.25, 0.5, 1.0)

    Source:
        Sønderby et al. (2016), *Ladder Variational Autoencoders*, §2.3.
    """

    steps: int
    value: float = 1.0

    def __call__(self, step: int) -> float:
        return self.value * min(1.0, (step + 1) / self.steps)


@dataclass(frozen=True)
class LinearDecay:
    """``value`` until ``start``, then in a straight line to 0 at ``end``."""

    start: int
    end: int
    value: float = 1.0

    def __call__(self, step: int) -> float:
        return self.value * min(1.0, max(0.0, (self.end - step) / (self.end - self.start)))
