"""What can be drawn: numbers that are finite."""

import math
from collections.abc import Iterable

from vsae.errors import ConfigError


def require_finite(values: Iterable[float | int], plot: str) -> list[float]:
    """The values as floats; a NaN would leave a hole in a picture without a word.

    Raises:
        ConfigError: ``plot.nonfinite`` with the first offending value; ``plot.empty`` without any.
    """
    numbers = [float(value) for value in values]
    if not numbers:
        raise ConfigError(f"{plot}: nothing to draw: got 0 values.", code="plot.empty")
    for place, value in enumerate(numbers):
        if not math.isfinite(value):
            raise ConfigError(
                f"{plot}: value {place} cannot be drawn: got {value}, expected a finite number.",
                code="plot.nonfinite",
                context={"plot": plot, "place": place},
            )
    return numbers
