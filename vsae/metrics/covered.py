"""Whether parents are on when their children are."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vsae.metrics.edge_scores import EdgeScores, score_edges
from vsae.metrics.firing import firings
from vsae.metrics.hierarchy import check_parents, edges_of


@dataclass(frozen=True)
class Coverage:
    """``P(parent on | child on)`` of every edge, and its ratio to ``P(parent on)``."""

    conditional: EdgeScores
    lift: EdgeScores


def coverage(codes: Tensor, parents: Tensor) -> Coverage:
    r"""How often the parent fires when the child does, per edge, and against its own rate.

    .. math:: \mathrm{coverage}_c = P(z_{p} \ne 0 \mid z_c \ne 0), \qquad
        \mathrm{lift}_c = \mathrm{coverage}_c / P(z_{p} \ne 0)

    Necessary for a hierarchy and not sufficient: a parent that always fires covers everything (its
    lift is 1), and by construction an H-SAE's is 1 on every edge, since a child needs its parent's
    slot. Read it with :func:`vsae.metrics.functional_link`. The chance level is that of shuffled
    parents. A child that never fires has no coverage (nan), nor lift a parent that never fires.

    Args:
        codes: ``(rows, K)``.
        parents: ``(K,)`` int64, -1 for a root.

    Raises:
        ShapeError, DTypeError: ``hierarchy.shape``, ``hierarchy.dtype``.
        GraphError: ``hierarchy.out_of_range``, ``hierarchy.cycle``.
        DataError: ``data.empty``, ``data.nonfinite``.

    Example:
        >>> codes = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
        >>> found = coverage(codes, torch.tensor([-1, 0]))
        >>> found.conditional.mean, found.lift.mean
        (0.5, 1.0)

    Source:
        Cao et al. (2026), *Tree SAE*, 2605.07922 (activation coverage, and that it is not enough).
    """
    fires = firings(codes)
    parents = check_parents(parents, codes.shape[1])
    count, edges = torch.from_numpy(fires.sum(0)), edges_of(parents)

    def conditional(children: Tensor, above: Tensor) -> Tensor:
        both = fires[:, children.numpy()].T @ fires[:, above.numpy()]
        return torch.from_numpy(both.toarray()) / count[children, None]

    def lift(children: Tensor, above: Tensor) -> Tensor:
        return conditional(children, above) * len(codes) / count[above]

    fired = count[edges] > 0
    return Coverage(
        score_edges(parents, conditional, fired[:, 0]),
        score_edges(parents, lift, fired.all(-1)),
    )
