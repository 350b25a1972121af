"""``vsae reproduce part1``: document A's six toy cases, every prior against the ℓ1 SAE.

Five seeds, 3 000 steps, document A's dense data; about 4 minutes on 2 free cores. Settings, the
same for all arms: a two-layer ReLU encoder (64 hidden units), unit-norm atoms, Adam at 1e-3 decayed
linearly to 0 over the last fifth of the steps, batches of 256 of 8 192 training rows, 4 096 held-
out rows, β warmed up over the first tenth. V-SAEs have σ = 0.1, the toys' own noise, and β = 1:
"MSE + α·KL", MSE summed over neurons, with α = 2σ²β = 0.02. The ℓ1 SAE has λ = 0.1. Codes of V-SAEs
are rectified Gaussians, relu(z), with prior mean -1, so that L0 counts exact zeros; two further
arms, on dense data, have document A's linear codes, where active means |mean| > τ = 0.1, and its
isotropic prior has learned scales, which unit-norm atoms take from it.

Structured priors know the truth about *features*, and are over *latents*: latent i < F stands for
feature i, the spare ones are independent of everything.
"""

import argparse
import sys
import time

from toys.reproduce import arguments

CASES = tuple(f"case{n}" for n in range(1, 7))


def main(argv: list[str] | None = None) -> int:
    """Run the reproduction; returns the exit status."""
    parser = arguments.parser("part1", __doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--data",
        choices=("gaussian", "copula", "both"),
        default="gaussian",
        help="dense Gaussian codes as written, sparse codes, or both (%(default)s)",
    )
    parser.add_argument(
        "--steps", type=arguments.positive, help="updates per model (default: 3 000)"
    )
    parser.add_argument(
        "--frontier",
        action="store_true",
        help="sweep every arm's strength for K = F and K = 32 and compare at matched L0;"
        " slow: about three quarters of an hour on 2 cores",
    )
    options = parser.parse_args(argv)
    begun = time.monotonic()
    if options.frontier:
        from toys.reproduce.part1_frontier import report
    else:
        from toys.reproduce.part1_report import report
    result, text = report(options, settings(options), begun)
    arguments.answer(options, result, text)
    return 0


def settings(options: argparse.Namespace) -> dict:
    """What a run is made of; ``--smoke`` makes it tiny."""
    smoke = options.smoke
    return {
        "data": ["gaussian", "copula"] if options.data == "both" else [options.data],
        "cases": list(CASES),
        "seeds": list(range(options.seeds or (2 if smoke else 5))),
        "steps": options.steps or (20 if smoke else 3000),
        "threads": options.threads,
        "smoke": smoke,
    }


if __name__ == "__main__":
    sys.exit(main())
