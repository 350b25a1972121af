"""Whether matched latents have the true parents."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vsae.metrics.edge_scores import score_edges
from vsae.metrics.hierarchy import check_parents, check_setting, edges_of
from vsae.metrics.matching import match


@dataclass(frozen=True)
class ParentRecovery:
    """True edges found again, with the exact chance level.

    ``share`` is over ``evaluated`` edges, whose both ends are matched; ``of_all`` is the same count
    over all ``true_edges``, so that what is not found at all counts as a miss. ``chance`` and
    ``chance_std`` are the mean and standard deviation of ``share`` under shuffled parents. nan
    where there is nothing to divide by.
    """

    share: float
    chance: float
    chance_std: float
    of_all: float
    evaluated: int
    true_edges: int


def parent_recovery(
    atoms: Tensor,
    parents: Tensor,
    features: Tensor,
    true_parents: Tensor,
    *,
    threshold: float = 0.7,
) -> ParentRecovery:
    r"""Share of true parent–child edges that the matched latents have, too.

    Latents and features are matched one to one (Hungarian on ``|cos|``, as in
    :func:`vsae.metrics.mean_correlation_coefficient`); a pair counts as matched from a cosine of
    ``threshold``. An edge :math:`p \to c` between matched features is found if the latent of c has
    the latent of p as parent. Chance: of the :math:`n` latents of the child's level, :math:`m` have
    the wanted parent, which shuffling gives it with probability :math:`m / n`.

    Args:
        atoms: Decoder rows ``(K, d)``.
        parents: ``(K,)`` int64, the parent of each latent, -1 for a root.
        features: True directions ``(F, d)``.
        true_parents: ``(F,)`` int64.
        threshold: Least ``|cos|`` of a match. At 0.7 an atom has about half its squared length
            along the feature: none passes for two orthogonal features by a wide margin, and the
            absorbed child ``p + c`` (cosine :math:`1/\sqrt2` with c) still counts as the child's.

    Raises:
        ShapeError, DTypeError: ``recovery.shape``, ``hierarchy.shape``, ``hierarchy.dtype``.
        GraphError: ``hierarchy.out_of_range``, ``hierarchy.cycle``.
        ConfigError: ``hierarchy.setting`` unless the threshold is in [0, 1].
        NonFiniteDataError: ``data.nonfinite``.

    Example:
        >>> tree = torch.tensor([-1, 0, 0])
        >>> found = parent_recovery(torch.eye(3), tree, torch.eye(3), tree)
        >>> found.share, found.chance  # one parent: nothing to shuffle
        (1.0, 1.0)
    """
    check_setting(0 <= threshold <= 1, "threshold", threshold, "0 <= threshold <= 1")
    latent = match(atoms, features, threshold=threshold).latents
    parents = check_parents(parents, len(atoms))
    edges = edges_of(check_parents(true_parents, len(features)))
    matched = latent[edges][(latent[edges] >= 0).all(-1)]
    wanted = torch.full((len(parents),), -1)
    wanted[matched[:, 0]] = matched[:, 1]
    everywhere = torch.ones(int((parents >= 0).sum()), dtype=torch.bool)
    hits = score_edges(parents, lambda c, p: (wanted[c, None] == p).double(), everywhere)
    found = [len(everywhere) * n for n in (hits.mean, hits.chance, hits.chance_std)]
    found = found if len(everywhere) else [0.0] * 3  # no latent has a parent: none is the true one
    share, chance, std = (n / (len(matched) or math.nan) for n in found)
    of_all = found[0] / (len(edges) or math.nan)
    return ParentRecovery(share, chance, std, of_all, len(matched), len(edges))
