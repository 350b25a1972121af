"""``vsae reproduce tiered``: autoencoders in tiers that train, and why the published one did not.

On the residual stream of a 260 000-parameter language model, rescaled to the norm at which the
tiered HSAE never completed a step: ours over its whole training (no value that is not finite,
active latents in every tier, allocation, learned scales); what one tier says of the next, with
controls; the published learned weights, and where they go; the published settings, one at a time
and in several number formats, and which of them fail; flat SAEs at equal width and L0.
"""

import argparse
import sys
import time

from toys.reproduce import arguments


def main(argv: list[str] | None = None) -> int:
    """Run the reproduction; returns the exit status."""
    parser = arguments.parser("tiered", __doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    options = parser.parse_args(argv)
    begun = time.monotonic()
    from toys.reproduce.tiered_report import report

    result, text = report(options, begun)
    arguments.answer(options, result, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
