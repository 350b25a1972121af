"""Training and measuring, job by job, in worker processes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import process_time

import torch
from torch import Tensor
from tqdm import tqdm

from priors.replicas import stack, unstack
from toys.reproduce.jobs import Found, Job, fetch_all
from toys.reproduce.ladder_arms import ARMS, OF_WORLD, Start
from toys.reproduce.ladder_data import Truth, World, world
from toys.reproduce.ladder_scores import by_chance, levels, lifted, recovered, tuning
from toys.reproduce.ladder_settings import Settings, Sizes
from vsae import metrics
from vsae.autoencoder import Autoencoder
from vsae.batches import stream
from vsae.normalizers import AffineNormalizer
from vsae.schedules import LinearDecay
from vsae.target_l0 import TargetL0
from vsae.training import fit

WEIGHTS, BESIDE, NULLS, CHANCE = 2_000_000, 2_100_000, 3_000_000, 4_000_000  # random streams
REVISION = 5  # to be raised when what a job computes changes


@dataclass(frozen=True, kw_only=True)
class LadderJob(Job):
    """One arm on one toy, every seed of it; as one stack of replicas where it can be stacked.

    Args:
        world: A name in ``OF_WORLD``.
        arm: A name in ``ARMS``.
        seeds: Of everything.
        sizes: Of everything else.
        revision: Of this script.
    """

    world: str
    arm: str
    seeds: tuple[int, ...]
    sizes: Sizes
    revision: int = REVISION

    def compute(self) -> Found:
        """Train on a toy's rows; measure on others."""
        dtype = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            with torch.random.fork_rng(devices=[]):
                return self._compute()
        finally:
            torch.set_default_dtype(dtype)

    def _compute(self) -> Found:
        worlds = [toy(self.world, seed, self.sizes) for seed in self.seeds]
        pairs = [build(self, seed, w) for seed, w in zip(self.seeds, worlds, strict=True)]
        begun = process_time()
        trained = train(pairs, worlds, self)
        seconds, rows, kept = process_time() - begun, [], {}
        for pair, seed, w, row in zip(pairs, self.seeds, worlds, trained, strict=True):
            row = {"world": self.world, "arm": self.arm, "seed": seed} | row
            more, tensors = measure(pair.eval(), w, self, seed)
            rows.append(row | more)
            kept |= {f"{seed}_{name}": value for name, value in tensors.items()}
        return Found({"rows": rows, "seconds": seconds}, kept)


@cache
def toy(name: str, seed: int, sizes: Sizes) -> World:
    """The same for all jobs of a process."""
    return world(name, seed, sizes.rows, sizes.held)


def build(job: LadderJob, seed: int, found: World) -> Autoencoder:
    """The untrained model; atoms begin at rows of the data, the same for all arms of a seed."""
    torch.manual_seed(stream(seed, WEIGHTS).initial_seed())
    generator, x = stream(seed, BESIDE), found.train.x
    normalizer = AffineNormalizer.fit(x)
    rows = normalizer(x[torch.randperm(len(x), generator=generator)[: sum(job.sizes.levels)]])
    return ARMS[job.arm].build(job.sizes, found, Start(rows, normalizer, generator))


def train(pairs: list[Autoencoder], worlds: list[World], job: LadderJob) -> list[dict]:
    """All seeds to the end, in place; what the last steps were like."""
    if ARMS[job.arm].stacked and len(pairs) > 1:
        both = stack(pairs)
        data = torch.stack([w.train.x for w in worlds])
        found = fitted(both, data, job, job.seeds)
        for pair, own in zip(pairs, unstack(both), strict=True):
            pair.load_state_dict(own.state_dict())
        return found
    each = zip(pairs, worlds, job.seeds, strict=True)
    return [row for pair, w, seed in each for row in fitted(pair, w.train.x, job, (seed,))]


