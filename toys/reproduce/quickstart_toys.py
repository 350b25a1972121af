"""Part (i) of the quickstart: one seed of a few toy cases whose features are known."""

from collections.abc import Sequence

from tqdm import tqdm

from toys.reproduce.part1_arms import ARMS
from toys.reproduce.part1_report import LATENTS
from toys.reproduce.part1_runs import Job, run
from toys.reproduce.part1_tables import label
from toys.reproduce.quickstart_settings import Settings
from toys.reproduce.tables import Table

SLICE = ("l1", "isotropic", "cholesky", "graph", "shuffled")


def toy_rows(settings: Settings, *, place: int = 0) -> list[dict]:
    """Part 1's measurements of a few arms and cases with sparse codes, one seed.

    Args:
        settings: Cases, steps and seed.
        place: Of the progress bar, in lines below the cursor.
    """
    jobs = [_job(settings, arm) for arm in SLICE]
    total = sum(len(job.models) * job.steps for job in jobs)
    with tqdm(
        total=total, desc=f"{'toys':>16}", unit="step", mininterval=0.5, position=place
    ) as bar:
        return [row for job in jobs for row in run(job, bar.update)]


def _job(settings: Settings, arm: str) -> Job:
    return Job(
        data="copula",
        arm=arm,
        latents=LATENTS,
        strength=ARMS[arm].strength,
        cases=settings.toy_cases,
        seeds=(settings.seed,),
        steps=settings.toy_steps,
    )


def toy_table(rows: Sequence[dict]) -> Table:
    """A line per case and arm."""
    lines = [
        {
            "case": row["case"],
            "arm": label(row["arm"], row["strength"]),
            "MSE per neuron": row["mse"],
            "L0 (of 32)": row["l0"],
            "KL, nats/row": row["kl"],
            "MCC": row["mcc"],
            "MCC of random atoms": row["mcc_chance"],
        }
        for row in sorted(rows, key=lambda row: row["case"])
    ]
    return Table("Toy cases of part 1 with sparse, correlated codes", lines)
