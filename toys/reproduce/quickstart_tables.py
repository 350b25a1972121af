"""The quickstart's tables: every arm, arms at matched sparsity, and what numbers mean."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from toys.reproduce.part1_matched import error_at
from toys.reproduce.quickstart_arms import L1, Trained
from toys.reproduce.quickstart_scores import Score, SparseScore
from toys.reproduce.quickstart_structure import SHUFFLED
from toys.reproduce.tables import Cell, Table

BASES = {L1: "÷ ℓ1", "isotropic": "÷ isotropic", SHUFFLED: "÷ shuffled"}


@dataclass(frozen=True, eq=False)
class Results:
    """What part (ii) found.

    Args:
        first: Score of the first ℓ1 run.
        runs: Every arm at every strength.
        scores: Theirs, in the same order.
        references: Ablations and PCA, by name.
        pca: ``(d + 1,)`` explained variance of PCA with 0 … d components.
    """

    first: SparseScore
    runs: Sequence[Trained]
    scores: Sequence[SparseScore]
    references: dict[str, Score]
    pca: Tensor

    @property
    def pairs(self) -> list[tuple[Trained, SparseScore]]:
        """Runs with their scores."""
        return list(zip(self.runs, self.scores, strict=True))

    @property
    def arms(self) -> list[str]:
        """Names of arms, in order."""
        return list(dict.fromkeys(run.arm for run in self.runs))

    def of(self, arm: str) -> list[tuple[Trained, SparseScore]]:
        """An arm's runs with their scores."""
        return [pair for pair in self.pairs if pair[0].arm == arm]

    def middle(self, arm: str) -> tuple[Trained, SparseScore]:
        """The run of an arm at its middle strength, which figures of one run per arm show."""
        found = self.of(arm)
        return found[len(found) // 2]


def arms_table(results: Results) -> Table:
    """Every run: strength, sparsity, variance, loss, information."""
    lines = []
    for run, score in results.pairs:
        point = score.kl is None
        lines.append(
            {
                "arm": run.arm,
                "λ": run.strength if point else None,
                "σ": None if point else run.strength,
                "α = 2σ²": None if point else 2 * run.strength**2,
            }
            | score_cells(score)
            | {
                "EV of PCA, k = L0": float(results.pca[min(round(score.l0), len(results.pca) - 1)]),
                "never active, %": 100 * score.dead,
                "active units, %": 100 * score.active_units,
                "KL, nats/row": score.kl,
            }
        )
    return Table("Held-out activations, every arm and strength", lines)


def score_cells(score: Score) -> dict[str, Cell]:
    """The columns that any reconstruction has."""
    return {
        "L0": score.l0,
        "explained variance": score.explained_variance,
        "CE, nats/token": score.ce,
        "CE recovered (mean ablation = 0)": score.ce_recovered_mean,
        "CE recovered (zero ablation = 0)": score.ce_recovered_zero,
    }


def references_table(results: Results) -> Table:
    """What the numbers are to be compared with."""
    rows = [{"reference": name} | score_cells(s) for name, s in results.references.items()]
    rows = [{("numbers per row" if k == "L0" else k): v for k, v in row.items()} for row in rows]
    return Table("Reference points: ablations, and PCA fitted on the training rows", rows)


def matched_table(results: Results) -> Table:
    """Unexplained variance and lost CE, over a baseline's frontier at the same L0."""
    lines = []
    for run, score in results.pairs:
        if run.arm == L1:
            continue
        line: dict[str, Cell] = {"arm": run.arm, "σ": run.strength, "L0": score.l0}
        for quantity in ("unexplained", "CE lost"):
            line[quantity] = loss_of(score, quantity)
            for base, name in BASES.items():
                ratio = ratio_at(results, run, score, base, quantity)
                line[f"{quantity} {name}"] = ratio
        lines.append(line)
    return Table("The same at matched L0: below 1 is better than that baseline", lines)


def ratio_at(
    results: Results, run: Trained, score: SparseScore, base: str, quantity: str
) -> float | None:
    """A run's loss over the baseline's at the same L0; ``None`` outside its range of L0."""
    if run.arm == base:
        return None
    points = [(s.l0, loss_of(s, quantity)) for _, s in results.of(base)]
    at = error_at(points, score.l0)
    return None if at is None else loss_of(score, quantity) / at


def loss_of(score: Score, quantity: str) -> float:
    """``unexplained``: 1 − explained variance; ``CE lost``: 1 − CE recovered, from the mean."""
    if quantity == "unexplained":
        return 1 - score.explained_variance
    return 1 - score.ce_recovered_mean


def settings_table(values: dict[str, Cell]) -> Table:
    """Names and values."""
    return Table("Settings and scales", [{"setting": k, "value": v} for k, v in values.items()])
