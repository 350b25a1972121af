"""The parts of ``vsae reproduce part4``, by name: a new one is a line here and in ``PARTS``."""

from toys.reproduce.part4_layered import LAYERED
from toys.reproduce.part4_modadd import MODADD
from toys.reproduce.part4_pareto import PARETO
from toys.reproduce.part4_part import Part
from toys.reproduce.part4_probe import PROBE
from toys.reproduce.part4_sentences_plan import SENTENCES
from toys.reproduce.part4_tokens_plan import TOKENS

PLANS: dict[str, Part] = {
    "tokens": TOKENS,
    "sentences": SENTENCES,
    "pareto": PARETO,
    "layered": LAYERED,
    "modadd": MODADD,
    "probe": PROBE,
}
"""In the order of the report."""
