"""The Laplacian of one graph, or of one graph per replica, as an operator on rows of codes."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from scipy import sparse
from torch import Tensor, nn

from priors._replica_rows import flat_rows, unflat_rows
from priors.graph import Graph
from priors.laplacian_forms import laplacian_forms
from priors.replicas import replica_like, stack_like
from priors.sparse_factor import SymmetricSolve, factorise


class LaplacianOperator(nn.Module):
    """``L`` of one graph on codes ``(*batch, K)``, or ``L_r`` on codes ``(*batch, R, B, K)``.

    Replicas are one block-diagonal matrix over ``R · K`` nodes, so graphs with different numbers of
    edges need no padding, except in the noise of a draw.

    Args:
        graphs: One graph; or one per replica, all over ``K`` latents, and then ``stacked``.
        stacked: Whether the batch shape is ``(R, 1)`` rather than ``()``.
    """

    def __init__(self, graphs: Sequence[Graph], *, stacked: bool = False) -> None:
        super().__init__()
        self.graphs, self.stacked = tuple(graphs), stacked
        self.num_nodes, self.num_noise = graphs[0].num_nodes, max(g.num_edges for g in graphs)
        union = Graph.disjoint(graphs) if len(graphs) > 1 else graphs[0]
        self._union, self._factor = union, None
        starts, ends, _ = union.laplacian_csr
        self.register_buffer("starts", starts, persistent=False)
        self.register_buffer("ends", ends, persistent=False)
        for name, value in self._exact().items():
            value = value.to(torch.get_default_dtype()) if value.is_floating_point() else value
            self.register_buffer(name, value, persistent=False)

    def _exact(self) -> dict[str, Tensor]:
        """Weights, degrees and edges as the graphs have them, in float64."""
        shape = (len(self.graphs), 1, -1) if self.stacked else (-1,)
        values = {
            "weights": self._union.laplacian_csr[2],
            "degree": torch.from_numpy(self._union.laplacian().diagonal()).view(shape),
        }
        edges = _incidence(self.graphs, self.num_noise)
        return values | {name: torch.stack(parts).view(shape) for name, parts in edges.items()}

    def _apply(self, fn, recurse=True):
        before = self.weights.dtype
        super()._apply(fn, recurse)
        if self.weights.dtype != before:  # a cast of a cast would keep the first one's rounding
            for name, value in self._exact().items():
                held = getattr(self, name)
                setattr(self, name, value.to(held.device, held.dtype))
        return self

    @property
    def _replicas(self) -> int | None:
        return len(self.graphs) if self.stacked else None

    def forms(self, z: Float[Tensor, "*rows K"]) -> tuple[Tensor, Tensor, Tensor]:
        """``zᵀz`` and ``zᵀLz`` per row, and ``Lz``."""
        rows, shape = flat_rows(z, self._replicas)
        found = laplacian_forms(rows, self.starts, self.ends, self.weights.to(z.dtype))
        square, smooth, pull = (unflat_rows(value, shape, self._replicas) for value in found)
        return square, smooth, pull

    def spread(self, noise: Float[Tensor, "*rows E"]) -> Float[Tensor, "*rows K"]:
        """``Fᵀ`` of a factor ``L = FᵀF`` with one row per edge: a draw from ``Normal(0, L)``."""
        out = noise.new_zeros(*noise.shape[:-1], self.num_nodes)
        for end in ("low", "high"):
            index, root = getattr(self, end), getattr(self, f"root_{end}")
            out = out.scatter_add(-1, index.expand_as(noise), noise * root.to(noise.dtype))
        return out

    def solve(
        self,
        rows: Float[Tensor, "*rows K"],
        ridge: Float[Tensor, "*batch"],
        strength: Float[Tensor, "*batch"],
    ) -> Float[Tensor, "*rows K"]:
        """``(γI + λL)⁻¹`` of each row, on the host in float64; not differentiable in ``γ, λ``."""
        factor, order = self._factorised(ridge, strength)
        flat, shape = flat_rows(rows, self._replicas)
        union = flat.transpose(0, 1).flatten(1)  # (N, R · K)
        solved = SymmetricSolve.apply(union, factor, order).unflatten(1, (len(flat), -1))
        return unflat_rows(solved.transpose(0, 1), shape, self._replicas)

    def _factorised(self, ridge: Tensor, strength: Tensor):
        gammas, lams = (x.detach().double().flatten().cpu().numpy() for x in (ridge, strength))
        key = (*gammas.tolist(), *lams.tolist())
        if self._factor is None or self._factor[0] != key:
            scale, shift = (sparse.diags_array(x.repeat(self.num_nodes)) for x in (lams, gammas))
            matrix = sparse.csc_array(shift + scale @ self._union.laplacian())
            self._factor = (key, factorise(matrix))
        return self._factor[1]

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_factor": None}  # a factor can be neither copied nor pickled


def _incidence(graphs: Sequence[Graph], width: int) -> dict[str, list[Tensor]]:
    """Ends and signed root weights of every graph's edges, padded to ``width`` by zero weights."""
    found: dict[str, list[Tensor]] = {"low": [], "high": [], "root_low": [], "root_high": []}
    for graph in graphs:
        low, high = graph.edges
        root, pad = graph.weights.abs().sqrt(), (0, width - graph.num_edges)
        ends = {
            "low": low,
            "high": high,
            "root_low": root * graph.scaling[low],
            "root_high": -graph.weights.sign() * root * graph.scaling[high],
        }
        for name, value in ends.items():
            found[name].append(nn.functional.pad(value, pad))
    return found


@stack_like.register
def _(
    first: LaplacianOperator, modules: tuple[LaplacianOperator, ...], done: dict
) -> LaplacianOperator:
    new = LaplacianOperator([m.graphs[0] for m in modules], stacked=True)
    return new.to(first.weights.device, first.weights.dtype)


@replica_like.register
def _(module: LaplacianOperator, r: int, done: dict) -> LaplacianOperator:
    new = LaplacianOperator([module.graphs[r]])
    return new.to(module.weights.device, module.weights.dtype)
