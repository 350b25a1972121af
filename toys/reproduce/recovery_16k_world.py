"""The toy of the 16k protocol, rows that are drawn as training asks for them, and their truth."""

import time
from collections.abc import Callable
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from toys.reproduce.recovery_16k_settings import Settings16k
from toys.reproduce.recovery_truth import Directions
from toys.synth import SynthToy
from vsae.batches import Batches, stream

FRESH, SAMPLE, HELD_OUT = (1_000_000_000 * n for n in (1, 2, 3))  # random streams
CHUNK = 4_096  # rows drawn at once: their codes are not kept


class FreshRows(Batches):
    """A toy's rows, drawn anew for every step on its device: nothing is stored, nothing repeats.

    Step ``t`` is a pure function of seed, start and ``t``.

    Args:
        toy: On the device of training.
        sample: Some of its rows, for what a run looks at beforehand.
        size: Rows per batch.
        seed: Of the rows.
        start: The first step's number; phases whose steps do not overlap have no row in common.
    """

    def __init__(self, toy: SynthToy, sample: Tensor, size: int, seed: int, start: int) -> None:
        super().__init__(sample, size, (seed,))
        self.toy, self.start = toy, start

    def __call__(self, step: int) -> Float[Tensor, "B d"]:
        number = FRESH + self.start + step
        return self.toy.sample(self.size, stream(self.seeds[0], number, self.data.device)).x

    def rows(self, step: int) -> Int[Tensor, "1 B"]:
        """Numbers of the rows of a step, counted from the first step of this run."""
        return torch.arange(step * self.size, (step + 1) * self.size)[None]


class World:
    """One toy, on one device.

    Args:
        chosen: Sizes.
        seed: Of toy, rows and weights.
        device: Where.
    """

    def __init__(self, chosen: Settings16k, seed: int, device: torch.device) -> None:
        self.chosen, self.seed, self.device = chosen, seed, device
        self.clock = clock_of(device)
        begun = self.clock()
        self.toy = chosen.part_case.build(Generator(device).manual_seed(seed))
        self.seconds = self.clock() - begun  # mostly of the descent that spreads directions
        generator, whole = stream(seed, SAMPLE, device), range(0, chosen.sample, CHUNK)
        sizes = [min(CHUNK, chosen.sample - at) for at in whole]
        self.sample = torch.cat([self.toy.sample(size, generator).x for size in sizes])
        held_out = self.toy.sample(chosen.test, stream(seed, HELD_OUT, device))
        self.test, strengths = held_out.x, held_out.codes.cpu()
        self.truth = Directions(self.toy.dictionary.cpu(), strengths)

    @property
    def latents(self) -> int:
        """As many as features."""
        return len(self.toy.dictionary)

    @cached_property
    def l0(self) -> float:
        """Features that truly fire on a row."""
        return float((self.truth.strengths > 0).sum(-1, dtype=torch.float64).mean())

    @cached_property
    def chance(self) -> float:
        """MCC of random atoms: one draw, as a matching of so many takes its time."""
        return self.truth.chance(self.latents, self.test.shape[1], draws=1)

    def rows(self, size: int, start: int) -> FreshRows:
        """Training rows."""
        return FreshRows(self.toy, self.sample, size, self.seed, start)


def clock_of(device: torch.device) -> Callable[[], float]:
    """Seconds: of this process on a CPU, which others may share; of the wall on a GPU."""
    if device.type == "cpu":
        return time.process_time

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def forget_peak(device: torch.device) -> None:
    """Count the most memory from now on: the next arm's alone, and what all arms share."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_gib(device: torch.device) -> float | None:
    """The most memory of a GPU that was held at once since it was forgotten, GiB.

    ``None`` on a CPU: a process's greatest memory cannot be reset, and is of all arms.
    """
    if device.type != "cuda":
        return None
    return torch.cuda.max_memory_allocated(device) / 2**30
