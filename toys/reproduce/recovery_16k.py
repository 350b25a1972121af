"""``vsae reproduce recovery-16k``: the published protocol of 16 384 features, meant for a GPU.

The toy is SynthSAEBench-16k's law: 16 384 features in 768 dimensions. Ours is the recommended
recipe, with eight times the rows and the batch that it has on 512 features; beside it BatchTopK
with AuxK. Rows are drawn on the device as training asks for them, and none is kept. ``--share``
runs the first part of everything: that share of the descent that spreads the directions, and of
each phase's rows; from what it takes the cost of the whole follows.
"""

import argparse
import sys
import time

from toys.reproduce import arguments


def main(argv: list[str] | None = None) -> int:
    """Run the reproduction; returns the exit status."""
    parser = arguments.parser("recovery-16k", __doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--share", type=share, default=1.0, help="the share of the protocol to run (%(default)s)"
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where; auto: a GPU if there is one (%(default)s)",
    )
    options = parser.parse_args(argv)
    begun = time.monotonic()
    from toys.reproduce.recovery_16k_report import report

    result, text = report(options, begun)
    arguments.answer(options, result, text)
    return 0


def share(text: str) -> float:
    """An option's value as a number in (0, 1]."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number in (0, 1]: got {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
