"""What needs no training: the marks that a trained dictionary has to beat."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from toys.reproduce.flat_data import Problem
from toys.reproduce.quickstart_scores import pca
from vsae.presets import topk_autoencoder


@dataclass(frozen=True)
class Control:
    """A reference.

    Args:
        label: As tables and figures print it.
        score: Its metrics with ``k`` numbers per row, of a seed.
    """

    label: str
    score: Callable[[Problem, int, int], dict[str, float]]


def untrained(found: Problem, k: int, seed: int) -> dict[str, float]:
    """TopK with random unit atoms that are also the encoder."""
    size = found.size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pair = topk_autoencoder(size.d_model, size.latents, k=k, normalizer=size.normalizer)
    return found.score(pair)


def components(found: Problem, k: int, seed: int) -> dict[str, float]:
    """PCA with ``k`` components, the same for every row: dense codes, no dictionary."""
    return {"l0": float(k)} | found.fidelity(pca(found.train, k))


CONTROLS = {
    "untrained": Control("untrained TopK", untrained),
    "pca": Control("PCA, k = L0", components),
}
"""By name."""
