"""Every builder of ``Graph`` against networkx, scipy and dense numpy."""

import itertools

import networkx as nx
import numpy as np
import pytest
import torch
from graph_strategies import as_networkx, edge_lists, graphs
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from priors.graph import Graph


@given(data=st.data(), signed=st.booleans(), seed=st.integers(0, 2**31))
def test_networkx_node_order_does_not_matter(data, signed, seed):
    n, edges, weights = data.draw(edge_lists(signed=signed))
    order = np.random.default_rng(seed).permutation(n).tolist()
    expected = Graph(torch.tensor(edges), torch.tensor(weights), n, signed=signed)
    shuffled = as_networkx(n, edges, weights, order)
    named = nx.relabel_nodes(shuffled, {i: f"feature {i}" for i in range(n)})

    assert Graph.from_networkx(shuffled, signed=signed) == expected
    nodelist = [f"feature {i}" for i in range(n)]
    assert Graph.from_networkx(named, nodelist, signed=signed) == expected
    assert Graph.from_networkx(shuffled.to_directed(), signed=signed) == expected


@given(data=st.data(), signed=st.booleans())
def test_scipy_round_trip(data, signed):
    graph = data.draw(graphs(signed=signed))
    adjacency = graph.adjacency()
    for form in (adjacency, sparse.csr_matrix(adjacency), adjacency.tocoo(), adjacency.todok()):
        assert Graph.from_scipy(form, signed=signed) == graph
    upper = sparse.triu(adjacency)
    assert Graph.from_scipy(upper, "max", signed) == graph
    assert Graph.from_scipy(upper, "min", signed).num_edges == 0
    assert Graph.from_scipy(2 * upper, "mean", signed) == graph


@pytest.mark.parametrize("symmetrize", ["mean", "max", "min"])
@given(n=st.integers(1, 7), seed=st.integers(0, 2**31))
def test_policies_are_those_of_the_dense_matrices(symmetrize, n, seed):
    random = np.random.default_rng(seed)
    w = random.uniform(0, 2, (n, n)) * (random.random((n, n)) < 0.5)
    dense = {"mean": (w + w.T) / 2, "max": np.maximum(w, w.T), "min": np.minimum(w, w.T)}
    expected = dense[symmetrize] - np.diag(np.diag(w))

    by_scipy = Graph.from_scipy(sparse.csr_array(w), symmetrize)
    by_edges = Graph.from_edges(np.nonzero(w), w[np.nonzero(w)], num_nodes=n, symmetrize=symmetrize)

    np.testing.assert_allclose(by_scipy.adjacency().toarray(), expected, rtol=1e-15)
    assert by_edges == by_scipy
    assert by_scipy.report == by_edges.report
    assert by_scipy.report.self_loops == np.count_nonzero(np.diag(w))


@given(data=st.data(), signed=st.booleans(), seed=st.integers(0, 2**31))
def test_messy_edge_lists(data, signed, seed):
    """Each undirected edge once, or in both directions, split into summands, zeros and loops."""
    graph = data.draw(graphs(signed=signed))
    random = np.random.default_rng(seed)
    low, high = graph.edges.numpy()
    both, split = random.random((2, graph.num_edges)) < 0.5
    edges = np.concatenate(
        [[low, high], [high[both], low[both]], [low[split], high[split]], np.full((2, 2), 0)],
        axis=1,
    )
    w = graph.weights.numpy()
    # Halves are exact, so the sums are.
    rows = [np.where(split, w / 2, w), w[both], w[split] / 2, [3.0, 0.0]]
    order = random.permutation(edges.shape[1])

    found = Graph.from_edges(
        edges[:, order],
        np.concatenate(rows)[order],
        num_nodes=graph.num_nodes,
        signed=signed,
    )

    assert found == graph
    report = found.report
    assert (report.self_loops, report.duplicates, report.zero_weights) == (2, split.sum(), 0)


def test_zero_weights_are_no_edges_and_are_counted():
    edges = [[0, 1, 0, 2, 1], [1, 2, 3, 3, 3]]
    graph = Graph.from_edges(edges, [0.0, -0.0, 1.0, 2.0, 5e-324], num_nodes=4)
    assert graph.edges.tolist() == [[0, 1, 2], [3, 3, 3]]
    assert graph.report.zero_weights == 2
    cancelled = Graph.from_edges([[0, 0], [1, 1]], [1.0, -1.0], num_nodes=2, signed=True)
    assert cancelled.num_edges == 0
    assert cancelled.report.zero_weights == cancelled.report.duplicates == 1


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_blocks(sizes):
    graph = Graph.blocks(sizes)
    oracle = nx.disjoint_union_all([nx.complete_graph(s) for s in sizes])
    assert graph == Graph.from_networkx(oracle)
    assert graph.component_sizes.tolist() == sizes


@given(n=st.integers(1, 12), roots=st.floats(0, 1), seed=st.integers(0, 2**31))
def test_tree(n, roots, seed):
    random = np.random.default_rng(seed)
    name = random.permutation(n)
    parents = np.full(n, -1)
    for i in range(1, n):
        parents[name[i]] = -1 if random.random() < roots else name[random.integers(i)]
    oracle = nx.Graph()
    oracle.add_nodes_from(range(n))
    oracle.add_edges_from((i, int(p)) for i, p in enumerate(parents) if p >= 0)

    assert nx.is_forest(oracle)
    assert Graph.tree(parents.tolist()) == Graph.from_networkx(oracle)
    assert Graph.tree(torch.tensor(parents)).num_components == (parents == -1).sum()


@pytest.mark.parametrize("n", [1, 2, 3, 4, 17])
def test_ring(n):
    oracle = nx.cycle_graph(n)
    oracle.remove_edges_from(list(nx.selfloop_edges(oracle)))
    assert Graph.ring(n) == Graph.from_networkx(oracle)


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (1, 5), (4, 1), (3, 4), (5, 5)])
def test_grid(rows, cols):
    nodes = list(itertools.product(range(rows), range(cols)))
    assert Graph.grid(rows, cols) == Graph.from_networkx(nx.grid_2d_graph(rows, cols), nodes)


@given(data=st.data(), signed=st.booleans(), n=st.integers(1, 6), seed=st.integers(0, 2**31))
def test_combine_adds_laplacians(data, signed, n, seed):
    random = np.random.default_rng(seed)
    colour = random.choice([-1.0, 1.0], n) if signed else np.ones(n)
    parts, total = [], np.zeros((n, n))
    strengths = random.uniform(0.1, 3.0, data.draw(st.integers(1, 3))).tolist()
    for strength in strengths:
        w = np.triu(random.random((n, n)) * (random.random((n, n)) < 0.6), 1)
        w = w * np.outer(colour, colour)  # one sign per pair over all graphs
        parts.append(Graph.from_scipy(sparse.csr_array(w), "max", signed))
        total += strength * parts[-1].laplacian().toarray()

    combined = Graph.combine(parts, strengths)

    np.testing.assert_allclose(combined.laplacian().toarray(), total, atol=1e-14)
    assert Graph.combine([combined.normalized()], [1.0]) == combined.normalized()


@given(data=st.data(), signed=st.booleans())
def test_disjoint_is_block_diagonal(data, signed):
    parts = [data.draw(graphs(signed=signed, most_nodes=4)) for _ in range(3)]
    parts[2] = parts[2].normalized()
    expected = sparse.block_diag([g.laplacian() for g in parts]).toarray()
    union = Graph.disjoint(parts)
    np.testing.assert_array_equal(union.laplacian().toarray(), expected)
    assert union.num_null == sum(g.num_null for g in parts)
