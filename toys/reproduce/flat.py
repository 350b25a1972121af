"""``vsae reproduce flat``: the flat architectures of the field, compared at matched sparsity.

Every architecture is trained at several strengths on (a) a copula toy whose features are known and
(b) the residual stream after block 2 of a 260 000-parameter story-telling model: same rows in the
same order, same width, same number of steps, same normaliser, unit atoms. The learning rate is
chosen per architecture, by its own training objective, on a seed of its own. Metrics are of held-
out rows, in evaluation mode, interpolated at common L0 inside each architecture's sweep and never
beyond it. Intervals are over seeds; what counts as better is a rule stated before the numbers.
"""

import argparse
import sys
import time

from toys.reproduce import arguments


def main(argv: list[str] | None = None) -> int:
    """Run the reproduction; returns the exit status."""
    parser = arguments.parser("flat", __doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--steps", type=arguments.positive, help="updates per model (default: the reported run's)"
    )
    parser.add_argument(
        "--toy-latents",
        type=arguments.positive,
        help="latents on the toy, of 64 features (default: 128)",
    )
    options = parser.parse_args(argv)
    begun = time.monotonic()
    from toys.reproduce.flat_report import report

    result, text = report(options, begun)
    arguments.answer(options, result, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
