"""The parts of ``vsae reproduce part4``, by name: a new one is a line here and in ``PARTS``."""

from toys.reproduce.part4_part import Part

PLANS: dict[str, Part] = {}
"""In the order of the report."""
