"""Which arms are compared for which claim, as run: at whatever L0 each arm came to."""

from collections.abc import Sequence

from toys.reproduce.part1_arms import ARMS
from toys.reproduce.part1_tables import select, values
from toys.reproduce.part1_verdicts import Claim, Pair, a26, headline, ordered

L1, DIAGONAL, CHOLESKY = ({"arm": name} for name in ("l1", "diagonal", "cholesky"))
ISOTROPIC = {"arm": "isotropic", "strength": ARMS["isotropic"].strength}
AS_WRITTEN = "linear codes"


def judge(rows: Sequence[dict]) -> list[Claim]:
    """Every claim on one family of cases; A25 needs equal L0 and is judged on the frontier."""
    claims = [
        headline(pairs(rows, ISOTROPIC, L1)),
        headline(pairs(rows, CHOLESKY, L1), "headline (learned Cholesky)"),
        a26(pairs(rows, CHOLESKY, ISOTROPIC)),
        a26(pairs(rows, CHOLESKY, DIAGONAL), "A26 (against learned scales)"),
        likelihood(rows, CHOLESKY, DIAGONAL, "A26 (ELBO, against learned scales)"),
    ]
    linear = [{"arm": f"linear_{prior}"} for prior in ("cholesky", "isotropic")]
    if select(rows, arm=linear[0]["arm"]):
        claims += [
            a26(pairs(rows, *linear), f"A26 ({AS_WRITTEN})"),
            likelihood(rows, *linear, f"A26 (ELBO, {AS_WRITTEN})"),
        ]
    return claims + recoveries(rows)


def likelihood(rows: Sequence[dict], arm: dict, base: dict, name: str) -> Claim:
    """Whether an arm explains held-out rows better, sparsity apart."""
    statement = "Learning a full covariance gives a lower negative ELBO on held-out rows."
    return ordered(name, statement, "nelbo", per_seed(rows, arm, base, "nelbo"), higher=False)


def recoveries(rows: Sequence[dict]) -> list[Claim]:
    """Whether a prior finds features: the document's TL;DR, and its comparison with the ℓ1 SAE.

    The true graph is not judged against the shuffled one: weights are drawn alike for all latents
    and a shuffled graph is the true one with latents renamed, so the two arms have one law.
    """
    wanted = (
        (
            "TL;DR",
            "A global-correlation prior (0.8) recovers features better than the isotropic one.",
            per_seed(rows, {"arm": "equicorrelated"}, ISOTROPIC, "mcc"),
        ),
        (
            "V-SAE features",
            "The isotropic V-SAE recovers features better than the ℓ1 SAE.",
            per_seed(rows, ISOTROPIC, L1, "mcc"),
        ),
    )
    return [ordered(name, text, "mcc", cases, higher=True) for name, text, cases in wanted]


def per_seed(
    rows: Sequence[dict], arm: dict, base: dict, metric: str
) -> dict[str, tuple[list, list]]:
    """A metric of arm and baseline on the same seeds, case by case."""
    cases = dict.fromkeys(row["case"] for row in rows)
    return {
        case: (
            values(select(rows, case=case, **arm), metric),
            values(select(rows, case=case, **base), metric),
        )
        for case in cases
    }


def pairs(rows: Sequence[dict], arm: dict, base: dict) -> list[Pair]:
    """MSE and L0 of arm and baseline on the same seeds, case by case."""
    mse, l0 = (per_seed(rows, arm, base, metric) for metric in ("mse", "l0"))
    return [Pair(case, mse[case], l0[case]) for case in mse]
