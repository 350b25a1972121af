"""Graphs over latents from codes, row graphs and categories, against dense numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prior_table import PER_ROW
from scipy import sparse

from priors import (
    Graph,
    GraphLaplacianPrior,
    Tree,
    _latent_pairs,
    coactivation_graph,
    cofiring_graph,
    lifted_graph,
)
from priors.errors import GraphError, VsaeError
from vsae import SparseCode, fit, l1_autoencoder, topk_autoencoder

POLICY = st.sampled_from(["max", "min", "mean"])
SEED = st.integers(0, 2**32 - 1)


def drawn(seed, rows=14, latents=7, density=0.4):
    rng = np.random.default_rng(seed)
    return rng, rng.uniform(0.2, 2.0, (rows, latents)) * (rng.random((rows, latents)) < density)


def row_graph(rng, nodes):
    """Dense weights and the graph of them; some nodes isolated."""
    dense = np.triu(rng.uniform(0.2, 2.0, (nodes, nodes)) * (rng.random((nodes, nodes)) < 0.3), 1)
    low, high = dense.nonzero()
    return dense + dense.T, Graph(np.stack([low, high]), dense[low, high], nodes)


def nearest(weights, k, symmetrize):
    """The dense adjacency of the definition, row by row."""
    weights = np.where(np.eye(len(weights)) == 1, 0.0, weights)
    chosen = np.zeros_like(weights)
    for i, row in enumerate(weights):
        best = [j for j in np.argsort(-row, kind="stable") if row[j] > 0][:k]
        chosen[i, best] = row[best]
    other = chosen.T
    return {
        "max": np.maximum(chosen, other),
        "min": np.minimum(chosen, other),
        "mean": (chosen + other) / 2,
    }[symmetrize]


def cosines(columns):
    length = np.sqrt((columns**2).sum(0))
    columns = columns / np.where(length > 0, length, 1.0)
    return columns, columns.T @ columns


def code_of(make, *args, **settings):
    with pytest.raises(VsaeError) as caught:
        make(*args, **settings)
    return caught.value.code


def agree(graph, expected):
    np.testing.assert_allclose(graph.adjacency().toarray(), expected, rtol=1e-12, atol=1e-12)


# Against the definition.


@PER_ROW
@given(seed=SEED, k=st.integers(1, 6), symmetrize=POLICY)
def test_coactivation_is_the_cosine_of_codes(seed, k, symmetrize):
    _, codes = drawn(seed)
    found = coactivation_graph(torch.from_numpy(codes), k, symmetrize=symmetrize)
    agree(found, nearest(cosines(codes)[1], k, symmetrize))


@PER_ROW
@given(
    seed=SEED, k=st.integers(1, 6), symmetrize=POLICY, significance=st.sampled_from([0.0, 1.0, 2.0])
)
def test_cofiring_is_npmi_where_it_is_significant(seed, k, symmetrize, significance):
    _, codes = drawn(seed, rows=40)
    rows, latents = codes.shape
    weights = np.zeros((latents, latents))
    for i in range(latents):
        for j in range(latents):
            a, b = codes[:, i] != 0, codes[:, j] != 0
            both, chance = (a & b).sum(), a.sum() * b.sum() / rows
            if 0 < both < rows:
                lift = np.log(both / chance)
                if 2 * (both * lift - both + chance) > significance**2:
                    weights[i, j] = lift / -np.log(both / rows)

    def make(k):
        settings = {"significance": significance, "symmetrize": symmetrize}
        return cofiring_graph(torch.from_numpy(codes), k, **settings)

    agree(make(latents - 1), nearest(weights, latents - 1, symmetrize))
    if len(np.unique(weights[weights > 0].round(12))) == (weights > 0).sum() / 2:  # no ties
        agree(make(k), nearest(weights, k, symmetrize))
    assert all(0 < w <= 1 for w in make(k).weights.tolist())


def test_latents_that_always_fire_tell_nothing():
    codes = torch.ones(10, 3)
    assert cofiring_graph(codes, 1, significance=0.0).num_edges == 0
    assert coactivation_graph(codes, 1).num_edges > 0


def test_chance_is_not_tied_and_structure_is():
    """200 independent latents, and ten planted pairs; Chernoff's bound is 2·e^(-25/2) per pair."""
    rng = np.random.default_rng(0)
    fires = rng.random((4000, 220)) < 0.05
    fires[:, 210:] = fires[:, 200:210] & (rng.random((4000, 10)) < 0.8)
    found = cofiring_graph(torch.from_numpy(fires.astype(float)), 4)
    assert found.edges.T.tolist() == [[200 + i, 210 + i] for i in range(10)]


