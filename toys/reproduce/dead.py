"""``vsae reproduce dead``: what is done about dead latents, and what kills them.

TopK SAEs with and without AuxK, resampling and aligned encoders, and V-SAEs with one scale or one
per latent, on a copula toy and on the residual stream of a 260 000-parameter language model: dead
latents, explained variance, L0. Then the collapse of variational TopK, in which living latents
are a fixed multiple of the active ones, at several numbers of active latents, and its
explanation.
"""

import argparse
import sys
import time

from toys.reproduce import arguments


def main(argv: list[str] | None = None) -> int:
    """Run the reproduction; returns the exit status."""
    parser = arguments.parser("dead", __doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    options = parser.parse_args(argv)
    begun = time.monotonic()
    from toys.reproduce.dead_report import report

    result, text = report(options, begun)
    arguments.answer(options, result, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
