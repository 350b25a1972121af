"""``vsae reproduce hsae``: is a hierarchical sparse autoencoder better, and is it a hierarchy?

The H-SAE against TopK, BatchTopK and Matryoshka dictionaries on toys whose hierarchy is known, on
word vectors whose hierarchy is WordNet's, and on the residual stream of a small language model: at
equal top width as published, and at equal total width, parameters, FLOPs and L0; reconstruction,
absorption, redundancy between two views, and whether parents and children are what they are called;
each beside its control. Every claim of the paper and every request of its reviewers gets a verdict
by a rule that was stated before the numbers.
"""

import argparse
import sys
import time

from toys.reproduce import arguments


def main(argv: list[str] | None = None) -> int:
    """Run the reproduction; returns the exit status."""
    parser = arguments.parser("hsae", __doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--steps", type=arguments.positive, help="updates per model (default: the reported run's)"
    )
    options = parser.parse_args(argv)
    begun = time.monotonic()
    from toys.reproduce.hsae_report import report

    result, text = report(options, begun)
    arguments.answer(options, result, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
