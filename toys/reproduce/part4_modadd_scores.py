"""In which plane each atom lies in each layer, and whether it is the same plane in all."""

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from toys.reproduce.part4_modadd_data import Streams
from toys.reproduce.part4_modadd_settings import ModAddSettings
from toys.reproduce.part4_truth_training import numbers
from vsae import metrics
from vsae.autoencoder import Autoencoder
from vsae.batches import stream

PRESENT = 0.3  # relative norm above which an atom is in a layer
DEALS = 50  # of the planes of a layer among latents, for what chance would give
DEALT = 22_000_001  # a random stream


def plane_scores(
    shares: Float[Tensor, "K n P"],
    present: Bool[Tensor, "K n"],
    inside: float,
    generator: Generator,
) -> dict[str, float | list[float | None]]:
    """Planarity, atoms inside a plane, and atoms of one plane in all their layers.

    A latent that is in fewer than two layers has nothing to be consistent with.

    Args:
        shares: Of each atom's squared norm in a layer, in each plane.
        present: Whether the latent is in the layer.
        inside: The share from which an atom lies in a plane.
        generator: Of the deals.
    """
    best = shares.max(-1)
    lies = best.values > inside

    def mean(values: Tensor) -> float:
        return float(values.double().mean()) if len(values) else float("nan")

    several = present.sum(1) > 1
    dealt = [
        mean(_same(_deal(best.indices, present, generator), present)[several]) for _ in range(DEALS)
    ]
    return {
        "planarity": mean(best.values[present]),
        "in_plane": mean(lies[present]),
        "in_plane_all": mean((lies | ~present).all(1)[present.any(1)]),
        "consistent": mean(_same(best.indices, present)[several]),
        "consistent_dealt": sum(dealt) / DEALS,
        "several": mean(several),
        "planarity_layers": [
            _none(mean(best.values[present[:, at], at])) for at in range(shares.shape[1])
        ],
        "in_plane_layers": [_none(mean(lies[present[:, at], at])) for at in range(shares.shape[1])],
    }


def _same(planes: Tensor, present: Tensor) -> Bool[Tensor, " K"]:
    """Whether all layers in which a latent is agree."""
    high = planes.masked_fill(~present, -1).amax(1)
    low = planes.masked_fill(~present, planes.max() + 1).amin(1)
    return high == low


def _deal(planes: Tensor, present: Tensor, generator: Generator) -> Tensor:
    """Each layer's planes among the latents that are in it, at random."""
    dealt = planes.clone()
    for at in range(planes.shape[1]):
        own = present[:, at].nonzero().flatten()
        dealt[own, at] = planes[own[torch.randperm(len(own), generator=generator)], at]
    return dealt


def _none(value: float) -> float | None:
    return None if value != value else value


@torch.no_grad()
def dictionary_scores(
    found: Streams, atoms: Float[Tensor, "K width"], sizes: ModAddSettings, seed: int
) -> dict:
    """Of atoms in normalised units, in which planes are the same planes."""
    norms = atoms.unflatten(1, found.all.shape[1:]).norm(dim=-1)
    present = norms > PRESENT * norms.amax(1, keepdim=True)
    deal = stream(seed, DEALT)
    return plane_scores(found.planarity(atoms), present, sizes.inside, deal)


@torch.no_grad()
def model_scores(found: Streams, pair: Autoencoder, sizes: ModAddSettings, seed: int) -> dict:
    """Of latents that fire on held-out rows."""
    codes, restored = pair.encode(found.test), pair(found.test)
    live = codes.count_nonzero(0) > 0
    row = {
        "l0": float(metrics.l0(codes)),
        "ev": float(metrics.explained_variance(*(x.flatten(1) for x in (found.test, restored)))),
        "dead": float(metrics.dead_fraction(codes)),
        "accuracy": found.model.accuracy(pair(found.all)[:, -1].float()),
    }
    if bool(live.any()):
        row |= dictionary_scores(found, pair.W_dec[live], sizes, seed)
    return numbers(row)


def controls(found: Streams, sizes: ModAddSettings, seed: int) -> dict[str, Tensor]:
    """Atoms that nothing was learned for, and principal components of all layers together."""
    draw = stream(seed, DEALT + 1)
    rows = found.normalizer(found.train.flatten(1))
    axes = torch.linalg.svd(rows.double(), full_matrices=False).Vh[: sizes.latents // 2]
    picked = torch.randperm(len(rows), generator=draw)[: sizes.latents]
    return {
        "random directions": torch.randn(sizes.latents, rows.shape[1], generator=draw),
        "random data points": rows[picked],
        "principal components": axes.to(rows.dtype),
    }
