"""Whether another training run finds the same atoms."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vsae.errors import EmptyDataError
from vsae.metrics.matching import absolute_cosines, check_threshold, match
from vsae.metrics.recovered import random_share


@dataclass(frozen=True)
class Reproduced:
    """Shares of atoms found again: by any atom of the other run, and by one of their own.

    ``chance`` is the exact expectation of ``best`` if the other run's atoms were random directions;
    that of ``one_to_one`` is at most as much.
    """

    best: float
    one_to_one: float
    chance: float


@dataclass(frozen=True)
class Stability:
    """Means of :class:`Reproduced` over all ordered pairs of runs, and of controls.

    ``pairs[i, j]`` is ``best`` of run i in run j, nan on the diagonal.
    """

    best: float
    one_to_one: float
    chance: float
    control_best: float
    control_one_to_one: float
    pairs: Float[Tensor, "R R"]


def reproduced(atoms: Tensor, other: Tensor, *, threshold: float = 0.9) -> Reproduced:
    r"""Share of atoms with a partner of ``|cos| > threshold`` in another run.

    .. math:: \mathrm{best} = \frac1K \#\{k : \max_j |\cos(d_k, d'_j)| > t\}

    ``one_to_one`` counts only the partners of the Hungarian matching, which maximises the sum of
    ``|cos|``: atoms of which one run has several copies are not found again by one atom. The cosine
    is absolute, as everywhere here; atoms :math:`d` and :math:`-d` of non-negative codes count as
    the same. Zero atoms are never reproduced; leave dead ones out, or count them as a failure.

    Args:
        atoms: ``(K, d)``, of any norm.
        other: ``(J, d)``, those of the other run.
        threshold: Of ``|cos|``; to be exceeded.

    Raises:
        ShapeError: ``recovery.shape``.
        ConfigError: ``recovery.threshold`` unless in [0, 1].
        EmptyDataError: ``data.empty`` without atoms.

    Example:
        >>> found = reproduced(torch.ones(2, 5), torch.eye(5)[:1] + 1)
        >>> found.best, found.one_to_one
        (1.0, 0.5)
    """
    check_threshold(threshold)
    best = (absolute_cosines(atoms, other).amax(1) > threshold).double().mean()
    matched = match(atoms, other, threshold=0.0).cosines > threshold
    chance = random_share(len(other), atoms.shape[1], threshold=threshold)
    return Reproduced(float(best), int(matched.sum()) / len(atoms), chance)


def seed_stability(
    runs: Sequence[Tensor], controls: Sequence[Tensor], *, threshold: float = 0.9
) -> Stability:
    """Mean share of atoms reproduced, over all ordered pairs of runs, beside that of controls.

    Random directions are too easy a control: runs whose atoms *start* at random rows of the data
    may agree because the rows do. Draw those (centred as the model centres them, as many as there
    are atoms) once for each of at least two controls.

    Args:
        runs: The atoms ``(K, d)`` of each run; at least two.
        controls: Vectors ``(K, d)`` drawn without training; at least two sets.
        threshold: Of ``|cos|``; to be exceeded.

    Raises:
        EmptyDataError: ``stability.runs`` with fewer than two; and as :func:`reproduced`.

    Example:
        >>> apart = [torch.eye(4)[:2], torch.eye(4)[2:]]
        >>> found = seed_stability([torch.eye(4), torch.eye(4).flip(0)], apart)
        >>> found.best, found.control_best
        (1.0, 0.0)
    """
    best, own, chance, pairs = _over_pairs(runs, threshold, "runs")
    control_best, control_own, _, _ = _over_pairs(controls, threshold, "controls")
    return Stability(best, own, chance, control_best, control_own, pairs)


def _over_pairs(
    runs: Sequence[Tensor], threshold: float, name: str
) -> tuple[float, float, float, Tensor]:
    if len(runs) < 2:
        raise EmptyDataError(
            f"{name} to compare with each other: got {len(runs)}, expected >= 2.",
            code="stability.runs",
            context={name: len(runs)},
        )
    pairs = torch.full((len(runs), len(runs)), torch.nan, dtype=torch.float64)
    found = []
    for i, j in itertools.permutations(range(len(runs)), 2):
        found.append(reproduced(runs[i], runs[j], threshold=threshold))
        pairs[i, j] = found[-1].best
    means = [(r.best, r.one_to_one, r.chance) for r in found]
    best, own, chance = torch.tensor(means, dtype=torch.float64).mean(0).tolist()
    return best, own, chance, pairs