@PER_ROW
@given(seed=SEED, k=st.integers(1, 6), own=st.sampled_from([0.0, 0.7]), symmetrize=POLICY)
def test_a_row_graph_is_lifted(seed, k, own, symmetrize):
    rng, codes = drawn(seed)
    dense, graph = row_graph(rng, len(codes))
    unit, _ = cosines(codes)
    expected = np.zeros((codes.shape[1],) * 2)
    for a in range(len(codes)):
        for b in range(len(codes)):
            tie = dense[a, b] + own * (a == b)
            expected += tie * unit[a][:, None] * unit[b][None, :]
    found = lifted_graph(graph, torch.from_numpy(codes), k, own=own, symmetrize=symmetrize)
    agree(found, nearest(expected, k, symmetrize))


@PER_ROW
@given(seed=SEED, k=st.integers(1, 6), own=st.sampled_from([0.0, 0.7]))
def test_a_category_graph_is_lifted_by_what_each_row_is(seed, k, own):
    """One-hot rows → categories: the lift of the row graph in which categories are multiplied out,
    but for the lengths, which are those of profiles over categories."""
    rng, codes = drawn(seed, rows=20)
    dense, graph = row_graph(rng, 5)
    category = rng.integers(0, 5, len(codes))
    one_hot = np.eye(5)[category]
    profile, _ = cosines(one_hot.T @ codes)
    expected = profile.T @ (dense + own * np.eye(5)) @ profile
    nodes = torch.from_numpy(category)
    found = lifted_graph(graph, torch.from_numpy(codes), k, nodes=nodes, own=own)
    agree(found, nearest(expected, k, "max"))


@PER_ROW
@given(seed=SEED, k=st.integers(1, 6))
def test_rows_tied_to_themselves_alone_are_coactivation(seed, k):
    _, codes = drawn(seed)
    edgeless = Graph(np.zeros((2, 0), np.int64), [], len(codes))
    lifted = lifted_graph(edgeless, torch.from_numpy(codes), k, own=1.0)
    agree(lifted, coactivation_graph(torch.from_numpy(codes), k).adjacency().toarray())


def test_a_normalised_row_graph_is_lifted_as_it_is_normalised():
    rng, codes = drawn(3)
    dense, graph = row_graph(rng, len(codes))
    degree = np.where(dense.sum(0) > 0, dense.sum(0), 1.0)
    unit, _ = cosines(codes)
    expected = unit.T @ (dense / np.sqrt(degree[:, None] * degree[None, :])) @ unit
    agree(lifted_graph(graph.normalized(), codes_of(codes), 3), nearest(expected, 3, "max"))


def codes_of(array):
    return torch.from_numpy(array)


# Forms of codes, sizes, memory.


def test_codes_may_be_dense_sparse_or_in_slots():
    _, codes = drawn(1)
    order = torch.from_numpy((-codes).argsort(1)[:, :6].copy())
    slots = SparseCode(order, torch.from_numpy(codes).gather(1, order), codes.shape[1])
    assert slots.to_scipy().nnz == slots.l0().sum()
    np.testing.assert_array_equal(slots.to_scipy().toarray(), slots.dense().numpy())
    expected = coactivation_graph(slots.dense(), 3)
    for form in (slots.to_scipy(), sparse.coo_matrix(slots.dense().numpy()), slots.dense().float()):
        found = coactivation_graph(form, 3)
        assert torch.equal(found.edges, expected.edges)
        torch.testing.assert_close(found.weights, expected.weights, rtol=1e-6, atol=0)


@PER_ROW
@given(seed=SEED, block=st.integers(1, 40))
def test_blocks_change_nothing(seed, block):
    rng, codes = drawn(seed)
    _, graph = row_graph(rng, len(codes))
    made = (coactivation_graph, lambda c, k: cofiring_graph(c, k, significance=0.0))
    for make in (*made, lambda c, k: lifted_graph(graph, c, k)):
        whole = make(torch.from_numpy(codes), 3)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_latent_pairs, "NUMBERS", block)
            assert make(torch.from_numpy(codes), 3) == whole


def test_many_latents_need_no_square_matrix():
    """30 000 latents, 8 of them per row: 7 GB as a square of float64; blocks are 4 M numbers."""
    rng = np.random.default_rng(0)
    rows, latents, active = 20_000, 30_000, 8
    place = (np.repeat(np.arange(rows), active), rng.integers(0, latents, rows * active))
    codes = sparse.csr_array((np.ones(rows * active), place), shape=(rows, latents))
    graph = coactivation_graph(codes, 4)
    assert graph.num_nodes == latents
    dense = codes[:, [7, *graph.edges[1][graph.edges[0] == 7].tolist()]].toarray()
    weights = graph.weights[graph.edges[0] == 7].numpy()
    np.testing.assert_allclose(cosines(dense)[1][0, 1:], weights, rtol=1e-12)


