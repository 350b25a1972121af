"""A weighted undirected graph as a checked value, and what its Laplacian is: no builders here."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from scipy import sparse
from torch import Tensor

from priors import edge_list
from priors.components import Components, components
from priors.edge_list import Array, EdgeReport
from priors.errors import GraphError


@dataclass(frozen=True, eq=False, repr=False, init=False)
class WeightedGraph:
    """Nodes, edges, weights and scaling; :class:`priors.Graph` adds the builders and documents."""

    edges: Int64[Tensor, "2 E"]
    weights: Float64[Tensor, " E"]
    num_nodes: int
    signed: bool
    scaling: Float64[Tensor, " K"]
    report: EdgeReport

    def __init__(
        self,
        edges: Array,
        weights: Array,
        num_nodes: int,
        *,
        signed: bool = False,
        scaling: Tensor | None = None,
        report: EdgeReport = EdgeReport(),
    ) -> None:
        source, target, values = edge_list.as_arrays(edges, weights)
        edge_list.check_edges(source, target, values, num_nodes, signed=signed)
        pairs, values = edge_list.canonical(source, target, values, num_nodes)
        if scaling is None:
            scaling = torch.ones(num_nodes, dtype=torch.float64)
        fields = {
            "edges": torch.from_numpy(pairs),
            "weights": torch.from_numpy(values),
            "num_nodes": num_nodes,
            "signed": signed,
            "scaling": _checked_scaling(scaling, num_nodes),
            "report": report,
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        parts = {"num_nodes": self.num_nodes, "num_edges": self.num_edges}
        parts["num_components"] = self.num_components
        if self.signed:
            parts |= {"signed": True, "num_balanced": self.num_null}
        if not self._unscaled:
            parts["scaled"] = True
        return f"Graph({', '.join(f'{name}={value}' for name, value in parts.items())})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, WeightedGraph):
            return NotImplemented
        return (
            (self.num_nodes, self.signed) == (other.num_nodes, other.signed)
            and torch.equal(self.edges, other.edges)
            and torch.equal(self.weights, other.weights)
            and torch.equal(self.scaling, other.scaling)
        )

    def __hash__(self) -> int:
        return hash((self.num_nodes, self.num_edges, self.signed))

    @property
    def num_edges(self) -> int:
        """Edges, each counted once."""
        return self.edges.shape[1]

    @cached_property
    def degree(self) -> Float64[Tensor, " K"]:
        """``Σ_j |w_ij|``, without the scaling."""
        low, high = self.edges.numpy()
        size = self.weights.abs().numpy()
        total = np.bincount(low, size, self.num_nodes) + np.bincount(high, size, self.num_nodes)
        return torch.from_numpy(total.astype(np.float64, copy=False))  # int64 if there is no edge

    @cached_property
    def _parts(self) -> Components:
        low, high = self.edges.numpy()
        return components(low, high, (self.weights < 0).numpy(), self.num_nodes)

    @property
    def components(self) -> Int64[np.ndarray, " K"]:
        """The component of each node, numbered by smallest node."""
        return self._parts.labels

    @property
    def num_components(self) -> int:
        """Connected components, an isolated node being one."""
        return len(self._parts.sizes)

    @property
    def component_sizes(self) -> Int64[np.ndarray, " C"]:
        """Nodes per component."""
        return self._parts.sizes

    @property
    def balanced(self) -> Bool[np.ndarray, " C"]:
        """Per component: whether its signs admit a two-colouring, that is, a null vector."""
        return self._parts.balanced

    @property
    def num_null(self) -> int:
        """Dimension of the null space of :meth:`laplacian`, by counting: no eigenvalue is judged.

        The number of balanced components; all of them are balanced if no weight is negative.
        """
        return int(self._parts.balanced.sum())

    @cached_property
    def null_vector(self) -> Float64[np.ndarray, " K"]:
        """The null vectors of all balanced components, which do not overlap, as one; else 0.

        Entries are ``±1 / scaling``: ±1, or ±√degree on a normalised graph (1 on isolated nodes).
        """
        return self._parts.signs / self.scaling.numpy()

    @property
    def isolated(self) -> Int64[np.ndarray, " I"]:
        """Nodes without an edge, on which a prior is the ridge alone."""
        touched = np.zeros(self.num_nodes, bool)
        touched[self.edges.numpy().ravel()] = True
        return np.flatnonzero(~touched)

    @property
    def _unscaled(self) -> bool:
        return bool((self.scaling == 1).all())

    def adjacency(self) -> sparse.csr_array:
        """``SWS`` in CSR, float64, every edge in both directions, sorted."""
        return self._matrix(self.edges.numpy(), -self._coupling())

    def laplacian(self) -> sparse.csr_array:
        """``S(|D| - W)S`` in CSR, float64, sorted, with an explicit diagonal.

        Example:
            >>> from priors.graph import Graph
            >>> Graph(torch.tensor([[0], [1]]), torch.tensor([2.0]), 2).laplacian().toarray()
            array([[ 2., -2.],
                   [-2.,  2.]])
        """
        diagonal = (self.degree * self.scaling.square()).numpy()
        return self._matrix(self.edges.numpy(), self._coupling(), diagonal)

    @cached_property
    def laplacian_csr(self) -> tuple[Tensor, Tensor, Tensor]:
        """:meth:`laplacian` as tensors: pointers ``(K + 1,)``, columns and values ``(nnz,)``."""
        matrix = self.laplacian()
        pointers, columns = (torch.from_numpy(a).long() for a in (matrix.indptr, matrix.indices))
        return pointers, columns, torch.from_numpy(matrix.data)

    def _coupling(self) -> Float64[np.ndarray, " E"]:
        low, high = self.edges
        return -(self.weights * self.scaling[low] * self.scaling[high]).numpy()

    def _matrix(self, pairs, values, diagonal=None) -> sparse.csr_array:
        node = np.arange(0 if diagonal is None else self.num_nodes)
        rows = np.concatenate([pairs[0], pairs[1], node])
        cols = np.concatenate([pairs[1], pairs[0], node])
        data = np.concatenate([values, values] + ([] if diagonal is None else [diagonal]))
        matrix = sparse.coo_array((data, (rows, cols)), shape=(self.num_nodes,) * 2).tocsr()
        matrix.sort_indices()
        return matrix


def _checked_scaling(scaling: Float[Tensor, " K"], num_nodes: int) -> Float64[Tensor, " K"]:
    scaling = scaling.detach().cpu().to(torch.float64)
    if scaling.shape != (num_nodes,) or not (scaling.isfinite() & (scaling > 0)).all():
        raise GraphError(
            f"bad scaling: got shape {tuple(scaling.shape)} and minimum {scaling.min():.3g}, "
            f"expected ({num_nodes},) finite numbers > 0.",
            code="graph.scaling",
            context={"shape": tuple(scaling.shape), "num_nodes": num_nodes},
        )
    return scaling
