"""The jobs of the part ``modadd``: every arm on every stream of every network."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from toys.reproduce.jobs import Found, Job
from toys.reproduce.recovery_modadd_arms import (
    ARMS,
    DATA,
    FOUND,
    FROM_RANDOM,
    SHUFFLE,
    TRUE,
    Trained,
    Where,
    begun,
)
from toys.reproduce.recovery_modadd_data import Activations
from toys.reproduce.recovery_modadd_scores import model_scores, untrained_scores
from toys.reproduce.recovery_modadd_settings import ModAddSettings
from toys.reproduce.recovery_scores import plain
from vsae.batches import stream
from vsae.errors import NonFiniteLossError

CHANCE = "chance"  # the arm of what nothing was learned for
LONG = ("rings", "rings-shuffled")  # also trained for longer


@dataclass(frozen=True, kw_only=True)
class ModAddJob(Job):
    """One arm on one stream: all its starts, strengths and seeds.

    Args:
        where: The stream, sizes and seeds.
        arm: A name in ``ARMS``, or ``chance``.
    """

    where: Where
    arm: str

    def compute(self) -> Found:
        where = self.where
        row = {"network": where.network, "stream": where.stream, "arm": self.arm}
        row |= {"updates": where.sizes.dense_steps, "failed": None, "seconds": 0.0, "models": []}
        if self.arm == CHANCE:
            return Found(plain(row | self._chance()))
        atoms = {}
        try:
            first = 0.0 if self.arm in FROM_RANDOM else begun(where).seconds
            clock = time.process_time()
            done = list(ARMS[self.arm][1](where))
        except NonFiniteLossError as error:
            return Found(row | {"failed": str(error)})
        row["seconds"] = first + time.process_time() - clock  # as if no other arm had paid for it
        for model in done:
            known = {"start": model.start, "strength": model.strength, "seed": model.seed}
            known |= {"seen": model.seen, "elbo": elbo(where.found, model)}
            row["models"].append(known | model_scores(where.found, model.pair, model.seed))
            if model.seed == where.seeds[0]:
                atoms[name_of(model.start, model.strength)] = model.pair.W_dec
        return Found(row, atoms)

    def _chance(self) -> dict:
        found, latents = self.where.found, self.where.sizes.latents
        models = [
            {"start": name, "strength": None, "seed": seed} | untrained_scores(found, atoms, seed)
            for seed in self.where.seeds
            for name, atoms in controls(found, latents, seed).items()
        ]
        return {"models": models, "facts": facts(found)}


@torch.no_grad()
def elbo(found: Activations, model: Trained) -> float | None:
    """Of held-out rows, nats per row: what the arms compare their two starts by."""
    if model.start == DATA:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(model.seed)
        return float(model.pair.elbo(found.test))


def controls(found: Activations, latents: int, seed: int) -> dict[str, Tensor]:
    """Atoms that nothing was learned for, and principal components, each with its opposite."""
    draw = stream(seed, SHUFFLE)
    rows, width = found.normalizer(found.train), found.train.shape[1]
    axes = torch.linalg.svd(rows.double(), full_matrices=False).Vh[: 2 * found.planes]
    picked = torch.randperm(len(rows), generator=draw)[:latents]
    return {
        "random directions": torch.randn(latents, width, generator=draw, dtype=torch.float64),
        "random data points": rows[picked],
        "principal components, both signs": torch.cat([axes, -axes]),
    }


def facts(found: Activations) -> dict:
    """What is known of a stream before any autoencoder."""
    rings = found.rings
    return {
        "accuracy": found.model.accuracy(),
        "frequencies": rings.frequencies.tolist(),
        "power": rings.share,
        "explained": rings.explained(found.all),
        "overlap": overlap(rings.planes),
    }


def overlap(planes: Tensor) -> float:
    """The greatest cosine between directions of two planes; 0 for a single one."""
    cosines = [
        float((one @ other.mT).svd().S[0]) for at, one in enumerate(planes) for other in planes[:at]
    ]
    return max(cosines, default=0.0)


def name_of(start: str, strength: float) -> str:
    """Of the tensor of a model's atoms."""
    return f"{start}, {strength:g}"


def modadd_jobs(sizes: ModAddSettings, seeds: tuple[int, ...]) -> Iterator[ModAddJob]:
    """Every arm on every stream; two of them for longer on the first stream of one network."""
    for network in sizes.networks:
        for name in sizes.streams:
            where = Where(network=network, stream=name, sizes=sizes, seeds=seeds)
            for arm in (CHANCE, *ARMS):
                yield ModAddJob(where=where, arm=arm)
    longer = replace(sizes, dense_steps=sizes.long_steps)
    where = Where(network=sizes.long_network, stream=sizes.streams[0], sizes=longer, seeds=seeds)
    yield from (ModAddJob(where=where, arm=arm) for arm in LONG)


def dense_starts(row: Mapping) -> tuple[str, ...]:
    """The starts of an arm's models, in order."""
    return tuple(
        start for start in (FOUND, TRUE) if any(m["start"] == start for m in row["models"])
    )
