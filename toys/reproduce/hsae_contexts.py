"""``vsae reproduce hsae-contexts``: the text on which parents and children of an H-SAE fire.

Trains H-SAEs on the residual stream after block 2 of a 260 000-parameter story-telling model, or
reads a saved one, and writes one self-contained page, contexts.html: the strongest contexts of
parents and, beneath each, of its children, in held-out stories (figures 1 and 7 of the paper), for
parents chosen by a stated rule and for parents drawn at random; and held-out tokens taken apart
into parents and children, beside a flat SAE (figure 4). The data behind the page stands beside it.
"""

import argparse
import sys
import time
from pathlib import Path

from toys.reproduce import arguments


def main(argv: list[str] | None = None) -> int:
    """Run the reproduction; returns the exit status."""
    parser = arguments.parser("hsae-contexts", __doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--run", type=Path, help="read the H-SAE saved in this folder (vsae train) and train none"
    )
    parser.add_argument(
        "--layer", type=int, help="the residual stream after this block (default: 2)"
    )
    parser.add_argument(
        "--parents", type=arguments.positive, help="parents chosen by the rule (default: 12)"
    )
    options = parser.parse_args(argv)
    begun = time.monotonic()
    from toys.reproduce.hsae_contexts_report import report

    result, text = report(options, begun)
    arguments.answer(options, result, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
