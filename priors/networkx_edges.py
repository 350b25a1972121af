"""Edges of a networkx graph, in the node order the user means."""

from collections.abc import Sequence
from itertools import islice

import networkx
import numpy as np

from priors.errors import GraphError


def networkx_edges(g: networkx.Graph, nodelist: Sequence | None):
    """Sources, targets, weights and the number of nodes; node ``nodelist[i]`` is ``i``."""
    nodes = range(g.number_of_nodes()) if nodelist is None else nodelist
    number = {node: i for i, node in enumerate(nodes)}
    if len(number) != len(nodes) or number.keys() != set(g.nodes):
        got = "nodes " + ", ".join(repr(node) for node in islice(g.nodes, 5))
        raise GraphError(
            f"cannot tell which node is which latent: got {g.number_of_nodes()} {got}, … and "
            f"{'no' if nodelist is None else f'{len(nodes)}'} names in nodelist, expected the "
            "integers 0..K-1, or nodelist= naming each node once, latent 0 first.",
            code="graph.node_order",
            context={"num_nodes": g.number_of_nodes(), "nodes": list(islice(g.nodes, 5))},
        )
    triples = g.edges(data="weight", default=1.0)
    count = g.number_of_edges()
    ends = ((number[a], number[b]) for a, b, _ in triples)
    edges = np.fromiter(ends, dtype=np.dtype((np.int64, 2)), count=count)
    try:
        weights = np.fromiter((w for *_, w in triples), dtype=np.float64, count=count)
    except (TypeError, ValueError) as error:
        raise GraphError(
            f"edge attribute 'weight' is not a number: {error}; expected floats. Convert it first.",
            code="graph.dtype",
        ) from error
    return edges[:, 0], edges[:, 1], weights, len(nodes)
