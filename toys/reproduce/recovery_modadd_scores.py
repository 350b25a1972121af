"""How far a dictionary has found the planes of a network, and its codes blocks and rings."""

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.cluster.hierarchy import fcluster, linkage
from torch import Generator, Tensor
from torch.nn.functional import normalize

from toys.reproduce.recovery_modadd_data import Activations
from toys.reproduce.recovery_scores import encoded, plain
from toys.reproduce.recovery_structure import coupled
from toys.rings import Rings
from vsae import metrics
from vsae.autoencoder import Autoencoder

INSIDE = 0.9  # the share of an atom's squared norm from which it lies in a plane


def plane_scores(rings: Rings, atoms: Float[Tensor, "K d"]) -> dict[str, float]:
    """Where atoms lie: mean planarity, the share inside a plane, the share of planes found.

    A plane is found if the atoms inside it surround the origin, that is if no gap between
    neighbouring directions reaches half a turn: else non-negative codes could not restore it.
    """
    share, plane = rings.planarity(atoms).max(-1)
    inside, angles = share > INSIDE, rings.angles(atoms)
    found = [surrounds(angles[inside & (plane == f), f]) for f in range(len(rings.frequencies))]
    return {
        "planarity": float(share.mean()),
        "in_plane": float(inside.double().mean()),
        "planes_found": sum(found) / len(found),
    }


def surrounds(angles: Float[Tensor, " n"]) -> bool:
    """Whether directions in a plane leave no gap of half a turn."""
    if len(angles) < 3:
        return False
    around = angles.sort().values
    gaps = torch.cat([around.diff(), around[:1] + 2 * math.pi - around[-1:]])
    return bool(gaps.max() < math.pi)


def blocks_of(weights: Float[Tensor, "K K"], count: int) -> Int[Tensor, " K"]:
    """Spectral clusters of latents tied with such strengths, of whichever sign.

    Rows of the first ``count`` eigenvectors of the symmetric normalised Laplacian, made unit
    vectors, are clustered by Ward's rule.

    Source:
        Ng, Jordan & Weiss (2001), *On spectral clustering*.
    """
    strength = weights.double().abs()
    scale = strength.sum(0).clamp(min=1e-12).rsqrt()
    vectors = torch.linalg.eigh(scale[:, None] * strength * scale).eigenvectors[:, -count:]
    labels = fcluster(linkage(normalize(vectors, dim=-1).numpy(), "ward"), count, "maxclust")
    return torch.from_numpy(labels.astype(np.int64))


def block_score(rings: Rings, atoms: Float[Tensor, "K d"], codes: Tensor) -> float | None:
    """ARI of clusters of co-firing and the plane that each atom is most in; nothing of one.

    For blocks that are on at once: of blocks that exclude each other all latents are tied.
    """
    count = len(rings.frequencies)
    if count < 2 or len(atoms) <= count:
        return None
    weights = torch.from_numpy(coupled(codes).adjacency().toarray())
    return metrics.adjusted_rand_index(blocks_of(weights, count), rings.planarity(atoms).argmax(-1))


def ring_score(
    rings: Rings, atoms: Float[Tensor, "K d"], codes: Tensor, dealt: Generator | None = None
) -> float | None:
    """Pearson's correlation, over pairs of latents of a plane, of two similarities.

    These are the correlation of their codes and the cosine of the angle between their atoms'
    projections. Angles are those of other latents of the plane, at random, if ``dealt``: the
    control.
    """
    plane, angles = rings.planarity(atoms).argmax(-1), rings.angles(atoms)
    alike, near = [], []
    for f in plane.unique().tolist():
        own = (plane == f).nonzero().flatten()
        if len(own) < 3:
            continue
        turn = angles[own, f]
        turn = turn if dealt is None else turn[torch.randperm(len(own), generator=dealt)]
        upper = torch.ones(len(own), len(own)).triu(1) > 0
        alike.append(torch.corrcoef(codes[:, own].double().mT)[upper])
        near.append((turn[:, None] - turn).cos()[upper])
    if not alike:
        return None
    found = torch.corrcoef(torch.stack([torch.cat(alike), torch.cat(near)]))[0, 1]
    return float(found)


def dictionary_scores(
    rings: Rings, atoms: Float[Tensor, "K d"], codes: Float[Tensor, "rows K"], seed: int
) -> dict:
    """Of atoms that fire, planes; of their codes, blocks and rings."""
    return plane_scores(rings, atoms) | {
        "blocks": block_score(rings, atoms, codes),
        "ring": ring_score(rings, atoms, codes),
        "ring_dealt": ring_score(rings, atoms, codes, Generator().manual_seed(seed)),
    }


@torch.no_grad()
def untrained_scores(found: Activations, atoms: Float[Tensor, "K d"], seed: int) -> dict:
    """Those of codes that are relu(atoms · x): how much blocks and rings owe to geometry alone."""
    codes = (found.normalizer(found.test).to(atoms.dtype) @ atoms.mT).relu()
    live = codes.count_nonzero(0) > 0
    scores = dictionary_scores(found.rings, atoms[live], codes[:, live], seed)
    return plain({"l0": float(metrics.l0(codes))} | scores)


@torch.no_grad()
def model_scores(found: Activations, pair: Autoencoder, seed: int) -> dict:
    """All of them, of latents that fire on held-out rows; nothing that JSON could not hold."""
    codes = encoded(pair, found.test).values
    live = codes.count_nonzero(0) > 0
    atoms, fired = pair.W_dec[live], codes[:, live]
    row = {
        "l0": float(metrics.l0(codes)),
        "ev": float(metrics.explained_variance(found.test, pair.decode(codes))),
        "dead": 100 * float(metrics.dead_fraction(codes)),
        "accuracy": None,
    }
    if not bool(live.any()):
        return plain(row)
    row |= dictionary_scores(found.rings, atoms, fired, seed)
    if found.sums:
        restored = pair.decode(encoded(pair, found.all).values)
        row["accuracy"] = found.model.accuracy(restored.float())
    return plain(row)
