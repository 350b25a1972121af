"""What a trained ladder is worth where the truth is known, and what its levels say."""

import math
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import squareform
from torch import Generator, Tensor

from toys.reproduce.ladder_data import Truth, World
from vsae import metrics
from vsae.errors import VsaeError

RARE = 30  # rows on which a latent must fire to take part in least squares


def recovery(codes: Sequence[Tensor], truth: Sequence[Tensor]) -> float:
    """Mean F1 of features by one latent each; matched on the first rows, scored on the second."""
    chosen, scored = (
        metrics.f1_similarities(code, wanted.double())
        for code, wanted in zip(codes, truth, strict=True)
    )
    latents, features = linear_sum_assignment(-chosen.numpy())
    return float(scored[latents, features].sum()) / truth[0].shape[1]


def directions(atoms: Tensor, *readings: Tensor) -> float:
    """Mean ``|cos|`` of features and one atom each; of each pair the best reading of a feature."""
    cosines = torch.stack([metrics.cosine_similarities(atoms, found) for found in readings])
    similar = cosines.amax(0).numpy()
    return float(similar[linear_sum_assignment(-similar)].sum()) / readings[0].shape[0]


def recovered(
    codes: Sequence[Tensor], atoms: Tensor, world: World, held: Sequence[Truth], fine: int
) -> dict[str, float]:
    """Fine features and clusters, by the level meant for them and by any latent."""
    first, second = ([c[:, part] for c in codes] for part in (slice(fine), slice(fine, None)))
    wanted = {"fine": [t.fine for t in held], "coarse": [t.coarse for t in held]}
    found = {f"{name}_f1_any": recovery(codes, truth) for name, truth in wanted.items()}
    found["fine_mcc_any"] = directions(atoms, world.offsets, world.concepts)
    found["coarse_mcc_any"] = directions(atoms, world.clusters)
    if second[0].shape[1]:
        found["fine_f1"] = recovery(first, wanted["fine"])
        found["coarse_f1"] = recovery(second, wanted["coarse"])
        found["fine_mcc"] = directions(atoms[:fine], world.offsets, world.concepts)
        found["coarse_mcc"] = directions(atoms[fine:], world.clusters)
    return found


def by_chance(
    codes: Sequence[Tensor],
    atoms: Tensor,
    world: World,
    held: Sequence[Truth],
    generator: Generator,
) -> dict[str, float]:
    """What any latent would reach: with its rows permuted, and with a direction at random."""
    dealt = [c[torch.randperm(len(c), generator=generator)] for c in codes]
    atoms = torch.randn(atoms.shape, generator=generator, dtype=atoms.dtype)
    return {
        "fine_f1_chance": recovery(dealt, [t.fine for t in held]),
        "coarse_f1_chance": recovery(dealt, [t.coarse for t in held]),
        "fine_mcc_chance": directions(atoms, world.offsets, world.concepts),
        "coarse_mcc_chance": directions(atoms, world.clusters),
    }


def lifted(codes: Tensor, above: Tensor) -> Tensor:
    """For each latent that fires, which of the columns of ``above`` raises it most; -1 else."""
    on, given = (codes != 0).double(), (above != 0).double()
    together = on.mT @ given / given.sum(0).clamp(min=1)
    best = together / on.mean(0)[:, None].clamp(min=1e-12)
    return torch.where(on.any(0), best.argmax(1), -1)


def blocks(
    codes: Sequence[Tensor], clusters: Tensor, generator: Generator, draws: int
) -> dict | None:
    """Correlations of latents of one true cluster, less those of others; ``None`` without pairs."""
    labels = lifted(codes[0], clusters)
    live = (labels >= 0) & (codes[1] != 0).any(0)
    if len(labels[live].unique()) < 2 or len(labels[live].unique()) == int(live.sum()):
        return None
    correlations = metrics.code_correlations(codes[1][:, live])
    found = metrics.block_score(correlations, labels[live], generator=generator, draws=draws)
    return asdict(found)


