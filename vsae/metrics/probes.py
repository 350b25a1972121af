"""Whether the activation says which child of an active parent is on."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from vsae.metrics.hierarchy import (
    check_parents,
    check_rows,
    check_setting,
    check_shapes,
    dealt,
    edges_of,
    levels,
)
from vsae.metrics.roc import auc


@dataclass(frozen=True)
class ParentChildProbe:
    """AUC of each edge's probe, and those of shuffled parents.

    ``values`` are nan where a half has too few rows of a class; ``mean`` is over the rest. ``null``
    holds ``draws`` shuffled hierarchies (nan likewise), ``chance`` the mean of all its defined
    values, ``chance_std`` the standard deviation of its draws' means: nan for a single draw.
    """

    edges: Int[Tensor, "E 2"]
    values: Float[Tensor, " E"]
    null: Float[Tensor, "draws E"]
    mean: float
    chance: float
    chance_std: float


def parent_child_probe(
    x: Tensor,
    codes: Tensor,
    parents: Tensor,
    *,
    generator: Generator,
    ridge: float = 1e-3,
    minimum: int = 5,
    draws: int = 1,
) -> ParentChildProbe:
    r"""AUC of a linear probe for each child, on the rows where its parent is active.

    .. math:: w = (\tilde X^\top \tilde X + ρ I)^{-1} \tilde X^\top y, \qquad
        ρ = \mathrm{ridge} \cdot \mathrm{tr}(\tilde X^\top \tilde X) / d

    ``X̃`` are the centred activations, and ``y`` whether the child is on, over the rows of the first
    half with the parent on; the AUC (:func:`vsae.metrics.auc`) is of ``X w`` over those of the
    second half. A latent that is read off ``x`` linearly can be predicted under *any* parent: only
    the excess over shuffled parents speaks of a hierarchy. For true children, pass the true codes
    of the features that the latents are matched with.

    Args:
        x: Activations ``(rows, d)``; halves are in their order, so shuffle rows beforehand unless
            the order is what must be crossed.
        codes: ``(rows, K)``, on where not 0.
        parents: ``(K,)`` int64, -1 for a root.
        generator: Of the shuffled parents, on the CPU.
        ridge: Share of the mean variance added to the Gram matrix's diagonal.
        minimum: Least number of rows of each class in each half.
        draws: Number of shuffled hierarchies.

    Raises:
        ShapeError, DTypeError: ``hierarchy.shape``, ``hierarchy.dtype``.
        GraphError: ``hierarchy.out_of_range``, ``hierarchy.cycle``.
        ConfigError: ``hierarchy.setting`` unless ridge > 0, minimum >= 1 and draws >= 1.
        DataError: ``data.empty``, ``data.nonfinite``.

    Example:
        >>> x = torch.tensor([[1.0], [-1.0]]).repeat(20, 1)
        >>> codes = torch.cat([torch.ones(40, 1), x.relu()], -1)
        >>> parent_child_probe(
        ...     x, codes, torch.tensor([-1, 0]), generator=torch.Generator().manual_seed(0)
        ... ).mean
        1.0
    """
    check_setting(ridge > 0, "ridge", ridge, "ridge > 0")
    check_setting(minimum >= 1, "minimum", minimum, "minimum >= 1")
    check_setting(draws >= 1, "draws", draws, "draws >= 1")
    x, on = check_rows("x", x).double(), check_rows("codes", codes) != 0
    check_shapes([("codes", on, (len(x), None))])
    parents = check_parents(parents, on.shape[1])
    edges, probe = edges_of(parents), _Probe(x, on, ridge, minimum)
    depth = levels(parents)[edges[:, 0]]
    values = probe.score(edges)
    null = torch.stack([probe.score(dealt(edges, depth, generator)) for _ in range(draws)])
    means = null.nanmean(-1)
    std = float(means.std()) if draws > 1 else math.nan
    return ParentChildProbe(
        edges, values, null, float(values.nanmean()), float(null.nanmean()), std
    )


@dataclass(frozen=True)
class _Probe:
    x: Float[Tensor, "rows d"]
    on: Bool[Tensor, "rows K"]
    ridge: float
    minimum: int

    def score(self, edges: Tensor) -> Tensor:
        """AUC of every edge; one factorisation per parent."""
        values = torch.full((len(edges),), math.nan, dtype=torch.float64)
        half = len(self.x) // 2
        for parent in edges[:, 1].unique():
            family = (edges[:, 1] == parent).nonzero().flatten()
            rows = self.on[:, parent].nonzero().flatten()
            train, test = rows[rows < half], rows[rows >= half]
            labels = self.on[:, edges[family, 0]]
            enough = self._enough(labels[train]) & self._enough(labels[test])
            if bool(enough.any()):
                weights = self._fit(self.x[train], labels[train][:, enough].double())
                scores, truth = self.x[test] @ weights, labels[test][:, enough]
                found = [auc(scores[:, i], truth[:, i]) for i in range(truth.shape[1])]
                values[family[enough]] = torch.tensor(found, dtype=torch.float64)
        return values

    def _enough(self, labels: Tensor) -> Tensor:
        positive = labels.sum(0)
        return torch.minimum(positive, len(labels) - positive) >= self.minimum

    def _fit(self, x: Tensor, y: Tensor) -> Tensor:
        x = x - x.mean(0)  # which centres y as well
        gram = x.mT @ x
        # rows that do not vary predict nothing: any positive ridge gives weights 0, an AUC of 1/2
        scale = gram.diagonal().mean()
        ridge = self.ridge * torch.where(scale > 0, scale, 1.0)
        gram.diagonal().add_(ridge)
        return torch.cholesky_solve(x.mT @ y, torch.linalg.cholesky(gram))
