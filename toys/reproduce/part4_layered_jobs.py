"""The jobs of the toys: every arm on every case, all seeds at once."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from toys.reproduce.jobs import Found, Job
from toys.reproduce.part4_layered_apart import APART, apart, apart_scores
from toys.reproduce.part4_layered_arms import ARMS, Where
from toys.reproduce.part4_layered_scores import model_scores
from toys.reproduce.part4_layered_settings import LayeredSettings
from vsae.errors import NonFiniteLossError


@dataclass(frozen=True, kw_only=True)
class LayeredJob(Job):
    """One arm on one case.

    Args:
        where: The case, sizes and seeds.
        arm: A name in ``ARMS`` or ``APART``.
    """

    where: Where
    arm: str

    def compute(self) -> Found:
        clock = time.process_time()
        row = {"part": "layered", "case": self.where.case, "arm": self.arm}
        row |= {"failed": None, "seconds": 0.0, "models": []}
        try:
            models = self._apart() if self.arm in APART else self._crosscoders()
        except NonFiniteLossError as error:
            return Found(row | {"failed": str(error)})
        return Found(row | {"models": models, "seconds": time.process_time() - clock})

    def _crosscoders(self) -> list[dict]:
        done = ARMS[self.arm][1](self.where)
        return [
            {"seed": one.seed, "beta": one.beta} | model_scores(own, one.pair)
            for own, one in zip(self.where.worlds, done, strict=True)
        ]

    def _apart(self) -> list[dict]:
        done = apart(self.where, self.arm)
        return [
            {"seed": found[0].seed} | apart_scores(own, found)
            for own, found in zip(self.where.worlds, done, strict=True)
        ]


def layered_jobs(sizes: LayeredSettings, seeds: tuple[int, ...]) -> Iterator[LayeredJob]:
    """Every arm on every case."""
    for case in sizes.cases:
        where = Where(case=case, sizes=sizes, seeds=seeds)
        for arm in (*ARMS, *APART):
            yield LayeredJob(where=where, arm=arm)
