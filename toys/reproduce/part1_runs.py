"""Training part 1's models: seeds and cases of one arm at a time, stacked, in worker processes."""

import multiprocessing
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from tqdm import tqdm

from priors.replicas import stack
from toys.gaussian_cases import CASES, SPARSE_CASES
from toys.reproduce.part1_arms import ARMS
from toys.toy import Toy
from vsae import metrics
from vsae.autoencoder import Autoencoder
from vsae.batches import stream
from vsae.elbo import ClosedFormELBO
from vsae.noise import noise_from
from vsae.schedules import LinearDecay, LinearWarmup
from vsae.training import fit

FAMILIES = {"gaussian": CASES, "copula": SPARSE_CASES}
TRAIN, TEST, BATCH, LR = 8192, 4096, 256, 1e-3
SHOWN = 16  # held-out rows of seed 0 that figures show
DATA, WEIGHTS, GRAPH, ATOMS, NOISE = (1_000_000 * n for n in range(1, 6))  # random streams


@dataclass(frozen=True)
class Problem:
    """One toy of one seed: the same rows for every arm."""

    toy: Toy
    train: Tensor
    test: Tensor
    codes: Tensor


@dataclass(frozen=True, kw_only=True)
class Job:
    """Models trained as one: an arm at one strength, over cases and seeds.

    Args:
        data: A family of cases.
        arm: A name in ``ARMS``.
        latents: ``K``; ``None`` for as many as the case has features.
        strength: The arm's knob.
        cases: Names; of one number of features if ``latents`` is ``None``.
        seeds: Seeds of data, weights and noise.
        steps: Updates.
    """

    data: str
    arm: str
    latents: int | None
    strength: float
    cases: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int

    @property
    def models(self) -> list[tuple[str, int]]:
        """Case and seed of each replica."""
        return [(case, seed) for case in self.cases for seed in self.seeds]


@cache
def problem(data: str, case: str, seed: int) -> Problem:
    """The toy, training and held-out rows of a seed: a pure function of its arguments."""
    family = FAMILIES[data]
    generator = stream(seed, DATA + list(family).index(case))
    toy = family[case].build(generator)
    train, test = toy.sample(TRAIN, generator), toy.sample(TEST, generator)
    return Problem(toy, train.x, test.x, test.codes)


def build(job: Job, case: str, seed: int) -> Autoencoder:
    """An untrained model of the job; the caller's random state is left alone."""
    toy = problem(job.data, case, seed).toy
    latents = job.latents or len(toy.dictionary)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(seed, WEIGHTS).initial_seed())
        return ARMS[job.arm].build(toy, latents, job.strength, stream(seed, GRAPH))


def run(job: Job, advance: Callable[[int], None]) -> list[dict]:
    """Train a job and measure it on held-out rows; ``advance`` hears of model-steps done."""
    problems = [problem(job.data, *model) for model in job.models]
    pair = stack([build(job, *model) for model in job.models])
    training = fit(
        pair,
        torch.stack([p.train for p in problems]),
        steps=job.steps,
        batch_size=BATCH,
        lr=LR,
        lr_schedule=LinearDecay(start=job.steps * 4 // 5, end=job.steps),
        beta=LinearWarmup(max(1, job.steps // 10), ARMS[job.arm].beta(job.strength)),
        seed=[seed for _, seed in job.models],
    )
    for _ in training:
        advance(len(problems))
    measured = measure(job, pair, problems)
    for replica, step in training.failed.items():
        measured[replica]["failed_at"] = step
    return measured


@torch.no_grad()
def measure(job: Job, pair: Autoencoder, problems: Sequence[Problem]) -> list[dict]:
    """Held-out metrics of every replica, at the posterior mean; the ELBO from one draw per row."""
    arm, x = ARMS[job.arm], torch.stack([p.test for p in problems])
    posterior = pair.posterior(x)["z"]
    codes = pair.model.link(posterior.mean)
    restored = pair.decode(codes)
    with noise_from([stream(seed, NOISE) for _, seed in job.models]):
        terms = ClosedFormELBO().site_terms(pair.model, pair.guide, x)
    point = not bool(posterior.variance.any())
    columns = {
        "mse": metrics.mse(x, restored),
        "l0": metrics.l0(codes, threshold=arm.threshold),
        "dead": metrics.dead_fraction(codes, threshold=arm.threshold),
        "kl": terms["z"].mean(-1),
        "nelbo": sum(terms.values()).mean(-1),
    }
    atoms = pair.W_dec.squeeze(1)
    rows = []
    for r, (case, seed) in enumerate(job.models):
        row = {"data": job.data, "arm": job.arm, "case": case, "seed": seed}
        row |= {"latents": atoms.shape[1], "strength": job.strength, "failed_at": None}
        row |= {name: float(values[r]) for name, values in columns.items()}
        if point:  # a point has no KL, and its objective is no bound
            row |= {"kl": None, "nelbo": None}
        row |= recovery(atoms[r], problems[r].toy, seed)
        shown = seed == job.seeds[0]
        row["restored"] = restored[r, :SHOWN].tolist() if shown else None
        rows.append(row)
    return rows


def recovery(atoms: Tensor, toy: Toy, seed: int) -> dict[str, float]:
    """MCC of the atoms, of random unit atoms of the same shape, and distinct features matched."""
    random = torch.randn(20, *atoms.shape, generator=stream(seed, ATOMS))
    match = metrics.mean_correlation_coefficient
    chance = [match(draw, toy.dictionary) for draw in random]
    return {
        "mcc": match(atoms, toy.dictionary),
        "mcc_chance": sum(chance) / len(chance),
    }


def run_all(jobs: Sequence[Job], threads: int) -> list[dict]:
    """Every job's rows, over ``threads`` processes of one thread each, behind one progress bar."""
    total = sum(len(job.models) * job.steps for job in jobs)
    bar = tqdm(
        total=total,
        unit="step",
        unit_scale=True,
        desc="model-steps",
        mininterval=0.5,
        file=sys.stderr,
    )
    with bar:
        if threads == 1:
            return [row for job in jobs for row in run(job, bar.update)]
        return [row for rows in _in_processes(jobs, threads, bar) for row in rows]


def _in_processes(jobs: Sequence[Job], threads: int, bar: tqdm) -> Iterable[list[dict]]:
    context = multiprocessing.get_context("spawn")  # a forked torch may hang
    done = context.Value("q", 0)
    order = sorted(jobs, key=_size, reverse=True)  # the longest first, so that all end together
    with ProcessPoolExecutor(threads, context, _start_worker, (done,)) as pool:
        futures = {pool.submit(_run_in_worker, job): job for job in order}
        try:
            _follow(set(futures), done, bar)
        finally:  # after an error, what has not begun never does
            pool.shutdown(wait=False, cancel_futures=True)
    results = {futures[future]: future.result() for future in futures}
    return [results[job] for job in jobs]


def _follow(pending: set[Future], done, bar: tqdm) -> None:
    while pending:
        finished, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
        bar.update(done.value - bar.n)
        for future in finished:
            future.result()  # an error ends the run now, not after the last job


def _size(job: Job) -> int:
    return len(job.models) * job.steps


_counters: list = []  # in a worker: the count of model-steps it shares with its parent


def _start_worker(done) -> None:
    _counters.append(done)
    torch.set_num_threads(1)


def _run_in_worker(job: Job) -> list[dict]:
    return run(job, _advance)


def _advance(count: int) -> None:
    for done in _counters:
        with done.get_lock():
            done.value += count
