"""Training and measuring, job by job, in worker processes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor, nn
from tqdm import tqdm

from priors.softmax_weights import SoftmaxWeightsPrior
from toys.losses import replaced_losses
from toys.reproduce.flat_runs import best
from toys.reproduce.processes import run_jobs
from toys.reproduce.tiered_arms import ARMS, CHANGED, COMPARED, TIERED
from toys.reproduce.tiered_document import VARIANTS, run_variant
from toys.reproduce.tiered_settings import VALIDATION, Settings
from toys.stories import StoriesData
from vsae import metrics
from vsae.autoencoder import Autoencoder
from vsae.batches import stream
from vsae.errors import DataError, NonFiniteLossError
from vsae.normalizers import AffineNormalizer
from vsae.run import StepRecord
from vsae.schedules import LinearDecay
from vsae.training import fit

WEIGHTS, SHUFFLE = 2_000_000, 5_000_000  # random streams
ROWS = 8_192  # on which least squares is fitted, and scored
LOOK = 2_048  # held-out rows that a model in training is looked at on
UNTRAINED = "untrained"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One model to be trained and measured.

    Args:
        arm: A name in ``ARMS``, or in ``VARIANTS`` of the published configuration.
        strength: Of its knob.
        seed: Of everything.
        lr: Learning rate; ``None`` for no training at all.
        score: Whether it is measured on held-out rows; a search for a rate does not look at them.
    """

    arm: str
    strength: float
    seed: int
    lr: float | None
    score: bool = True


class Problem:
    """The rescaled rows, and the network they were read from.

    Args:
        settings: How many stories, which layer, which norm.
    """

    def __init__(self, settings: Settings) -> None:
        everything = StoriesData.load()
        texts = everything.texts[: settings.stories]
        self.data = StoriesData.from_texts(texts, everything.model, everything.tokenizer)
        self.layer = settings.layer
        train, test = (self.data.activations(self.layer, split) for split in ("train", "heldout"))
        self.unit = settings.norm / float(train.norm(dim=-1).mean())
        self.train, self.test = train * self.unit, test * self.unit
        self.normalizer = AffineNormalizer.fit(self.train)

    @torch.no_grad()
    def use(self, pair: Autoencoder) -> dict[str, float]:
        """What the network makes of the reconstruction."""
        losses = replaced_losses(self.data, self.layer, lambda x: pair(x * self.unit) / self.unit)
        recovered = metrics.loss_recovered(losses.ce_clean, losses.ce_replaced, losses.ce_mean)
        kl = metrics.kl_recovered(losses.kl_replaced, losses.kl_mean)
        return {"ce_recovered": recovered, "kl_recovered": kl}


@cache
def problem(settings: Settings) -> Problem:
    """The same for all jobs of a process."""
    return Problem(settings)


def run(job: Job, settings: Settings) -> dict:
    """A row of results; ``failed`` is the message of a run that became non-finite."""
    found = problem(settings)
    row = {"data": "stories", "arm": job.arm, "strength": job.strength, "seed": job.seed}
    row |= {"lr": job.lr, "objective": None, "failed": None}
    if job.arm in VARIANTS:
        return row | run_variant(job.arm, found.train, found.test, settings, job.seed)
    pair = build(job, found.train.shape[1], found.normalizer, settings)
    try:
        if job.lr is not None:
            row |= train(pair, found, job, settings)
        else:
            join(pair, settings)
    except NonFiniteLossError as error:
        return row | {"failed": str(error)}
    return row | (score(pair, found, job, settings) if job.score else {})


