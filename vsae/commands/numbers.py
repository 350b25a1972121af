"""Numbers as options: refused at the command line, not in the middle of a run; and as results."""

import argparse
import math


def positive_int(text: str) -> int:
    """A whole number above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0: got {text}")
    return value


def positive_float(text: str) -> float:
    """A finite number above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a finite number above 0: got {text}")
    return value


def share(text: str) -> float:
    """A number from 0 to below 1."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a share, 0 <= share < 1: got {text}")
    return value


def positive_ints(text: str) -> tuple[int, ...]:
    """Whole numbers above 0, separated by commas."""
    return tuple(positive_int(part) for part in text.split(","))


def shown(value: int | float) -> str:
    """Counts in full, measurements to four digits.

    Example:
        >>> shown(20_000), shown(0.123456)
        ('20000', '0.1235')
    """
    return f"{value}" if isinstance(value, int) else f"{value:.4g}"
