"""``vsae reproduce quickstart``: toys with ground truth, then a real language model.

(i) A one-seed slice of part 1: toy cases whose features are known. (ii) The residual stream after
block 2 of a 260 000-parameter story-telling model reading TinyStories: an ℓ1 SAE and V-SAEs under
five priors, all started from one first ℓ1 run, judged by what they explain at which sparsity and by
what the network loses when it reads reconstructions. Writes tables, figures with the data behind
each, the trained autoencoders, and one self-contained report.html.
"""

import argparse
import sys
import time

from toys.reproduce import arguments


def main(argv: list[str] | None = None) -> int:
    """Run the reproduction; returns the exit status."""
    parser = arguments.parser("quickstart", __doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    options = parser.parse_args(argv)
    begun = time.monotonic()
    from toys.reproduce.quickstart_report import report

    result, text = report(options, begun)
    arguments.answer(options, result, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