def build(job: Job, d_model: int, normalizer: nn.Module, settings: Settings) -> Autoencoder:
    """The untrained model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(job.seed, WEIGHTS).initial_seed())
        return ARMS[job.arm].build(settings, d_model, normalizer, job.strength)


def join(pair: Autoencoder, settings: Settings) -> None:
    """Let all tiers of a model that is not trained take part."""
    pair.guide.posterior.curriculum.updates.fill_(settings.steps)


def train(pair: Autoencoder, found: Problem, job: Job, settings: Settings) -> dict:
    """Train to the end: the mean objective of the last tenth, and the looks taken meanwhile."""
    steps, last, looks = settings.steps if job.score else settings.search, [], []
    training = fit(
        pair,
        found.train,
        steps=steps,
        batch_size=settings.batch,
        lr=job.lr,
        lr_schedule=LinearDecay(start=steps * 4 // 5, end=steps),
        seed=job.seed,
    )
    for record in training:
        if record.step >= steps - max(1, steps // 10):
            last.append(record.loss)
        watched = record.step % settings.watched == 0 or record.step == steps - 1
        if job.score and ARMS[job.arm].tiered and watched:
            looks.append(look(pair, record, found.test[:LOOK], sizes_of(job, settings)))
    return {"objective": float(torch.stack(last).mean()), "looks": looks}


@torch.no_grad()
def look(pair: Autoencoder, record: StepRecord, x: Tensor, sizes: tuple[int, ...]) -> dict:
    """What a model in training is like: per tier, active latents, ℓ1, scale or weight."""
    codes, prior = pair.encode(x), pair.model.prior
    soft = isinstance(prior, SoftmaxWeightsPrior)
    learned = prior.weights() if soft else prior.tier_scales()
    return {
        "step": record.step,
        "loss": float(record.loss),
        "l0": metrics.tier_l0(codes, sizes).tolist(),
        "l1": [float(part.abs().sum(-1).mean()) for part in codes.split(sizes, -1)],
        "learned": learned.tolist(),
    }


def sizes_of(job: Job, settings: Settings) -> tuple[int, ...]:
    """Latents of each tier of an arm."""
    return ARMS[job.arm].sizes or settings.sizes


@torch.no_grad()
def score(pair: Autoencoder, found: Problem, job: Job, settings: Settings) -> dict:
    """What a model is worth on held-out rows, and what its tiers say of each other."""
    codes = pair.encode(found.test)
    restored = pair.decode(codes)
    return (
        {
            "l0": float(metrics.l0(codes)),
            "dead": 100 * float(metrics.dead_fraction(codes)),
            "ev": float(metrics.explained_variance(found.test, restored)),
            "mse": float(metrics.mse(found.test, restored)),
        }
        | found.use(pair)
        | in_tiers(pair, found, job, settings)
    )


def in_tiers(pair: Autoencoder, found: Problem, job: Job, settings: Settings) -> dict:
    """Allocation, and coverage of each tier by the one below, with and without its rows shuffled.

    A flat code is dealt into tiers at random: what coverage is where there is no hierarchy.
    """
    sizes, generator = sizes_of(job, settings), stream(job.seed, SHUFFLE)
    deal = torch.arange(sum(sizes))
    if not ARMS[job.arm].tiered:
        deal = torch.randperm(len(deal), generator=generator)
    picked = torch.randperm(len(found.train), generator=generator)[:ROWS]
    fit_to, held = (pair.encode(x)[:, deal] for x in (found.train[picked], found.test[:ROWS]))
    shuffle = [torch.randperm(len(part), generator=generator) for part in (fit_to, held)]
    mixed = [part[order] for part, order in zip((fit_to, held), shuffle, strict=True)]
    return {
        "tier_l0": metrics.tier_l0(held, sizes).tolist(),
        "coverage": coverages((fit_to, held), (fit_to, held), sizes),
        "shuffled": coverages(mixed, (fit_to, held), sizes),
    }


def coverages(
    lower: Sequence[Tensor], upper: Sequence[Tensor], sizes: tuple[int, ...]
) -> list[float | None]:
    """Of every tier by the one below it, for codes of (rows to fit to, held-out rows)."""
    below, own = ([part.split(sizes, -1) for part in codes] for codes in (lower, upper))
    tiers = range(len(sizes) - 1)
    return [coverage(below[0][i], own[0][i + 1], below[1][i], own[1][i + 1]) for i in tiers]


def coverage(lower: Tensor, upper: Tensor, held_lower: Tensor, held_upper: Tensor) -> float | None:
    """The ratio; ``None`` of a tier whose codes do not vary."""
    try:
        return float(metrics.coverage_ratio(lower, upper, held_lower, held_upper))
    except DataError:
        return None


def run_all(settings: Settings, threads: int) -> tuple[list[dict], list[dict]]:
    """Rows of the search for learning rates, and rows of results."""
    searched = list(searches(settings))
    total = len(searched) + len(list(jobs(settings, best([]))))
    with tqdm(total=total, unit="model", desc="learning rates", mininterval=0.5) as bar:
        found = run_jobs(run, searched, settings, threads, bar)
        bar.set_description("models")
        return found, run_jobs(run, list(jobs(settings, best(found))), settings, threads, bar)


def searches(settings: Settings) -> Iterable[Job]:
    """Every compared arm at its middle strength, at every rate, on the validation seed."""
    for name, arm in COMPARED.items():
        job = Job(arm=name, strength=arm.middle, seed=VALIDATION, lr=None, score=False)
        yield from (replace(job, lr=lr) for lr in settings.rates)


def jobs(settings: Settings, rates: dict[tuple[str, str], float]) -> Iterator[Job]:
    """Every model of a run; the slowest first."""
    for name, variant in VARIANTS.items():
        for seed in settings.seeds if variant.repeated else settings.seeds[:1]:
            yield Job(arm=name, strength=0.0, seed=seed, lr=None)
    for name in ARMS:
        lr = rates.get(("stories", TIERED if name in CHANGED else name))
        for strength in strengths(name, settings):
            for seed in settings.seeds:
                yield Job(arm=name, strength=strength, seed=seed, lr=lr)
    for seed in settings.seeds:
        yield Job(arm=TIERED, strength=ARMS[TIERED].middle, seed=seed, lr=None)


def strengths(name: str, settings: Settings) -> tuple[float, ...]:
    """The values of an arm's knob."""
    swept = ARMS[name].strengths
    return (swept[0], swept[-1]) if settings.ends and name in COMPARED else swept
