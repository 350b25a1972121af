"""Training: learning rates first, then every arm, strength and seed, in worker processes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from tqdm import tqdm

from toys.reproduce.flat_arms import ARMS, BASE
from toys.reproduce.flat_controls import CONTROLS
from toys.reproduce.flat_data import DATA, Problem, problem
from toys.reproduce.flat_settings import VALIDATION, Settings
from toys.reproduce.processes import run_jobs
from vsae.autoencoder import Autoencoder
from vsae.batches import stream
from vsae.errors import NonFiniteLossError
from vsae.run import StepRecord
from vsae.schedules import LinearDecay, LinearWarmup
from vsae.training import fit

WEIGHTS = 2_000_000  # a random stream


@dataclass(frozen=True, kw_only=True)
class Job:
    """One model to be trained.

    Args:
        data: A name in ``DATA``.
        arm: A name in ``ARMS``.
        strength: Of its knob.
        seed: Of the toy, the weights and the order of rows.
        lr: Learning rate; ``None`` for a control, which is not trained.
        score: Whether it is measured on held-out rows; a search for a rate does not look at them.
    """

    data: str
    arm: str
    strength: float
    seed: int
    lr: float | None
    score: bool = True


def run(job: Job, settings: Settings) -> dict:
    """A row of results: the job, its final training objective, its scores.

    ``failed`` is the message of a run that became non-finite, whose objective is ``None``.
    """
    found = problem(job.data, settings, job.seed)
    if job.arm in CONTROLS:
        return row_of(job) | CONTROLS[job.arm].score(found, int(job.strength), job.seed)
    pair = build(job, found)
    row = row_of(job)
    try:
        row["objective"] = train(
            pair,
            found.train,
            steps=settings.steps,
            batch=settings.batch,
            lr=job.lr,
            seed=job.seed,
        )
    except NonFiniteLossError as error:
        return row | {"failed": str(error)}
    return row | (found.score(pair) if job.score else {})


def row_of(job: Job) -> dict:
    """What is known before training."""
    row = {"data": job.data, "arm": job.arm, "strength": job.strength, "seed": job.seed}
    return row | {"lr": job.lr, "objective": None, "failed": None}


def build(job: Job, found: Problem) -> Autoencoder:
    """The untrained model; the same first atoms for every arm of a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(job.seed, WEIGHTS).initial_seed())
        return ARMS[job.arm].build(found.size, job.strength)


def train(
    pair: Autoencoder, rows: Tensor, *, steps: int, batch: int, lr: float, seed: int
) -> float:
    """Train to the end; the mean of :func:`own` over the last tenth of the steps."""
    training = fit(
        pair,
        rows,
        steps=steps,
        batch_size=batch,
        lr=lr,
        lr_schedule=LinearDecay(start=steps * 4 // 5, end=steps),
        beta=LinearWarmup(max(1, steps // 10)),
        seed=seed,
    )
    last = [own(record) for record in training if record.step >= steps - max(1, steps // 10)]
    return float(torch.stack(last).mean())


def own(record: StepRecord) -> Tensor:
    """The objective without AuxK's term, which comes and goes with dead latents."""
    return sum(term for site, term in record.terms.items() if site != "residual")


def run_all(settings: Settings, threads: int) -> tuple[list[dict], list[dict]]:
    """Rows of the search for learning rates, and rows of results."""
    searched = list(searches(settings))
    total = len(searched) + len(list(jobs(settings, best([]))))
    with tqdm(total=total, unit="model", desc="learning rates", mininterval=0.5) as bar:
        found = run_jobs(run, searched, settings, threads, bar)
        bar.set_description("models")
        return found, run_jobs(run, list(jobs(settings, best(found))), settings, threads, bar)


def searches(settings: Settings) -> Iterable[Job]:
    """Every arm at its middle strength, at every learning rate, on the validation seed."""
    for data in DATA:
        for name, arm in ARMS.items():
            for lr in settings.rates:
                yield Job(
                    data=data,
                    arm=name,
                    strength=arm.middle(data),
                    seed=VALIDATION,
                    lr=lr,
                    score=False,
                )


def best(rows: Sequence[dict]) -> dict[tuple[str, str], float]:
    """Per data and arm, the learning rate of the lowest final training objective.

    An arm's objective is comparable between its own rates at one strength, and with nothing else.
    """
    chosen: dict[tuple[str, str], tuple[float, float]] = {}
    for row in rows:
        key, objective = (row["data"], row["arm"]), row["objective"]
        candidate = (math.inf if objective is None else objective, row["lr"])
        chosen[key] = min(chosen.get(key, candidate), candidate)
    return {key: lr for key, (_, lr) in chosen.items()}


def jobs(settings: Settings, rates: dict[tuple[str, str], float]) -> Iterable[Job]:
    """Every arm and control, strength and seed."""
    for data in DATA:
        for arm in (*ARMS, *CONTROLS):
            for strength in strengths(arm, data, settings):
                job = Job(data=data, arm=arm, strength=strength, seed=0, lr=rates.get((data, arm)))
                yield from (replace(job, seed=seed) for seed in settings.seeds)


def strengths(arm: str, data: str, settings: Settings) -> tuple[float, ...]:
    """The values of an arm's knob; a control has those of the TopK SAE."""
    swept = ARMS[BASE if arm in CONTROLS else arm].strengths[data]
    return (swept[0], swept[-1]) if settings.ends else swept
