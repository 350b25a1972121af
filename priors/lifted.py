"""A graph over latents from one over rows, or over categories of rows."""

import numpy as np
import torch
from jaxtyping import Int
from scipy import sparse
from torch import Tensor

from priors._latent_pairs import Codes, as_columns, nearest_pairs, unit_columns
from priors.edge_list import Symmetrize
from priors.errors import GraphError
from priors.graph import Graph


def lifted_graph(
    graph: Graph,
    codes: Codes,
    k: int,
    *,
    nodes: Int[Tensor, " N"] | None = None,
    own: float = 0.0,
    symmetrize: Symmetrize = "max",
) -> Graph:
    r"""What a graph over rows, or over categories of rows, says about latents.

    .. math:: w_{ij} = \sum_{ab} (A + cI)_{ab}\, m_{ai}\, m_{bj}, \qquad
        m_{ai} = \frac{\sum_{n \in a} z_{ni}}{\lVert \sum_{n \in \cdot} z_{ni} \rVert}

    Two latents are tied if they are active on rows that are tied: :math:`A` is the adjacency of
    ``graph``, whose nodes are the rows of the codes; or what ``nodes`` says, sentences or
    categories, each a set of rows. A latent's profile :math:`m_{\cdot i}` over nodes has unit
    length, without which frequent latents would be everyone's neighbours. Each latent keeps its
    ``k`` greatest weights that are positive.

    A negative tie of rows takes away from the weights of the latents that are active on them. What
    is left below zero is no tie: of a signed graph, too, the lifted one has positive weights alone.

    A graph has no self-loops, so that being active on the *same* node does not count: ``own`` is
    what it counts for. An edgeless graph with ``own=1.0`` gives
    :func:`priors.coactivation_graph`.

    Args:
        graph: Over rows or categories, *not* over latents.
        codes: ``(N, K)``, dense, in slots (:class:`vsae.SparseCode`), or any scipy sparse matrix.
        k: Neighbours per latent, ``1 <= k < K``; fewer where fewer are tied.
        nodes: Of each row of the codes its node in ``graph``; row ``n`` is node ``n`` if ``None``.
        own: :math:`c \ge 0`, the weight of a node with itself.
        symmetrize: As of :func:`priors.coactivation_graph`.

    Raises:
        GraphError: ``graph.num_nodes`` if the graph is not over the rows (or ``nodes`` is not one
            number per row), ``graph.out_of_range`` for nodes that are not in it, ``graph.codes``,
            ``graph.neighbours``, ``graph.own``.

    Example:
        >>> animals = Graph(torch.tensor([[0], [1]]), torch.tensor([1.0]), 3)  # cats, dogs; tools
        >>> codes = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0]])
        >>> lifted_graph(animals, codes, 2, nodes=torch.tensor([0, 1, 2])).edges.tolist()
        [[0], [1]]

    Source:
        :math:`Z^\top A Z` is how networks of one kind of node are projected to another: Newman
        (2010), *Networks*, §6.6.
    """
    if not 0 <= own < float("inf"):
        raise GraphError(
            f"a node's weight with itself: got own={own}, expected a finite number >= 0.",
            code="graph.own",
        )
    matrix = as_columns(codes)
    matrix = _as_rows(matrix, graph) if nodes is None else _by_node(matrix, graph, nodes)
    profile = unit_columns(matrix)
    ties = graph.adjacency() + own * sparse.eye_array(graph.num_nodes, format="csr")
    source, target, weight = nearest_pairs((profile.T, ties, profile), k)
    return Graph.from_edges(
        np.stack([source, target]), weight, num_nodes=profile.shape[1], symmetrize=symmetrize
    )


def _as_rows(matrix: sparse.csc_array, graph: Graph) -> sparse.csc_array:
    rows, latents = matrix.shape[0], matrix.shape[1]
    if graph.num_nodes != rows:
        over = (
            "It has as many as there are latents: a graph over latents needs no lifting."
            if graph.num_nodes == latents
            else "Over categories, say in `nodes` which row is which."
        )
        raise GraphError(
            f"the graph is not over the rows of the codes: got {graph.num_nodes} nodes and {rows} "
            f"rows of {latents} latents. {over}",
            code="graph.num_nodes",
            context={"num_nodes": graph.num_nodes, "rows": rows, "latents": latents},
        )
    return matrix


def _by_node(matrix: sparse.csc_array, graph: Graph, nodes: Tensor) -> sparse.csc_array:
    """The codes of each node's rows, summed: ``(nodes, K)``."""
    place, rows = torch.as_tensor(nodes).cpu().numpy(), matrix.shape[0]
    if place.shape != (rows,) or place.dtype.kind not in "iu":
        raise GraphError(
            f"every row has one node: got nodes of shape {place.shape} and {place.dtype}, expected "
            f"integers ({rows},).",
            code="graph.num_nodes",
            context={"shape": place.shape, "rows": rows},
        )
    outside = (place < 0) | (place >= graph.num_nodes)
    if outside.any():
        row = int(outside.argmax())
        raise GraphError(
            f"row {row} is of node {place[row]}, which the graph over categories does not have: "
            f"expected 0..{graph.num_nodes - 1}.",
            code="graph.out_of_range",
            context={"row": row, "node": int(place[row]), "num_nodes": graph.num_nodes},
        )
    one_hot = sparse.csr_array(
        (np.ones(rows), (place, np.arange(rows))), shape=(graph.num_nodes, rows)
    )
    return sparse.csc_array(one_hot @ matrix)
