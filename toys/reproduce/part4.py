"""``vsae reproduce part4``: what structured priors buy in a crosscoder.

``tokens``: all layers of a small language model, a row per token; none, ℓ1, isotropic, a graph over
latents and the same graph shuffled, deterministic and variational, at one L0 and as many updates.
``sentences``: what document B did: a graph over *rows*, with random batches and with batches of
edges. ``pareto``: the graph with more and less ℓ1. ``layered``: toys of several layers whose
features are known. ``modadd``: networks that add, whose Fourier planes are true blocks.
``probe``: latents switched off in the network. Every job leaves its result in the folder's
``jobs``, by its settings: a run that was interrupted, or is repeated with other parts or more
seeds, computes only what is not there. What counts as better is a rule stated before the numbers.
"""

import argparse
import sys
import time

from toys.reproduce import arguments
from toys.reproduce.part4_settings import PARTS


def main(argv: list[str] | None = None) -> int:
    """Run the reproduction; returns the exit status."""
    parser = arguments.parser("part4", __doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--part",
        action="append",
        choices=PARTS,
        help="a part to run; may be given several times (default: all)",
    )
    options = parser.parse_args(argv)
    begun = time.monotonic()
    from toys.reproduce.part4_report import report

    result, text = report(options, begun)
    arguments.answer(options, result, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
