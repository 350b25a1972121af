"""Training and measuring, job by job, in worker processes."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor
from tqdm import tqdm

from toys.reproduce import collapse
from toys.reproduce.collapse import Problem
from toys.reproduce.dead_arms import ARMS, Arm
from toys.reproduce.dead_settings import Settings
from toys.reproduce.processes import run_jobs
from toys.stories import StoriesData
from vsae import metrics
from vsae.autoencoder import Autoencoder
from vsae.batches import stream
from vsae.normalizers import AffineNormalizer
from vsae.resampling import never_active, resample
from vsae.run import Run
from vsae.schedules import LinearDecay
from vsae.training import fit

WEIGHTS, DRAWS = 3_000_000, 4_000_000  # random streams
DATA = ("copula", "stories260K")
FREE, SHRUNK = (arm for arm in collapse.ARMS if arm.name in ("no KL", "KL on all, no noise"))


@dataclass(frozen=True, kw_only=True)
class Job:
    """One model to be trained and measured.

    Args:
        data: A name in ``DATA``.
        arm: A name in ``ARMS``, or one of a collapse.
        seed: Of everything.
        k: Active latents per row of a collapse; ``None`` for the arms of the remedies' table.
        alpha: Its weight of the KL.
    """

    data: str
    arm: str
    seed: int
    k: int | None = None
    alpha: float | None = None


def jobs(settings: Settings) -> Iterator[Job]:
    """Every model of a run."""
    for data in DATA:
        for seed in settings.seeds:
            for arm in ARMS:
                yield Job(data=data, arm=arm.name, seed=seed)
            for k in settings.ks:
                for arm in (FREE, SHRUNK):
                    yield Job(data=data, arm=arm.name, seed=seed, k=k, alpha=settings.alpha)
            shrunk = Job(data=data, arm=SHRUNK.name, seed=seed, k=settings.k)
            yield from (replace(shrunk, alpha=alpha) for alpha in settings.alphas)


@cache
def problem(data: str, settings: Settings, seed: int) -> Problem:
    """The data of a seed; the stories, and the rows held out of them, are the same for all."""
    if data == "stories260K":
        return _stories(settings)
    both = collapse.copula(seed)
    x = torch.cat([both.train, both.test])
    return Problem(data, x[: -settings.test], x[-settings.test :])


@cache
def _stories(settings: Settings) -> Problem:
    data = StoriesData.load()
    if settings.test < len(DATA) * 10_000:  # a smoke run reads a few stories
        data = StoriesData.from_texts(data.texts[:40], data.model, data.tokenizer)
    return Problem("stories260K", data.activations(2), data.activations(2, "heldout"))


def run(job: Job, settings: Settings) -> dict:
    """A row of results."""
    found = problem(job.data, settings, job.seed)
    row = {"data": job.data, "arm": job.arm, "seed": job.seed, "k": job.k, "alpha": job.alpha}
    if job.k is not None:
        return row | shrink(job, found, settings)
    arm = next(arm for arm in ARMS if arm.name == job.arm)
    pair = build(arm, found, settings, job.seed)
    train(pair, arm, found.train, settings, job.seed)
    return row | score(pair, found.test)


def build(arm: Arm, found: Problem, settings: Settings, seed: int) -> Autoencoder:
    """The untrained model; the same first atoms for all arms of a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(seed, WEIGHTS).initial_seed())
        return arm.make(settings, found.train.shape[-1], AffineNormalizer.fit(found.train))


def train(pair: Autoencoder, arm: Arm, x: Tensor, settings: Settings, seed: int) -> None:
    """All steps, with what the arm does between them."""
    steps, generator = settings.steps, stream(seed, DRAWS)
    running = fit(
        pair,
        x,
        steps=steps,
        batch_size=settings.batch,
        lr=settings.lr,
        lr_schedule=LinearDecay(start=steps * 4 // 5, end=steps),
        seed=seed,
    )
    for record in running:
        if arm.resampled is not None and record.step in settings.resample_at:
            revive(running, x, arm.resampled, settings, generator)


def revive(
    running: Run, x: Tensor, scale: float, settings: Settings, generator: torch.Generator
) -> None:
    """Resample the latents that are silent on some rows, pointing at others of these rows."""
    rows = torch.randperm(len(x), generator=generator)[: settings.resample_rows]
    dead = never_active(running.autoencoder, x[rows])
    resample(
        running.autoencoder, running.optimizer, x[rows], dead, generator=generator, scale=scale
    )


@torch.no_grad()
def score(pair: Autoencoder, test: Tensor) -> dict[str, float]:
    """Dead latents, explained variance and L0 of the posterior mean on held-out rows."""
    codes = [pair.encode(part) for part in test.split(8192)]
    means = torch.cat([pair.decode(code) for code in codes])
    return {
        "dead": 100 * len(never_active(pair, test)) / len(pair.W_dec),
        "ev": float(metrics.explained_variance(test, means)),
        "l0": sum(int(code.count_nonzero()) for code in codes) / len(test),
    }


def shrink(job: Job, found: Problem, settings: Settings) -> dict[str, float]:
    """One model of the collapse."""
    rows = collapse.collapse(
        [found],
        ks=(job.k,),
        arms=[arm for arm in (FREE, SHRUNK) if arm.name == job.arm],
        alpha=job.alpha,
        latents=settings.collapse_latents,
        steps=settings.collapse_steps,
        seed=job.seed,
    )
    row = next(iter(rows))
    kept = {"alive": "alive", "ratio": "alive / k", "ev": "explained variance"}
    return {name: float(row[source]) for name, source in kept.items()}


def run_all(settings: Settings, threads: int) -> list[dict]:
    """The rows of all jobs, in their order: here, or in ``threads`` processes of one thread."""
    todo = list(jobs(settings))
    with tqdm(total=len(todo), unit="model", mininterval=0.5) as bar:
        return run_jobs(run, todo, settings, threads, bar)