def fitted(pair: Autoencoder, data: Tensor, job: LadderJob, seeds: tuple[int, ...]) -> list[dict]:
    """β is controlled to the target L0, from a weak penalty up."""
    sizes, arm, several = job.sizes, ARMS[job.arm], len(seeds) > 1
    wanted = sizes.target * arm.factor
    target = (wanted,) * len(seeds) if several else wanted
    beta = TargetL0(target, start=arm.start, rate=arm.rate) if arm.controlled else 1.0
    run = fit(
        pair,
        data,
        steps=sizes.steps,
        batch_size=sizes.batch,
        lr=sizes.lr,
        lr_schedule=LinearDecay(start=sizes.steps * 4 // 5, end=sizes.steps),
        beta=beta,
        seed=seeds if several else seeds[0],
    )
    tail, losses = max(1, sizes.steps // 20), []
    for record in run:
        if record.step >= sizes.steps - tail:
            losses.append(record.loss.detach().reshape(-1))
    last = beta(0).reshape(-1).tolist() if arm.controlled else [1.0] * len(seeds)
    mean = torch.stack(losses).mean(0).tolist()
    return [{"loss": loss, "beta": one} for loss, one in zip(mean, last, strict=True)]


def halves(truth: Truth) -> tuple[Truth, Truth]:
    """Rows to choose matches on, and rows to score them on."""
    middle = len(truth.x) // 2
    parts = []
    for part in (slice(middle), slice(middle, None)):
        angles = None if truth.angles is None else truth.angles[part]
        parts.append(Truth(truth.x[part], truth.fine[part], truth.coarse[part], angles))
    return parts[0], parts[1]


@torch.no_grad()
def measure(
    pair: Autoencoder, found: World, job: LadderJob, seed: int
) -> tuple[dict, dict[str, Tensor]]:
    """Everything of one model, on held-out rows."""
    sizes, arm = job.sizes, ARMS[job.arm]
    held = halves(found.held)
    codes = tuple(pair.encode(part.x) for part in held)
    scored, atoms = codes[1], pair.W_dec
    restored = pair.decode(scored).reshape(held[1].x.shape)
    fine = sizes.levels[0] if arm.levels else sum(sizes.levels)
    row = {
        "l0": float(metrics.l0(scored)),
        "fine_l0": float(metrics.l0(scored[:, :fine])),
        "dead": 100 * float(metrics.dead_fraction(scored)),
        "ev": float(metrics.explained_variance(held[1].x, restored)),
    }
    row |= recovered(codes, atoms, found, held, fine)
    row |= by_chance(codes, atoms, found, held, stream(seed, CHANCE))
    generator = stream(seed, NULLS)
    row |= levels(codes, atoms, held, fine, generator, sizes.draws)
    if arm.levels:
        row["coarse_l0"] = row["l0"] - row["fine_l0"]
    return row, drawn(codes, held, fine, found)


def drawn(
    codes: Sequence[Tensor], held: Sequence[Truth], fine: int, found: World
) -> dict[str, Tensor]:
    """What figures show: correlations of each level, lifts, and tuning to angles."""
    first, second = codes[1][:, :fine], codes[1][:, fine:]
    labels = lifted(codes[0][:, :fine], held[0].coarse)
    kept = {"fine": metrics.code_correlations(first), "labels": labels}
    if second.shape[1]:
        kept["coarse"] = metrics.code_correlations(second)
        kept["coarse_labels"] = lifted(codes[0][:, fine:], held[0].coarse)
        kept["probability"] = _given(first, second)
    if found.held.angles is not None:
        kept |= {f"tuning_{n}": v for n, v in tuning(codes[1], held[1]).items()}
    return {name: value.double() for name, value in kept.items()}


def _given(fine: Tensor, coarse: Tensor) -> Tensor:
    on, above = (fine != 0).double(), (coarse != 0).double()
    return on.mT @ above / above.sum(0).clamp(min=1)


def jobs(settings: Settings) -> Iterator[LadderJob]:
    """Every model of a run."""
    for name in settings.worlds:
        for arm in OF_WORLD[name]:
            yield LadderJob(world=name, arm=arm, seeds=settings.seeds, sizes=settings.sizes)


def run_all(settings: Settings, folder: Path, threads: int) -> list[dict]:
    """The rows of all models; those that the folder has are not trained again."""
    wanted = list(jobs(settings))
    with tqdm(total=len(wanted), unit="arm", mininterval=0.5) as bar:
        found = fetch_all(wanted, folder, threads, bar)
    kept = [(found[job]["file"], row) for job in wanted for row in found[job]["rows"]]
    return [row | {"file": file} for file, row in kept]
