"""Whether children stand for true children, and stay in the family."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vsae.metrics.edge_scores import EdgeScores, score_edges
from vsae.metrics.firing import firings
from vsae.metrics.hierarchy import check_parents, check_rows, check_shapes, edges_of


@dataclass(frozen=True)
class ChildPurity:
    """Purity of each child latent, its mean, two chance levels, and the families' agreement.

    ``chance`` is the mean rate of the children's features: a child that fires on random rows.
    ``chance_in_parent`` is their mean rate on the rows of the parent latent: a child that fires on
    random rows *of its parent*, the level to beat. ``family`` scores each edge 1 if the feature
    most like the child latent is a true child of the one most like the parent latent, else 0; its
    chance is that of shuffled parents. Edges one end of which never fires are nan and left out.
    """

    edges: Int[Tensor, "E 2"]
    features: Int[Tensor, " E"]
    values: Float[Tensor, " E"]
    mean: float
    chance: float
    chance_in_parent: float
    family: EdgeScores


def child_purity(
    codes: Tensor, truth: Tensor, parents: Tensor, true_parents: Tensor, similarities: Tensor
) -> ChildPurity:
    r"""Share of a child latent's rows on which the true child it is most like is on.

    .. math:: \mathrm{purity}_c = P(f_c \text{ on} \mid z_c \ne 0), \qquad
        f_c = \arg\max_{f \text{ a true child}} \mathrm{sim}_{cf}

    Args:
        codes: ``(rows, K)``.
        truth: ``(rows, F)``, on where above 0: magnitudes, or labels (for words, the nodes above).
        parents: ``(K,)`` int64, -1 for a root.
        true_parents: ``(F,)`` int64; without a true child every purity is nan.
        similarities: ``(K, F)``: :func:`vsae.metrics.cosine_similarities`, or
            :func:`vsae.metrics.f1_similarities` of other rows than these.

    Raises:
        ShapeError, DTypeError: ``hierarchy.shape``, ``hierarchy.dtype``.
        GraphError: ``hierarchy.out_of_range``, ``hierarchy.cycle``.
        DataError: ``data.empty``, ``data.nonfinite``.

    Example:
        >>> tree, rows = torch.tensor([-1, 0]), torch.tensor([[1.0, 1.0], [1.0, 0.0]])
        >>> found = child_purity(rows, rows, tree, tree, torch.eye(2))
        >>> found.mean, found.chance_in_parent, found.family.mean
        (1.0, 0.5, 1.0)
    """
    rows, latents = check_rows("codes", codes).shape
    check_shapes([("truth", truth, (rows, None))])
    check_shapes([("similarities", similarities, (latents, truth.shape[1]))])
    parents, true_parents = check_parents(parents, latents), check_parents(true_parents)
    check_shapes([("true_parents", true_parents, (truth.shape[1],))])
    likeness = check_rows("similarities", similarities)
    fires, on = firings(codes), firings(truth.clamp(min=0), "truth")
    both, count = torch.from_numpy((fires.T @ on).toarray()), torch.from_numpy(fires.sum(0))
    edges = edges_of(parents)
    alive = (count[edges] > 0).all(-1)
    best = likeness.argmax(-1)
    family = score_edges(
        parents, lambda c, p: (true_parents[best[c], None] == best[p]).double(), alive
    )
    child = torch.where(true_parents >= 0, likeness, -math.inf).argmax(-1)[edges[:, 0]]
    alive = alive & bool((true_parents >= 0).any())
    values = _masked(both[edges[:, 0], child] / count[edges[:, 0]], alive)
    inside = _masked(both[edges[:, 1], child] / count[edges[:, 1]], alive)
    base = _masked(torch.from_numpy(on.sum(0))[child] / rows, alive)
    means = (float(numbers.nanmean()) for numbers in (values, base, inside))
    return ChildPurity(edges, child, values, *means, family)


def _masked(values: Tensor, alive: Tensor) -> Tensor:
    return torch.where(alive, values, math.nan)
