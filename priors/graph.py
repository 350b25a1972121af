"""Graphs over latents: every way to build one, and the controls made from one."""

from collections.abc import Sequence
from typing import Literal

import networkx
import numpy as np
import torch
from jaxtyping import Float
from scipy import sparse
from torch import Generator, Tensor

from priors import builders, edge_list
from priors._graph import WeightedGraph
from priors.combine import combined, disjoint
from priors.edge_list import Array, Symmetrize
from priors.errors import GraphError
from priors.knn import neighbour_weights
from priors.networkx_edges import networkx_edges


class Graph(WeightedGraph):
    r"""A weighted undirected graph over ``K`` latents, each edge once: a frozen, checked value.

    .. math:: z^\top L z = \sum_{(i,j)} |w_{ij}|\,(s_i z_i - \operatorname{sign}(w_{ij}) s_j z_j)^2,
        \qquad L = S(|D| - W)S

    Here :math:`|D|` holds the degrees :math:`\sum_j |w_{ij}|` and :math:`S = 1` unless
    :meth:`normalized`. Positive weights give the Laplacian ``D - W``, which can only express
    positive correlation; ``signed=True`` allows negative ones, which tie ``z_i`` to ``-z_j``.

    Args:
        edges: Node pairs ``(2, E)``, each pair once, in any order (stored sorted, low node first).
        weights: Finite nonzero weights ``(E,)``, stored in float64.
        num_nodes: Number of latents ``K``; latents without an edge are isolated nodes.
        signed: Whether negative weights are meant.
        scaling: The diagonal of ``S``, ``(K,)``; 1 if not given.
        report: What a builder left out or merged.

    Raises:
        GraphError: ``graph.shape``, ``graph.dtype``, ``graph.out_of_range``, ``graph.nan_weight``,
            ``graph.negative_weight`` (a ``NegativeWeightError``), ``graph.zero_weight``,
            ``graph.self_loop``, ``graph.duplicate``, ``graph.scaling``, ``graph.num_nodes``,
            ``graph.too_large``. :meth:`from_edges` merges or drops where this constructor refuses.

    Example:
        >>> Graph(torch.tensor([[0, 1], [1, 2]]), torch.tensor([1.0, 2.0]), 4)
        Graph(num_nodes=4, num_edges=2, num_components=2)

    Source:
        Chung (1997), *Spectral Graph Theory*, ch. 1. Kunegis et al. (2010), Spectral analysis of
        signed graphs, SDM.
    """

    @classmethod
    def from_edges(
        cls,
        edges: Array,
        weights: Array | None = None,
        *,
        num_nodes: int,
        symmetrize: Symmetrize = "error",
        signed: bool = False,
    ) -> "Graph":
        """The graph of an edge list as found in the wild, in which pairs may repeat.

        First, entries repeated in the same direction are summed and self-loops ignored. Then a pair
        has a weight per direction, ``W_ij`` and ``W_ji``. Under ``"error"`` a pair given in one
        direction is an undirected edge, and one given in both must agree to 1e-12 of ``max |W|``.
        The other policies read the list as a *directed* graph, a missing direction being 0:
        ``"mean"`` is ``(W + W')/2``, ``"max"`` the larger in magnitude (kNN: union), ``"min"`` the
        smaller (kNN: mutual neighbours). Last, zero weights are dropped. ``graph.report`` counts.

        Args:
            edges: Integer pairs ``(2, E)``.
            weights: Weights ``(E,)``; 1 if not given.
            num_nodes: Number of latents ``K``.
            symmetrize: The policy.
            signed: Whether negative weights are meant.

        Raises:
            GraphError: ``graph.asymmetric`` (an ``AsymmetricWeightsError``),
                ``graph.opposing_signs``, and those of :class:`Graph` for what cannot be merged.

        Example:
            >>> Graph.from_edges([[0, 1, 2, 2], [1, 0, 2, 0]], [3.0, 3.0, 9.0, 1.0], num_nodes=3)
            Graph(num_nodes=3, num_edges=2, num_components=1)
        """
        source, target, values = edge_list.as_arrays(edges, weights)
        directed = edge_list.directed_weights(source, target, values, num_nodes, signed=signed)
        if symmetrize == "error":
            directed = directed.completed()
        return cls._of(directed, symmetrize, num_nodes, signed=signed)

    @classmethod
    def from_networkx(
        cls,
        g: networkx.Graph,
        nodelist: Sequence | None = None,
        *,
        symmetrize: Symmetrize = "error",
        signed: bool = False,
    ) -> "Graph":
        """The graph of a networkx one; edge attribute ``weight``, 1 where absent.

        Node ``i`` is latent ``i`` whatever order the nodes were inserted in, so they must be the
        integers 0..K-1, or ``nodelist[i]`` must name the node that is latent ``i``. Parallel edges
        are summed. In a directed graph a missing direction is 0.

        Raises:
            GraphError: ``graph.node_order`` if the latents cannot be told from the nodes,
                ``graph.dtype`` if a weight is no number, and those of :meth:`from_edges`.

        Example:
            >>> Graph.from_networkx(networkx.path_graph(["b", "a"]), nodelist=["a", "b"])
            Graph(num_nodes=2, num_edges=1, num_components=1)
        """
        source, target, values, num_nodes = networkx_edges(g, nodelist)
        if g.is_directed():
            return cls._directed(source, target, values, num_nodes, symmetrize, signed=signed)
        edges = np.stack([np.minimum(source, target), np.maximum(source, target)])
        return cls.from_edges(edges, values, num_nodes=num_nodes, signed=signed)

    @classmethod
    def from_scipy(
        cls,
        a: sparse.sparray | sparse.spmatrix,
        symmetrize: Symmetrize = "error",
        signed: bool = False,
    ) -> "Graph":
        """The graph of a square sparse adjacency matrix ``W``; an absent entry is 0.

        Raises:
            GraphError: ``graph.shape`` if it is not square, and those of :meth:`from_edges`: a
                triangular matrix is ``graph.asymmetric``, unless ``"max"`` reads it as one half.

        Example:
            >>> Graph.from_scipy(sparse.eye_array(3, k=1), symmetrize="max").weights.tolist()
            [1.0, 1.0]
        """
        if len(a.shape) != 2 or a.shape[0] != a.shape[1]:
            raise GraphError(
                f"adjacency is not square: got shape {a.shape}, expected (K, K).",
                code="graph.shape",
                context={"shape": a.shape},
            )
        coo = sparse.coo_array(a)
        source, target, values = edge_list.as_arrays(np.stack(coo.coords), coo.data)
        return cls._directed(source, target, values, a.shape[0], symmetrize, signed=signed)

    @classmethod
    def knn(
        cls,
        points: Float[Tensor, "K d"],
        k: int,
        *,
        metric: Literal["cosine", "euclidean"] = "cosine",
        symmetrize: Symmetrize = "max",
    ) -> "Graph":
        """Each point tied to its ``k`` nearest others, exactly, without a ``(K, K)`` array.

        ``"cosine"``: weight = cosine similarity. A neighbour whose similarity is not positive (or
        zero to rounding) is no neighbour: no edge, counted in ``graph.report.zero_weights``, so a
        zero vector is an isolated node. ``"euclidean"``: weight ``exp(-d² / 2s²)``, ``s`` the root
        mean square distance over all (point, neighbour) pairs; it is in (0, 1] and does not change
        with the units of the points. Equally near neighbours are taken in order of their number.

        Args:
            points: One row per latent, for example decoder atoms ``(K, d)``.
            k: Neighbours per point, ``1 <= k < K``.
            metric: What "near" means.
            symmetrize: ``"max"`` ties two points if either is a neighbour of the other (union),
                ``"min"`` if both are (mutual), ``"mean"`` is the union with one-sided ties halved.

        Raises:
            GraphError: ``graph.neighbours`` for an impossible ``k``, ``graph.nan_point``,
                ``graph.asymmetric`` under ``"error"`` unless all neighbours are mutual.

        Example:
            >>> Graph.knn(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), 1).edges.tolist()
            [[0, 1], [1, 2]]

        Source:
            Belkin & Niyogi (2003), Laplacian eigenmaps, Neural Computation 15 (heat kernel).
        """
        source, target, weights = neighbour_weights(points, k, metric)
        return cls._directed(source, target, weights, len(points), symmetrize, signed=False)

    @classmethod
    def blocks(cls, sizes: Sequence[int]) -> "Graph":
        """Consecutive blocks of latents, every pair inside a block tied with weight 1.

        Raises:
            GraphError: ``graph.block_size`` for a size below 1, ``graph.too_large``.

        Example:
            >>> Graph.blocks([2, 3, 1]).degree.tolist()
            [1.0, 1.0, 2.0, 2.0, 2.0, 0.0]
        """
        return cls._unweighted(builders.block_edges(sizes), sum(sizes))

    @classmethod
    def tree(cls, parents: Array) -> "Graph":
        """A forest: ``parents[i]`` is the parent of node ``i``, -1 for a root; weights 1.

        Raises:
            GraphError: ``graph.out_of_range``, ``graph.cycle`` if a node is its own ancestor.

        Example:
            >>> Graph.tree([-1, 0, 0, -1]).num_components
            2
        """
        array = edge_list.as_numpy(parents, "iu", "parents are not node numbers", "integers")
        array = array.astype(np.int64, copy=False)
        return cls._unweighted(builders.tree_edges(array), len(array))

    @classmethod
    def ring(cls, n: int) -> "Graph":
        """``n`` nodes, each tied to the next and the last to the first; weights 1."""
        return cls._unweighted(builders.ring_edges(n), n)

    @classmethod
    def grid(cls, rows: int, cols: int) -> "Graph":
        """A grid numbered row by row, horizontal and vertical neighbours tied; weights 1."""
        return cls._unweighted(builders.grid_edges(rows, cols), rows * cols)

    @classmethod
    def combine(cls, graphs: Sequence["Graph"], weights: Sequence[float]) -> "Graph":
        r"""One graph whose Laplacian is :math:`\sum_r λ_r L_r`, over the same latents.

        Raises:
            GraphError: ``graph.combine`` unless the graphs have one size and scaling (combine
                first, then normalise) and as many positive weights as graphs;
                ``graph.both_signs`` if a pair is tied with both signs: no graph has that sum.

        Example:
            >>> Graph.combine([Graph.ring(3), Graph.blocks([2, 1])], [1.0, 0.5]).weights.tolist()
            [1.5, 1.0, 1.0]
        """
        return cls(**combined(graphs, weights))

    @classmethod
    def disjoint(cls, graphs: Sequence["Graph"]) -> "Graph":
        """The graphs side by side: node ``i`` of graph ``r`` follows all nodes of the earlier ones.

        Example:
            >>> Graph.disjoint([Graph.ring(3), Graph.ring(4)]).component_sizes.tolist()
            [3, 4]
        """
        return cls(**disjoint(graphs))

    def shuffled(self, generator: Generator) -> "Graph":
        r"""The control: the same graph with its nodes renamed by a uniformly random permutation.

        It preserves the weights, the multiset of degrees, component sizes, balance and the whole
        spectrum, hence the prior's log-determinant: only *which* latents are tied changes. (It
        does not preserve the degree of each latent.) An edge lands on a uniformly random pair: the
        expected number of pairs tied both before and after is the chance level,
        :math:`E^2 / \binom K2` exactly.

        Args:
            generator: The source of randomness; the global one is never used.
        """
        new = torch.randperm(self.num_nodes, generator=generator)
        scaling = torch.empty_like(self.scaling)
        scaling[new] = self.scaling
        edges, signed = new[self.edges], self.signed
        return Graph(edges, self.weights, self.num_nodes, signed=signed, scaling=scaling)

    def normalized(self) -> "Graph":
        r"""The symmetric normalisation :math:`L_{sym} = |D|^{-1/2}(|D| - W)|D|^{-1/2}`.

        Another structure, not a rescaling: eigenvalues lie in [0, 2], the diagonal is 1 (0 on
        isolated nodes), and the null vectors are ``√degree``, so that a prior on it favours codes
        proportional to ``√degree``, not constant ones. ``edges``, ``weights`` and ``degree`` stay
        as they are; ``scaling`` is ``degree^-1/2`` (1 on isolated nodes).

        Example:
            >>> Graph.blocks([5]).normalized().laplacian().diagonal().tolist()
            [1.0, 1.0, 1.0, 1.0, 1.0]
        """
        scaling = torch.where(self.degree > 0, self.degree, 1.0).rsqrt()
        edges, signed = self.edges, self.signed
        return Graph(edges, self.weights, self.num_nodes, signed=signed, scaling=scaling)

    @classmethod
    def _directed(
        cls, source, target, values, num_nodes: int, symmetrize: Symmetrize, *, signed: bool
    ) -> "Graph":
        directed = edge_list.directed_weights(source, target, values, num_nodes, signed=signed)
        return cls._of(directed, symmetrize, num_nodes, signed=signed)

    @classmethod
    def _of(cls, directed, symmetrize: Symmetrize, num_nodes: int, *, signed: bool) -> "Graph":
        edges, weights, report = edge_list.undirected(directed, symmetrize)
        return cls(edges, weights, num_nodes, signed=signed, report=report)

    @classmethod
    def _unweighted(cls, edges, num_nodes: int) -> "Graph":
        return cls(edges, np.ones(edges.shape[1]), num_nodes)
