"""Whether a child takes away error that a sibling in its place would not."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vsae.metrics.firing import sparse_codes
from vsae.metrics.hierarchy import check_parents, check_rows, check_shapes, edges_of

BLOCK = 1 << 22


@dataclass(frozen=True)
class FunctionalLink:
    """Error taken away by each child, and by a random sibling in its place.

    ``values`` are nan for children that never fire, ``siblings`` also for only children. ``mean``
    is over defined values; ``chance`` over defined siblings, exact; ``chance_std`` is its exact
    standard deviation, siblings drawn uniformly and independently for each child; ``excess`` is the
    mean of ``values - siblings`` where both are defined. nan without any.
    """

    edges: Int[Tensor, "E 2"]
    values: Float[Tensor, " E"]
    siblings: Float[Tensor, " E"]
    mean: float
    chance: float
    chance_std: float
    excess: float


def functional_link(
    x: Tensor, mean: Tensor, codes: Tensor, atoms: Tensor, parents: Tensor
) -> FunctionalLink:
    r"""Relative error that each child takes away on the rows where it fires.

    .. math:: g_{cs} = 1 - \frac{\sum_n \lVert r_n - z_{nc} a_s\rVert^2}
        {\sum_n \lVert r_n\rVert^2}, \qquad r_n = x_n - \hat x_n + z_{nc} a_c

    over the rows n with :math:`z_{nc} \ne 0`. ``values`` are :math:`g_{cc}`: 1 if the child
    completes the reconstruction, 0 if it might as well be left out, below 0 if it does harm.
    ``siblings`` are :math:`g_{cs}` for the other children s of the same parent, on average: the
    child's amplitude along a sibling's atom. Coverage without this link is no hierarchy.

    Args:
        x: Activations ``(rows, d)``, in the units of codes and atoms: those a normaliser makes.
        mean: Their reconstruction by the whole model, ``(rows, d)``.
        codes: ``(rows, K)``, of which ``codes[:, c, None] * atoms[c]`` is c's contribution to
            ``mean``; that of an H-SAE's child, through its parent's up-projection.
        atoms: ``(K, d)``.
        parents: ``(K,)`` int64, -1 for a root.

    Raises:
        ShapeError, DTypeError: ``hierarchy.shape``, ``hierarchy.dtype``.
        GraphError: ``hierarchy.out_of_range``, ``hierarchy.cycle``.
        DataError: ``data.empty``, ``data.nonfinite``.

    Example:
        >>> x, atoms = torch.tensor([[1.0, 1.0, 0.0]]), torch.eye(3)
        >>> codes = torch.tensor([[1.0, 1.0, 0.0]])  # parent, the right child, and its sibling
        >>> found = functional_link(x, codes @ atoms, codes, atoms, torch.tensor([-1, 0, 0]))
        >>> found.values.tolist(), found.siblings.tolist()
        ([1.0, nan], [-1.0, nan])

    Source:
        After Cao et al. (2026), *Tree SAE*, 2605.07922 (the reconstruction condition).
    """
    sparse, x = sparse_codes(codes), check_rows("x", x).double()
    rows, latents = codes.shape
    check_shapes([("x", x, (rows, None)), ("mean", mean, tuple(x.shape))])
    check_shapes([("atoms", atoms, (latents, x.shape[1]))])
    parents = check_parents(parents, latents)
    atoms = check_rows("atoms", atoms).double()
    residual = x - check_rows("mean", mean).double()
    sums = _Sums.of(sparse, residual, atoms)
    edges = edges_of(parents)
    values, siblings, variances = (torch.full((len(edges),), math.nan).double() for _ in range(3))
    for parent in edges[:, 1].unique():
        family = (edges[:, 1] == parent).nonzero().flatten()
        step = max(BLOCK // len(family), 1)
        for start in range(0, len(family), step):
            own = torch.arange(start, min(start + step, len(family)))
            gains = sums.gains(edges[family[own], 0], edges[family, 0], atoms)
            values[family[own]], others = _own_and_others(gains, own)
            siblings[family[own]], variances[family[own]] = others
    return _link(edges, values, siblings, variances)


@dataclass(frozen=True)
class _Sums:
    """Sums over the rows on which each latent fires."""

    pull: Tensor  # z r, (K, d)
    power: Tensor  # z², (K,)
    error: Tensor  # ‖r‖², (K,): 0 for a latent that never fires

    @classmethod
    def of(cls, codes, residual: Tensor, atoms: Tensor) -> "_Sums":
        fires = codes.copy()
        fires.data = fires.data * 0 + 1
        total = torch.from_numpy(fires.T @ residual.square().sum(-1).numpy())
        power = torch.from_numpy((codes * codes).sum(0))
        along = torch.from_numpy(codes.T @ residual.numpy())
        size = atoms.square().sum(-1)
        error = total + 2 * (along * atoms).sum(-1) + power * size
        return cls(along + power[:, None] * atoms, power, error)

    def gains(self, children: Tensor, siblings: Tensor, atoms: Tensor) -> Tensor:
        """g of each child with each sibling's atom; nan for a child that never fires."""
        size = atoms[siblings].square().sum(-1)
        gain = 2 * self.pull[children] @ atoms[siblings].mT - self.power[children, None] * size
        return torch.where(
            self.power[children, None] > 0, gain / self.error[children, None], math.nan
        )


def _own_and_others(gains: Tensor, own: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The gain with the own atom; mean and variance over the others', nan without any."""
    mine = torch.zeros_like(gains, dtype=torch.bool)
    mine[torch.arange(len(own)), own] = True
    count = gains.shape[1] - 1 or math.nan
    mean = torch.where(mine, 0.0, gains).sum(-1) / count
    spread = torch.where(mine, 0.0, gains - mean[:, None]).square().sum(-1) / count
    return gains[mine], (mean, spread)


def _link(edges: Tensor, values: Tensor, siblings: Tensor, variances: Tensor) -> FunctionalLink:
    count = int((~siblings.isnan()).sum()) or math.nan
    return FunctionalLink(
        edges,
        values,
        siblings,
        float(values.nanmean()),
        float(siblings.nanmean()),
        math.sqrt(float(variances.nansum())) / count,
        float((values - siblings).nanmean()),
    )
