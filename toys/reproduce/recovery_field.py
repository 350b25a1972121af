"""How an arm of the field is begun and trained, whatever the data."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from vsae.autoencoder import Autoencoder
from vsae.batches import stream
from vsae.run import Run
from vsae.schedules import LinearDecay
from vsae.training import Schedule, fit

WEIGHTS = 14_000_000  # a random stream


@contextmanager
def weights_of(seed: int) -> Iterator[None]:
    """Random weights are those of a seed inside, and random state is as it was afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(seed, WEIGHTS).initial_seed())
        yield


def field_run(
    pair: Autoencoder,
    x: Tensor,
    *,
    steps: int,
    batch: int,
    lr: float,
    seed: int | Sequence[int],
    beta: Schedule | float = 1.0,
) -> Run:
    """Adam at one learning rate, in a straight line to 0 over the last fifth."""
    return fit(
        pair,
        x,
        steps=steps,
        batch_size=batch,
        lr=lr,
        lr_schedule=LinearDecay(start=steps * 4 // 5, end=steps),
        beta=beta,
        seed=seed,
    )
