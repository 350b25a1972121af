"""Which arms are compared for which claim, as run: at whatever L0 each arm came to."""

from collections.abc import Sequence

from toys.reproduce.part1_arms import ARMS, LARGE_BETA
from toys.reproduce.part1_tables import select, values
from toys.reproduce.part1_verdicts import Claim, Pair, a25, a26, headline, ordered

L1, DIAGONAL, CHOLESKY = ({"arm": name} for name in ("l1", "diagonal", "cholesky"))
ISOTROPIC = {"arm": "isotropic", "strength": ARMS["isotropic"].strength}
LARGE = {"arm": "isotropic", "strength": LARGE_BETA}
AS_WRITTEN = "linear codes"


def judge(rows: Sequence[dict]) -> list[Claim]:
    """Every claim on one family of cases."""
    claims = [
        headline(pairs(rows, ISOTROPIC, L1)),
        headline(pairs(rows, CHOLESKY, L1), "headline (learned Cholesky)"),
        a25(pairs(rows, LARGE, L1), pairs(rows, LARGE, ISOTROPIC)),
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
    """Whether structure finds features: the document's TL;DR, and the true graph's own question.

    A graph without edges (cases 1 and 2) is no structure, and shuffling it no control.
    """
    joined = [row for row in rows if row["case"] not in ("case1", "case2")]
    wanted = (
        (
            "TL;DR",
            "A global-correlation prior (0.8) recovers features better than the isotropic one.",
            per_seed(rows, {"arm": "equicorrelated"}, ISOTROPIC, "mcc"),
        ),
        (
            "graph",
            "The true graph recovers features better than a shuffled one (cases 3 to 6).",
            per_seed(joined, {"arm": "graph"}, {"arm": "shuffled"}, "mcc"),
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
