"""Graphs against networkx, scipy and dense numpy; the null space against eigenvalues."""

import itertools

import networkx as nx
import numpy as np
import pytest
import torch
from graph_strategies import as_networkx, dense_adjacency, dense_laplacian, edge_lists, graphs
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csgraph

from priors.graph import Graph

# --- the value ---


@given(data=st.data(), signed=st.booleans())
def test_laplacian_is_the_definition(data, signed):
    n, edges, weights = data.draw(edge_lists(signed=signed))
    graph = Graph(torch.tensor(edges), torch.tensor(weights), n, signed=signed)

    # Sums of at most 7 numbers of size 2 in another order.
    np.testing.assert_allclose(
        graph.laplacian().toarray(), dense_laplacian(n, edges, weights), atol=1e-14
    )
    np.testing.assert_array_equal(graph.adjacency().toarray(), dense_adjacency(n, edges, weights))
    low, high = graph.edges
    assert (low < high).all()
    assert ((low * n + high).diff() > 0).all()
    assert graph.laplacian().has_canonical_format
    assert graph.laplacian().dtype == graph.weights.numpy().dtype == np.float64


@given(data=st.data(), signed=st.booleans(), seed=st.integers(0, 2**31))
def test_a_graph_does_not_depend_on_how_its_edges_are_written(data, signed, seed):
    n, edges, weights = data.draw(edge_lists(signed=signed))
    random = np.random.default_rng(seed)
    order = random.permutation(len(weights))
    rewritten = random.permuted(edges[:, order], axis=0)

    one = Graph(torch.tensor(edges), torch.tensor(weights), n, signed=signed)
    other = Graph(torch.tensor(rewritten), torch.tensor(weights[order]), n, signed=signed)

    assert one == other
    assert hash(one) == hash(other)
    assert one == Graph.from_edges(rewritten, weights[order], num_nodes=n, signed=signed)
    if len(weights):
        changed = torch.tensor(weights)
        changed[0] *= 1 + 1e-15
        assert one != Graph(torch.tensor(edges), changed, n, signed=signed)
    assert one != Graph(torch.tensor(edges), torch.tensor(weights), n + 1, signed=signed)


def test_a_graph_owns_its_tensors_and_is_frozen():
    edges, weights = torch.tensor([[0, 1], [1, 2]]), torch.tensor([1.0, 2.0])
    graph = Graph(edges, weights, 3)
    edges[0, 0], weights[0] = 2, 7.0

    assert graph == Graph.from_edges([[0, 1], [1, 2]], [1.0, 2.0], num_nodes=3)
    assert graph != "a graph"
    with pytest.raises(AttributeError):
        graph.num_nodes = 4


def test_repr_says_what_it_is():
    edges, weights = torch.tensor([[0, 1, 0], [1, 2, 2]]), torch.tensor([1.0, 1.0, -1.0])
    graph = Graph(edges, weights, 4, signed=True)
    assert repr(graph) == (
        "Graph(num_nodes=4, num_edges=3, num_components=2, signed=True, num_balanced=1)"
    )
    assert repr(graph.normalized()).endswith("scaled=True)")


# --- components and the null space ---


@given(data=st.data(), signed=st.booleans())
def test_null_space_is_counted_right(data, signed):
    n, edges, weights = data.draw(edge_lists(signed=signed))
    graph = Graph(torch.tensor(edges), torch.tensor(weights), n, signed=signed)
    if data.draw(st.booleans()):
        graph = graph.normalized()
    laplacian = graph.laplacian().toarray()
    values = np.linalg.eigvalsh(laplacian)

    # Weights are 0.5..2 on <= 8 nodes: the smallest positive eigenvalue is > 1e-3 there.
    assert graph.num_null == (values < 1e-10).sum()
    assert graph.num_null == graph.balanced.sum()
    assert not ((values > 1e-10) & (values < 1e-4)).any()
    for label in range(graph.num_components):
        inside = graph.components == label
        vector = np.where(inside, graph.null_vector, 0.0)
        assert inside.sum() == graph.component_sizes[label]
        assert (vector[inside] != 0).all() if graph.balanced[label] else (vector == 0).all()
        np.testing.assert_allclose(laplacian @ vector, 0.0, atol=1e-13)


@given(sample=edge_lists(signed=False))
def test_components_are_networkx_s(sample):
    graph = Graph(torch.tensor(sample[1]), torch.tensor(sample[2]), sample[0])
    expected = sorted(sorted(c) for c in nx.connected_components(as_networkx(*sample)))

    found = [np.flatnonzero(graph.components == c).tolist() for c in range(graph.num_components)]

    assert found == expected  # numbered by smallest node
    assert graph.component_sizes.tolist() == [len(c) for c in expected]
    assert graph.isolated.tolist() == [c[0] for c in expected if len(c) == 1]
    assert graph.balanced.all()
    assert (graph.null_vector == 1).all()


