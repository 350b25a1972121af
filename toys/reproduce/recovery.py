"""``vsae reproduce recovery``: which methods find the true features, and what structure adds.

Eleven parts. ``data-a``: 512 features in 96 dimensions with exclusive trees, rare and coherent;
ours with no, true, learned and shuffled structure against the field's architectures. ``moves``:
ours with and without moves between latents, there and on copulas. ``ablations``: ours without
its slab, a noise per row, amplitudes that spread as they may, or splits that data suggest.
``families``: copulas, trees, noises, magnitudes and subspaces, fewer and more latents than
features. ``gates``: pairs, blocks and trees of these, told to the gates before and after features
are found. ``absorption``: toys on which the absorbed and the hedged solution is known.
``inference``: the true dictionary, and codes by iteration or by encoders that learn it.
``stories``: every layer of a 260 000-parameter language model, explained variance and loss
recovered at matched L0, stability across seeds, evidence of amplitude laws. ``calibration``:
firing probabilities and credible intervals against the truth. ``words``: vectors of nouns, and
the concepts of WordNet as the truth about them. ``modadd``: transformers that add modulo 59, whose
Fourier planes are true blocks and rings. Every job leaves its result in the folder's ``jobs``, by
its settings: a run that was interrupted, or is repeated with other parts or more seeds, computes
only what is not there. Bars and what counts as better are rules stated before the numbers.
"""

import argparse
import sys
import time

from toys.reproduce import arguments


def main(argv: list[str] | None = None) -> int:
    """Run the reproduction; returns the exit status."""
    parser = arguments.parser("recovery", __doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--part",
        action="append",
        choices=(
            "data-a",
            "moves",
            "ablations",
            "families",
            "gates",
            "absorption",
            "inference",
            "stories",
            "calibration",
            "words",
            "modadd",
        ),
        help="a part to run; may be given several times (default: all)",
    )
    options = parser.parse_args(argv)
    begun = time.monotonic()
    from toys.reproduce.recovery_report import report

    result, text = report(options, begun)
    arguments.answer(options, result, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
