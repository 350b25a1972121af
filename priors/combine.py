"""Several graphs as one: over the same latents, or side by side."""

from collections.abc import Sequence

import torch

from priors import edge_list
from priors._graph import WeightedGraph
from priors.errors import GraphError


def combined(graphs: Sequence[WeightedGraph], weights: Sequence[float]) -> dict:
    """The fields of the graph whose Laplacian is ``Σ_r λ_r L_r``."""
    _check_combinable(graphs, weights)
    edges = torch.cat([graph.edges for graph in graphs], dim=1).numpy()
    values = torch.cat(
        [w * graph.weights for graph, w in zip(graphs, weights, strict=True)]
    ).numpy()
    nodes = graphs[0].num_nodes
    summed = edge_list.directed_weights(*edges, values, nodes, signed=True)
    sizes = edge_list.directed_weights(*edges, abs(values), nodes, signed=False).forward
    opposed = sizes > abs(summed.forward) * (1 + 1e-12)
    if opposed.any():
        edge = (int(summed.low[opposed][0]), int(summed.high[opposed][0]))
        raise GraphError(
            f"edge {edge} is positive in one graph and negative in another (and "
            f"{int(opposed.sum()) - 1} more): Σ λ_r L_r is then no graph's Laplacian, expected one "
            "sign per pair. Drop the edge from one graph, or sum weights by Graph.from_edges.",
            code="graph.both_signs",
            context={"edge": edge, "count": int(opposed.sum())},
        )
    pairs, weight, _ = edge_list.undirected(summed.completed(), "error")
    return {
        "edges": torch.from_numpy(pairs),
        "weights": torch.from_numpy(weight),
        "num_nodes": nodes,
        "signed": any(graph.signed for graph in graphs),
        "scaling": graphs[0].scaling,
    }


def disjoint(graphs: Sequence[WeightedGraph]) -> dict:
    """The fields of the graphs side by side."""
    if not graphs:
        raise GraphError("no graphs: got 0, expected >= 1.", code="graph.combine")
    counts = torch.tensor([graph.num_nodes for graph in graphs])
    starts = (counts.cumsum(0) - counts).tolist()
    edge_list.check_size(int(counts.sum()), sum(graph.num_edges for graph in graphs))
    return {
        "edges": torch.cat([g.edges + start for g, start in zip(graphs, starts, strict=True)], 1),
        "weights": torch.cat([graph.weights for graph in graphs]),
        "num_nodes": int(counts.sum()),
        "signed": any(graph.signed for graph in graphs),
        "scaling": torch.cat([graph.scaling for graph in graphs]),
    }


def _check_combinable(graphs: Sequence[WeightedGraph], weights: Sequence[float]) -> None:
    sizes = [graph.num_nodes for graph in graphs]
    if not graphs or len(weights) != len(graphs) or len(set(sizes)) > 1:
        raise GraphError(
            f"cannot combine: got graphs of {sizes} nodes and {len(weights)} weights, expected "
            "graphs over the same latents and one weight each. Side by side is Graph.disjoint.",
            code="graph.combine",
            context={"sizes": sizes, "weights": list(weights)},
        )
    if not all(0 < w < float("inf") for w in weights):
        raise GraphError(
            f"cannot combine with weights {list(weights)}: expected finite numbers > 0, since a "
            "negative one makes the sum indefinite. Leave out a graph of weight 0.",
            code="graph.combine",
            context={"weights": list(weights)},
        )
    if not all(torch.equal(graph.scaling, graphs[0].scaling) for graph in graphs):
        raise GraphError(
            "cannot combine normalised graphs: their scalings differ and the sum is no graph's "
            "Laplacian. Combine first, then normalise: Graph.combine(…).normalized().",
            code="graph.combine",
        )