@given(sample=edge_lists(signed=True))
def test_balance_is_the_existence_of_a_colouring(sample):
    n, edges, weights = sample
    graph = Graph(torch.tensor(edges), torch.tensor(weights), n, signed=True)
    colourings = np.array(list(itertools.product([1, -1], repeat=n)))
    good = colourings[:, edges[0]] * colourings[:, edges[1]] == np.sign(weights)

    for label in range(graph.num_components):
        inside = graph.components[edges[0]] == label
        assert graph.balanced[label] == good[:, inside].all(1).any()
    signs = graph.null_vector
    coloured = signs[edges[0]] != 0
    assert (np.sign(weights) == signs[edges[0]] * signs[edges[1]])[coloured].all()
    first = [np.flatnonzero(graph.components == c)[0] for c in range(graph.num_components)]
    assert (signs[first] == graph.balanced).all()


# --- the normalised Laplacian ---


@given(sample=edge_lists(signed=False))
def test_normalised_laplacian_is_scipy_s_and_networkx_s(sample):
    n, edges, weights = sample
    graph = Graph(torch.tensor(edges), torch.tensor(weights), n)
    found = graph.normalized().laplacian().toarray()

    oracle = csgraph.laplacian(dense_adjacency(n, edges, weights), normed=True)
    # scipy writes 1 on the diagonal only of nodes that have edges.
    np.testing.assert_allclose(found, oracle, atol=1e-15)
    other = nx.normalized_laplacian_matrix(as_networkx(*sample), nodelist=range(n)).toarray()
    np.testing.assert_allclose(found, other, atol=1e-15)


@given(data=st.data(), signed=st.booleans())
def test_normalised_null_vectors_are_roots_of_degrees(data, signed):
    graph = data.draw(graphs(signed=signed))
    scaled = graph.normalized()
    degree = np.abs(graph.adjacency().toarray()).sum(1)
    expected = graph.null_vector * np.where(degree > 0, np.sqrt(degree), 1.0)

    np.testing.assert_allclose(scaled.null_vector, expected, rtol=1e-14)
    assert scaled.num_null == graph.num_null
    assert np.linalg.eigvalsh(scaled.laplacian().toarray()).max() < 2 + 1e-13
    assert scaled.normalized() == scaled
    assert scaled.edges.equal(graph.edges)
    assert scaled.weights.equal(graph.weights)


# --- the shuffled control ---


@given(data=st.data(), signed=st.booleans(), seed=st.integers(0, 2**31))
def test_shuffling_preserves_everything_but_who_is_who(data, signed, seed):
    graph = data.draw(graphs(signed=signed))
    if data.draw(st.booleans()):
        graph = graph.normalized()
    before = torch.get_rng_state()
    shuffled = graph.shuffled(torch.Generator().manual_seed(seed))

    assert torch.equal(torch.get_rng_state(), before)
    assert shuffled == graph.shuffled(torch.Generator().manual_seed(seed))
    assert torch.equal(shuffled.weights.sort().values, graph.weights.sort().values)
    # Degrees and eigenvalues are sums in another order.
    for one, other in [
        (np.sort(shuffled.degree), np.sort(graph.degree)),
        *[(np.linalg.eigvalsh(g.laplacian().toarray()) for g in (shuffled, graph))],
    ]:
        np.testing.assert_allclose(one, other, atol=1e-13)
    assert sorted(shuffled.component_sizes) == sorted(graph.component_sizes)
    assert shuffled.num_null == graph.num_null


@pytest.mark.parametrize(
    "graph",
    [Graph.blocks([2] * 16), Graph.blocks([4] * 6), Graph.grid(4, 6), Graph.tree([-1] + [0] * 15)],
    ids=["pairs", "blocks", "grid", "star"],
)
def test_edge_overlap_of_a_shuffle_is_at_chance(graph):
    generator = torch.Generator().manual_seed(0)
    n, draws = graph.num_nodes, 4000
    old = graph.edges[0] * n + graph.edges[1]
    overlap = np.empty(draws)
    for i in range(draws):
        new = graph.shuffled(generator).edges
        overlap[i] = torch.isin(new[0] * n + new[1], old).sum()

    chance = graph.num_edges**2 / (n * (n - 1) / 2)
    error = overlap.std() / draws**0.5
    assert abs(overlap.mean() - chance) < 4 * error  # fixed seed; 4 standard errors
    assert chance > 20 * error  # and the test can tell chance from twice chance


def test_every_pair_is_equally_likely_to_be_an_edge_after_a_shuffle():
    graph, generator = Graph.tree([-1, 0, 0, 0, 1]), torch.Generator().manual_seed(1)
    count, draws = np.zeros((5, 5)), 4000
    for _ in range(draws):
        count += graph.shuffled(generator).adjacency().toarray()
    rate = graph.num_edges / 10
    error = (rate * (1 - rate) / draws) ** 0.5
    off_diagonal = ~np.eye(5, dtype=bool)
    assert (abs(count[off_diagonal] / draws - rate) < 4.5 * error).all()