# Empty and disconnected.


def test_latents_that_never_fire_are_isolated():
    _, codes = drawn(2)
    codes[:, [1, 4]] = 0.0
    for graph in (
        coactivation_graph(codes_of(codes), 3),
        cofiring_graph(codes_of(codes), 3, significance=0.0),
        lifted_graph(Graph.ring(len(codes)), codes_of(codes), 3),
    ):
        assert {1, 4} <= set(graph.isolated.tolist())
    assert coactivation_graph(torch.zeros(5, 3), 1).num_edges == 0


def test_an_edgeless_row_graph_ties_nothing():
    _, codes = drawn(2)
    edgeless = Graph(np.zeros((2, 0), np.int64), [], len(codes))
    assert lifted_graph(edgeless, codes_of(codes), 3).num_edges == 0


def test_components_of_rows_are_components_of_latents():
    """Two sets of latents active on rows of different components are never tied."""
    codes = torch.zeros(8, 6)
    codes[:4, :3], codes[4:, 3:] = torch.rand(4, 3) + 0.1, torch.rand(4, 3) + 0.1
    graph = lifted_graph(Graph.disjoint([Graph.ring(4), Graph.ring(4)]), codes, 5)
    assert graph.components.tolist() == [0, 0, 0, 1, 1, 1]


# What is refused.


def test_codes_and_settings_that_cannot_be():
    codes = torch.rand(5, 3)
    for wrong in (torch.rand(5), torch.rand(2, 5, 3), torch.zeros(0, 3)):
        assert code_of(coactivation_graph, wrong, 1) == "graph.codes"
    assert code_of(cofiring_graph, codes / torch.zeros(1), 1) == "graph.codes"
    for k in (0, 3):
        assert code_of(coactivation_graph, codes, k) == "graph.neighbours"
    assert code_of(cofiring_graph, codes, 1, significance=-1.0) == "cofiring.significance"
    assert code_of(lifted_graph, Graph.ring(5), codes, 1, own=-1.0) == "graph.own"


def test_a_graph_on_the_wrong_index_is_named():
    codes = torch.rand(5, 3)
    with pytest.raises(
        GraphError, match=r"3 nodes and 5 rows of 3 latents.*over latents"
    ) as caught:
        lifted_graph(Graph.ring(3), codes, 1)
    assert caught.value.code == "graph.num_nodes"
    with pytest.raises(GraphError, match=r"4 nodes and 5 rows.*`nodes`"):
        lifted_graph(Graph.ring(4), codes, 1)
    ring = Graph.ring(4)
    assert code_of(lifted_graph, ring, codes, 1, nodes=torch.zeros(4).long()) == "graph.num_nodes"
    for node in (-1, 4):
        nodes = torch.tensor([0, 1, node, 3, 0])
        assert code_of(lifted_graph, ring, codes, 1, nodes=nodes) == "graph.out_of_range"


def test_a_prior_over_the_rows_is_refused_by_the_pair():
    data, over_rows = torch.randn(40, 4), GraphLaplacianPrior(Graph.ring(40))
    dense, slots = l1_autoencoder(4, 8, l1=0.1), topk_autoencoder(4, 8, k=2)
    for pair in (dense, slots):
        pair.model.prior = over_rows
        with pytest.raises(VsaeError, match=r"joins latents; one over rows") as caught:
            fit(pair, data, steps=1, batch_size=8)
        assert caught.value.code == "pair.latents"


# Blocks fused with a tree.


def test_blocks_and_a_tree_are_one_graph():
    """Families of a tree as blocks, their parents above: the sum of both Laplacians."""
    tree = Tree(2, (3,))
    siblings = Graph.blocks((1, 1, 3, 3))
    fused = Graph.combine([siblings, tree.graph()], [0.5, 2.0])
    expected = np.zeros((8, 8))
    for first in (2, 5):
        for i in range(first, first + 3):
            for j in range(first, first + 3):
                expected[i, j] = 0.5 * (i != j)
    for child in range(2, 8):
        parent = 0 if child < 5 else 1
        expected[child, parent] = expected[parent, child] = 2.0
    agree(fused, expected)
    assert fused.num_components == 2
    GraphLaplacianPrior(fused)().log_prob(torch.randn(3, 8))
