"""Random small graphs for hypothesis, and dense Laplacians written from the definition."""

import itertools

import networkx as nx
import numpy as np
import torch
from hypothesis import strategies as st

from priors.graph import Graph


@st.composite
def edge_lists(draw, *, signed: bool, most_nodes: int = 8):
    """``(num_nodes, edges (2, E), weights (E,))``, each pair at most once, in random order."""
    n = draw(st.integers(1, most_nodes))
    pairs = np.array(list(itertools.combinations(range(n), 2)), dtype=np.int64).reshape(-1, 2)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    keep = random.random(len(pairs)) < draw(st.sampled_from([0.0, 0.15, 0.3, 0.6, 1.0]))
    pairs = random.permutation(random.permuted(pairs[keep], axis=1))
    # Away from 0, so that an eigenvalue is either rounding error or clearly positive.
    weights = random.uniform(0.5, 2.0, len(pairs))
    if signed and draw(st.booleans()):  # balanced: signs of a two-colouring
        colour = random.choice([-1.0, 1.0], n)
        weights = weights * colour[pairs[:, 0]] * colour[pairs[:, 1]]
    elif signed:
        weights = weights * random.choice([-1.0, 1.0], len(pairs))
    return n, pairs.T, weights


@st.composite
def graphs(draw, *, signed: bool, most_nodes: int = 8):
    n, edges, weights = draw(edge_lists(signed=signed, most_nodes=most_nodes))
    return Graph(torch.tensor(edges), torch.tensor(weights), n, signed=signed)


def dense_adjacency(n, edges, weights):
    adjacency = np.zeros((n, n))
    for i, j, w in zip(*edges, weights, strict=True):
        adjacency[i, j] += w
        adjacency[j, i] += w
    return adjacency


def dense_laplacian(n, edges, weights):
    """``|D| - W``, entry by entry."""
    adjacency = dense_adjacency(n, edges, weights)
    return np.diag(np.abs(adjacency).sum(1)) - adjacency


def as_networkx(n, edges, weights, order=None):
    g = nx.Graph()
    g.add_nodes_from(range(n) if order is None else order)
    g.add_weighted_edges_from((int(i), int(j), w) for i, j, w in zip(*edges, weights, strict=True))
    return g
