"""The jobs of networks that add: every arm on every network, all starts and seeds at once."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from toys.reproduce.jobs import Found, Job
from toys.reproduce.part4_modadd_arms import ARMS, FOUND, RANDOM, Where
from toys.reproduce.part4_modadd_scores import controls, dictionary_scores, model_scores
from toys.reproduce.part4_modadd_settings import ModAddSettings
from toys.reproduce.part4_truth_training import numbers
from vsae.errors import NonFiniteLossError

CHANCE = "chance"  # the arm of what nothing was learned for


@dataclass(frozen=True, kw_only=True)
class ModAddJob(Job):
    """One arm on one network.

    Args:
        where: The network, sizes and seeds.
        arm: A name in ``ARMS``, or ``chance``.
    """

    where: Where
    arm: str

    def compute(self) -> Found:
        where, clock, atoms = self.where, time.process_time(), {}
        row = {"part": "modadd", "network": where.network, "arm": self.arm}
        row |= {"failed": None, "seconds": 0.0, "models": []}
        if self.arm == CHANCE:
            return Found(row | {"models": self._chance(), "planes": self._planes()})
        try:
            done = ARMS[self.arm][1](where)
        except NonFiniteLossError as error:
            return Found(row | {"failed": str(error)})
        for start, models in done.items():
            for one in models:
                scores = model_scores(where.found, one.pair, where.sizes, one.seed)
                row["models"].append({"start": start, "seed": one.seed, "beta": one.beta} | scores)
            if start in (FOUND, RANDOM):
                atoms = {"atoms": models[0].pair.W_dec}
        return Found(row | {"seconds": time.process_time() - clock}, atoms)

    def _chance(self) -> list[dict]:
        where = self.where
        return [
            {"start": name, "seed": seed}
            | numbers(dictionary_scores(where.found, atoms, where.sizes, seed))
            for seed in where.seeds
            for name, atoms in controls(where.found, where.sizes, seed).items()
        ]

    def _planes(self) -> list[dict]:
        planes = self.where.found.planes
        return [
            {"of": kind, "frequency": frequency, "shares": shares}
            for kind, frequency, shares in zip(
                planes.kinds, planes.frequencies, planes.shares.tolist(), strict=True
            )
        ]


def modadd_jobs(sizes: ModAddSettings, seeds: tuple[int, ...]) -> Iterator[ModAddJob]:
    """Every arm on every network."""
    for network in sizes.networks:
        where = Where(network=network, sizes=sizes, seeds=seeds)
        for arm in (CHANCE, *ARMS):
            yield ModAddJob(where=where, arm=arm)