def fine_clusters(codes: Tensor, count: int) -> Tensor:
    """Clusters of latents by average linkage on ``1 - correlation``."""
    distance = (1 - metrics.code_correlations(codes)).clamp(min=0).numpy()
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform((distance + distance.T) / 2), "average")
    return torch.from_numpy(fcluster(tree, count, "maxclust").astype(np.int64))


def nested(
    fine: Tensor, coarse: Tensor, count: int, generator: Generator, draws: int
) -> dict | None:
    """Whether clusters of fine latents lie inside those that coarse latents recruit."""
    live = fine.any(0)
    if int(live.sum()) <= count or not coarse.any():
        return None
    small, large = fine_clusters(fine[:, live], count), lifted(fine[:, live], coarse)
    return asdict(metrics.nestedness(small, large, generator=generator, draws=draws))


def recruits(fine: Tensor, coarse: Tensor, generator: Generator, draws: int) -> dict | None:
    """Effective number of fine latents by coarse one, against shuffled rows."""
    try:
        found = metrics.recruitment(fine, coarse, generator=generator, draws=draws)
    except VsaeError:  # a level is dead
        return None
    value = found.mean_effective
    return asdict(value) if math.isfinite(value.value) else None


def explained(codes: Sequence[Tensor], x: Sequence[Tensor]) -> float | None:
    """R² of held-out rows from a level alone, by least squares; ``None`` of a dead level.

    Without latents that fire on a few rows only: their coefficients may be anything.
    """
    kept = (codes[0] != 0).sum(0) >= RARE
    if not kept.any():
        return None
    return float(metrics.coverage_ratio(codes[0][:, kept], x[0], codes[1][:, kept], x[1]))


def levels(
    codes: Sequence[Tensor],
    atoms: Tensor,
    held: Sequence[Truth],
    fine: int,
    generator: Generator,
    draws: int,
) -> dict:
    """Read-outs with their nulls; of a flat code those of one level, as the fine one."""
    first, second = ([c[:, part] for c in codes] for part in (slice(fine), slice(fine, None)))
    x, clusters = [t.x for t in held], held[0].coarse
    shuffled = [part[torch.randperm(len(part), generator=generator)] for part in first]
    found = {
        "fine_r2": explained(first, x),
        "fine_r2_shuffled": explained(shuffled, x),
        "fine_blocks": blocks(first, clusters, generator, draws),
    }
    if second[0].shape[1]:
        count = 2 * clusters.shape[1]
        found["nested"] = nested(first[0], second[0], count, generator, draws)
        found["recruited"] = recruits(first[1], second[1], generator, draws)
    found["fine_coherence"] = coherence(atoms[:fine], generator, draws)
    if second[0].shape[1]:
        found["coarse_coherence"] = coherence(atoms[fine:], generator, draws)
        found["coarse_r2"] = explained(second, x)
        found["coarse_by_fine"] = explained(first, second) if second[1].any() else None
    return found


def coherence(atoms: Tensor, generator: Generator, draws: int) -> dict:
    """Of a level's atoms, against random directions."""
    return asdict(metrics.mutual_coherence(atoms, generator=generator, draws=draws))


def tuning(codes: Tensor, truth: Truth) -> dict[str, Tensor]:
    """For each latent its ring, its mean angle there, and how sharply it is tuned (0 to 1)."""
    ring = lifted(codes, truth.coarse).clamp(min=0)
    angles = truth.angles[:, ring]
    weight = codes.double() * truth.coarse[:, ring]
    total = weight.sum(0).clamp(min=1e-12)
    cosine, sine = ((weight * f(angles)).sum(0) / total for f in (torch.cos, torch.sin))
    length = torch.sqrt(cosine**2 + sine**2)
    return {"ring": ring, "angle": torch.atan2(sine, cosine), "sharpness": length}
