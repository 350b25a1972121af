"""``vsae reproduce ladder``: do levels become coarse, and is it worth having them?

On toys with known truth (clusters inside clusters, a second layer of the same, rings as toy
manifolds): ladders of both readings, with and without consistency, with a moving or a stopped view,
with a graph prior on the fine level and its shuffled twin, the variational ladder, and a crosscoder
of ladders, against flat SAEs of as many latents, all at one L0. Recovery of fine features and of
coarse clusters, and the read-outs of levels beside their null models, on held-out rows.
"""

import argparse
import sys
import time

from toys.reproduce import arguments


def main(argv: list[str] | None = None) -> int:
    """Run the reproduction; returns the exit status."""
    parser = arguments.parser("ladder", __doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    options = parser.parse_args(argv)
    begun = time.monotonic()
    from toys.reproduce.ladder_report import report

    result, text = report(options, begun)
    arguments.answer(options, result, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
