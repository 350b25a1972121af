"""Training: learning rates, then the hierarchies, then flat SAEs at the L0 that those have."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm

from toys.reproduce.flat_data import Problem
from toys.reproduce.flat_runs import WEIGHTS, train
from toys.reproduce.hsae_cost import cost
from toys.reproduce.hsae_data import HierarchyProblem, problem
from toys.reproduce.hsae_plan import (
    compared,
    equal_k,
    equal_l0,
    lines,
    matched_width,
    references,
    size_of,
)
from toys.reproduce.hsae_recipes import FLATS, Flat, Recipe
from toys.reproduce.hsae_settings import VALIDATION, Settings
from toys.reproduce.hsae_structure import structure
from toys.reproduce.hsae_sweeps import variants
from toys.reproduce.hsae_variants import Variational
from toys.reproduce.processes import run_jobs
from vsae.autoencoder import Autoencoder
from vsae.batches import stream
from vsae.errors import NonFiniteLossError

Rates = Mapping[tuple[str, str], Mapping[int, float]]  # by data and arm, then by latents


@dataclass(frozen=True, kw_only=True)
class Job:
    """One model to be trained.

    Args:
        data: A name in ``settings.data``.
        recipe: The model.
        seed: Of the toy, the weights and the order of rows.
        lr: Learning rate.
        score: Whether it is measured on held-out rows; a search for a rate does not look at them.
    """

    data: str
    recipe: Recipe
    seed: int
    lr: float
    score: bool = True


def run(job: Job, settings: Settings) -> dict:
    """A row of results: the job, its final training objective, its scores.

    ``failed`` is the message of a run that became non-finite, whose objective is ``None``.
    """
    found, recipe = problem(job.data, settings, job.seed), job.recipe
    pair = build(job, found)
    row = {"data": job.data, "recipe": recipe, "seed": job.seed, "lr": job.lr, "failed": None}
    how = {"steps": settings.steps, "batch": settings.batch, "lr": job.lr, "seed": job.seed}
    try:
        row["objective"] = train(pair, found.train, **how)
    except NonFiniteLossError as error:
        return row | {"objective": None, "failed": str(error)}
    return row | scores(pair, found, job, settings) if job.score else row


def build(job: Job, found: Problem) -> Autoencoder:
    """The untrained model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(job.seed, WEIGHTS).initial_seed())
        return job.recipe.build(found.size)


@torch.no_grad()
def scores(
    pair: Autoencoder, found: HierarchyProblem, job: Job, settings: Settings
) -> dict[str, int | float]:
    """All that is measured of a trained pair."""
    recipe, paid = job.recipe, cost(pair, job.recipe.k)
    row: dict[str, int | float] = {"parameters": paid.parameters, "flops": paid.flops}
    row["latents"] = recipe.latents
    row |= found.score(pair)
    roots = recipe.tree.roots
    fired = (pair.encode(found.test)[:, :roots] != 0).any(0)
    row["dead_top"] = 100 * (1 - float(fired.double().mean()))
    row["unexplained"] = 1 - row["ev"]
    if "ce_recovered" in row:
        row["lost_ce"] = 1 - row["ce_recovered"]
    if isinstance(recipe, Variational):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(job.seed)
            row["elbo"] = float(pair.elbo(found.test))
    row |= found.special(pair.W_dec[:roots])
    return row | structure(found, pair, recipe, settings.structure_rows, job.seed)


def run_all(settings: Settings, threads: int) -> tuple[list[dict], list[dict]]:
    """Rows of the search for learning rates, and rows of results."""
    with tqdm(unit="model", desc="learning rates", mininterval=0.5) as bar:
        searched = run_many(searches(settings), settings, threads, bar)
        rates = best(searched)
        bar.set_description("hierarchies")
        trees = run_many(jobs(hierarchies(settings), settings, rates), settings, threads, bar)
        bar.set_description("flat dictionaries")
        wanted = flats(settings, measured_l0(trees))
        rows = run_many(jobs(wanted, settings, rates), settings, threads, bar)
    return searched, [*trees, *rows]


def run_many(wanted: Iterable[Job], settings: Settings, threads: int, bar: tqdm) -> list[dict]:
    """Each job once."""
    todo = list(dict.fromkeys(wanted))
    bar.total = (bar.total or 0) + len(todo)
    return run_jobs(run, todo, settings, threads, bar)


Wanted = tuple[str, Recipe]  # data and model


def hierarchies(settings: Settings) -> list[Wanted]:
    """The lines of the figures, and the sweeps."""
    found: list[Wanted] = [(data, r) for data in settings.data for r in lines(settings, data)]
    return found + [(v.data, v.recipe) for v in variants(settings)]


def flats(settings: Settings, l0: Mapping[Wanted, float]) -> list[Wanted]:
    """At equal ``k``, and at equal L0."""
    found: list[Wanted] = [(data, r) for data in settings.data for r in equal_k(settings, data)]
    for data in compared(settings):
        known = {recipe: value for (at, recipe), value in l0.items() if at == data}
        found += [(data, r) for r in equal_l0(settings, data, known)]
    return found


def measured_l0(rows: Sequence[Mapping]) -> dict[Wanted, float]:
    """Mean over seeds of what did not fail."""
    found: dict[Wanted, list[float]] = {}
    for row in rows:
        if row["failed"] is None:
            found.setdefault((row["data"], row["recipe"]), []).append(row["l0"])
    return {wanted: math.fsum(values) / len(values) for wanted, values in found.items()}


def searches(settings: Settings) -> Iterable[Job]:
    """Per data, every arm at its least and greatest matched width, every rate, on a seed apart."""
    wanted: list[Wanted] = []
    for data in settings.data:
        for tree in references(settings, data):
            size = size_of(settings, data)
            widths = [matched_width(match, tree, size) for match in ("top", "total")]
            ends = [Flat(arm=arm, width=w, k=tree.k) for arm in FLATS for w in widths]
            wanted += [(data, recipe) for recipe in (tree, *ends)]
    known = {(data, recipe.rated_as) for data, recipe in wanted}
    for variant in variants(settings):
        if (variant.data, variant.recipe.rated_as) not in known:
            wanted.append((variant.data, variant.recipe))
            known.add((variant.data, variant.recipe.rated_as))
    for data, recipe in wanted:
        for lr in settings.rates:
            yield Job(data=data, recipe=recipe, seed=VALIDATION, lr=lr, score=False)


def best(rows: Sequence[Mapping]) -> Rates:
    """Per data, arm and size, the learning rate of the lowest final training objective.

    An objective is comparable between the rates of one model, and with nothing else.
    """
    found: dict[tuple[str, str], dict[int, float]] = {}
    least: dict[Wanted, float] = {}
    for row in rows:
        recipe, objective = row["recipe"], row["objective"]
        objective = math.inf if objective is None else objective
        if objective < least.get((row["data"], recipe), math.inf):
            least[row["data"], recipe] = objective
            found.setdefault((row["data"], recipe.rated_as), {})[recipe.latents] = row["lr"]
    return found


def rate(rates: Rates, data: str, recipe: Recipe) -> float:
    """That of the searched model of the same arm with the nearest number of latents, in log."""
    known = rates[data, recipe.rated_as]
    nearest = min(known, key=lambda latents: abs(math.log(latents / recipe.latents)))
    return known[nearest]


def jobs(wanted: Iterable[Wanted], settings: Settings, rates: Rates) -> Iterable[Job]:
    """Every model, of every seed."""
    for data, recipe in wanted:
        lr = rate(rates, data, recipe)
        yield from (Job(data=data, recipe=recipe, seed=s, lr=lr) for s in settings.seeds)
