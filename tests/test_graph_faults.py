"""Bad graphs are refused by code (promises C2-C9), or are the documented option."""

import subprocess
import sys
import warnings

import networkx as nx
import numpy as np
import pytest
import torch
from graph_strategies import edge_lists
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from priors.edge_list import canonical
from priors.errors import AsymmetricWeightsError, GraphError, NegativeWeightError
from priors.graph import Graph


def from_edges(edges, weights=None, n=3, **options):
    return Graph.from_edges(edges, weights, num_nodes=n, **options)


def direct(edges, weights, n=3, **options):
    weights = torch.tensor(weights, dtype=torch.float64)
    return Graph(torch.tensor(edges), weights, n, **options)


FAULTS = {
    "nan": ("graph.nan_weight", lambda: from_edges([[0, 1], [1, 2]], [1.0, np.nan])),
    "inf": ("graph.nan_weight", lambda: from_edges([[0, 1], [1, 2]], [1.0, np.inf])),
    "overflow": ("graph.nan_weight", lambda: from_edges([[0, 0], [1, 2]], [1.5e308, 1.5e308])),
    "overflow-sum": ("graph.nan_weight", lambda: from_edges([[0, 0], [1, 1]], [1.5e308, 1.5e308])),
    "nan-direct": ("graph.nan_weight", lambda: direct([[0], [1]], [np.nan])),
    "nan-scipy": (
        "graph.nan_weight",
        lambda: Graph.from_scipy(sparse.csr_array(np.full((2, 2), np.nan))),
    ),
    "nan-knn": ("graph.nan_point", lambda: Graph.knn(torch.tensor([[0.0], [torch.nan]]), 1)),
    "inf-knn": ("graph.nan_point", lambda: Graph.knn(torch.tensor([[0.0], [torch.inf]]), 1)),
    "negative": ("graph.negative_weight", lambda: from_edges([[0, 1], [1, 2]], [1.0, -3.0])),
    "tiny negative": ("graph.negative_weight", lambda: from_edges([[0], [1]], [-1e-300])),
    "negative summand": (
        "graph.negative_weight",
        lambda: from_edges([[0, 0], [1, 1]], [3.0, -1.0]),
    ),
    "negative-direct": ("graph.negative_weight", lambda: direct([[0], [1]], [-1.0])),
    "negative-nx": ("graph.negative_weight", lambda: Graph.from_networkx(nx_edge(weight=-1.0))),
    "asymmetric": ("graph.asymmetric", lambda: from_edges([[0, 1], [1, 0]], [1.0, 0.5])),
    "asymmetric zero": ("graph.asymmetric", lambda: from_edges([[0, 1], [1, 0]], [1.0, 0.0])),
    "triangular": ("graph.asymmetric", lambda: Graph.from_scipy(sparse.eye_array(3, k=1))),
    "digraph": ("graph.asymmetric", lambda: Graph.from_networkx(nx.DiGraph([(0, 1)]))),
    "opposite": (
        "graph.opposing_signs",
        lambda: from_edges([[0, 1], [1, 0]], [1.0, -1.0], symmetrize="max", signed=True),
    ),
    "node order": ("graph.node_order", lambda: Graph.from_networkx(nx.path_graph(range(1, 4)))),
    "node names": ("graph.node_order", lambda: Graph.from_networkx(nx.path_graph(["a", "b"]))),
    "nodelist short": (
        "graph.node_order",
        lambda: Graph.from_networkx(nx.path_graph(3), nodelist=[0, 1]),
    ),
    "nodelist repeats": (
        "graph.node_order",
        lambda: Graph.from_networkx(nx.path_graph(2), nodelist=[0, 1, 1]),
    ),
    "nodelist other": (
        "graph.node_order",
        lambda: Graph.from_networkx(nx.path_graph(2), nodelist=["a", "b"]),
    ),
    "one-based": ("graph.out_of_range", lambda: from_edges([[1, 2], [2, 3]])),
    "below zero": ("graph.out_of_range", lambda: from_edges([[0], [-1]])),
    "one-based-direct": ("graph.out_of_range", lambda: direct([[1], [3]], [1.0])),
    "parent": ("graph.out_of_range", lambda: Graph.tree([-1, 2])),
    "parent below": ("graph.out_of_range", lambda: Graph.tree([-1, -2])),
    "cycle": ("graph.cycle", lambda: Graph.tree([-1, 2, 3, 1])),
    "two-cycle": ("graph.cycle", lambda: Graph.tree([1, 0])),
    "self-parent": ("graph.cycle", lambda: Graph.tree([0])),
    "no nodes": ("graph.num_nodes", lambda: from_edges([], n=0)),
    "no tree": ("graph.num_nodes", lambda: Graph.tree([])),
    "no blocks": ("graph.num_nodes", lambda: Graph.blocks([])),
    "no ring": ("graph.num_nodes", lambda: Graph.ring(0)),
    "no grid": ("graph.num_nodes", lambda: Graph.grid(0, 3)),
    "empty block": ("graph.block_size", lambda: Graph.blocks([2, 0])),
    "many nodes": ("graph.too_large", lambda: from_edges([], n=2**31)),
    "huge blocks": ("graph.too_large", lambda: Graph.blocks([10**6])),
    "huge ring": ("graph.too_large", lambda: Graph.ring(10**9)),
    "huge grid": ("graph.too_large", lambda: Graph.grid(10**5, 10**5)),
    "duplicate": ("graph.duplicate", lambda: direct([[0, 1], [1, 0]], [1.0, 1.0])),
    "self-loop": ("graph.self_loop", lambda: direct([[0, 1], [1, 1]], [1.0, 1.0])),
    "zero": ("graph.zero_weight", lambda: direct([[0, 1], [1, 2]], [1.0, 0.0])),
    "transposed": ("graph.shape", lambda: from_edges([[0, 1], [1, 2], [0, 2]])),
    "flat": ("graph.shape", lambda: from_edges([0, 1])),
    "weights": ("graph.shape", lambda: from_edges([[0], [1]], [1.0, 2.0])),
    "not square": ("graph.shape", lambda: Graph.from_scipy(sparse.csr_array((2, 3)))),
    "float ids": ("graph.dtype", lambda: from_edges([[0.0], [1.0]])),
    "bool ids": ("graph.dtype", lambda: from_edges([[False], [True]])),
    "text weights": ("graph.dtype", lambda: from_edges([[0], [1]], ["1"])),
    "complex weights": ("graph.dtype", lambda: from_edges([[0], [1]], [1j])),
    "complex scipy": ("graph.dtype", lambda: Graph.from_scipy(1j * sparse.eye_array(2))),
    "text nx": ("graph.dtype", lambda: Graph.from_networkx(nx_edge(weight="heavy"))),
    "k zero": ("graph.neighbours", lambda: Graph.knn(torch.zeros(3, 2), 0)),
    "k all": ("graph.neighbours", lambda: Graph.knn(torch.zeros(3, 2), 3)),
    "scaling": (
        "graph.scaling",
        lambda: direct([[0], [1]], [1.0], scaling=torch.tensor([1.0, 0.0, 1.0])),
    ),
    "scaling length": ("graph.scaling", lambda: direct([[0], [1]], [1.0], scaling=torch.ones(2))),
    "combine sizes": (
        "graph.combine",
        lambda: Graph.combine([Graph.ring(3), Graph.ring(4)], [1.0, 1.0]),
    ),
    "combine none": ("graph.combine", lambda: Graph.combine([], [])),
    "disjoint none": ("graph.combine", lambda: Graph.disjoint([])),
    "combine weights": ("graph.combine", lambda: Graph.combine([Graph.ring(3)], [-1.0])),
    "combine nan": ("graph.combine", lambda: Graph.combine([Graph.ring(3)], [float("nan")])),
    "combine overflow": ("graph.nan_weight", lambda: Graph.combine([Graph.ring(3)], [1.7e308])),
    "float parents": ("graph.dtype", lambda: Graph.tree([-1.0, 0.0])),
    "combine count": ("graph.combine", lambda: Graph.combine([Graph.ring(3)], [1.0, 2.0])),
    "combine scaled": (
        "graph.combine",
        lambda: Graph.combine([Graph.ring(3), Graph.ring(3).normalized()], [1.0, 1.0]),
    ),
    "combine signs": (
        "graph.both_signs",
        lambda: Graph.combine([Graph.ring(3), direct([[0], [1]], [-2.0], signed=True)], [1.0, 0.1]),
    ),
}
CLASSES = {
    "graph.asymmetric": AsymmetricWeightsError,
    "graph.negative_weight": NegativeWeightError,
}


def nx_edge(**attributes):
    g = nx.Graph()
    g.add_edge(0, 1, **attributes)
    return g


@pytest.mark.parametrize(("code", "build"), FAULTS.values(), ids=FAULTS)
def test_is_refused_by_code(code, build):
    with pytest.raises(CLASSES.get(code, GraphError)) as caught:
        build()
    assert caught.value.code == code
    assert isinstance(caught.value, ValueError)
    message = str(caught.value)
    assert "expected" in message or "Combine first" in message or "ids 1-based" in message


# --- what the messages say ---


def test_out_of_range_asks_for_one_based_ids():
    with pytest.raises(GraphError, match="are your ids 1-based") as caught:
        from_edges([[0, 12], [1, 512]], n=512)
    assert "edge (12, 512)" in str(caught.value)
    assert "num_nodes=512 (valid 0..511)" in str(caught.value)
    assert caught.value.context == {"edge": (12, 512), "index": 1, "count": 1, "num_nodes": 512}


def test_negative_weight_names_the_first_edge_the_count_and_the_way_out():
    with pytest.raises(
        NegativeWeightError, match=r"-2.0 at edge \(1, 2\) \(and 1 more\)"
    ) as caught:
        from_edges([[0, 1, 0], [1, 2, 2]], [1.0, -2.0, -3.0])
    assert caught.value.context == {"edge": (1, 2), "index": 1, "count": 2}
    assert "signed=True" in str(caught.value)
    assert from_edges([[0, 1], [1, 2]], [1.0, -2.0], signed=True).num_null == 1


@given(n=st.integers(2, 8), scale=st.floats(-200, 200), seed=st.integers(0, 2**31))
def test_asymmetry_is_judged_relatively_and_named(n, scale, seed):
    """The same matrix at 1e-7 of its size is just as asymmetric."""
    random = np.random.default_rng(seed)
    w = (1 + random.random((n, n))) * 10.0**scale
    w = np.triu(w) + np.triu(w, 1).T
    noise = 1 + 1e-14 * random.standard_normal((n, n)).clip(-5, 5)
    assert Graph.from_scipy(sparse.csr_array(w * noise)).num_edges == n * (n - 1) // 2

    i, j = sorted(random.choice(n, 2, replace=False))
    w[i, j] *= 1 + 1e-10
    with pytest.raises(AsymmetricWeightsError, match=r"(?s)symmetrize.*union") as caught:
        Graph.from_scipy(sparse.csr_array(w))
    assert caught.value.context["edge"] == (i, j)


@pytest.mark.parametrize("signed", [False, True])
def test_minus_zero_is_zero(signed):
    assert from_edges([[0], [1]], [-0.0], signed=signed).num_edges == 0


@given(sample=edge_lists(signed=False), seed=st.integers(0, 2**31))
def test_one_bad_weight_among_many_is_found(sample, seed):
    n, edges, weights = sample
    if not len(weights):
        return
    random = np.random.default_rng(seed)
    bad = random.integers(len(weights))
    value, code = [(np.nan, "nan_weight"), (-np.inf, "nan_weight"), (-1e-300, "negative_weight")][
        random.integers(3)
    ]
    weights[bad] = value
    for build in (from_edges, lambda e, w, n: Graph(torch.tensor(e), torch.tensor(w), n)):
        with pytest.raises(GraphError) as caught:
            build(edges, weights, n=n)
        assert caught.value.code == f"graph.{code}"
        assert caught.value.context["index"] == bad


# --- what is legitimate is accepted, and said ---


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_disconnected_graphs_and_isolated_nodes_are_accepted_in_silence(sizes):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = Graph.disjoint([Graph.ring(s) for s in sizes])
    assert graph.num_components == len(sizes)
    assert graph.component_sizes.tolist() == sizes
    assert len(graph.isolated) == sizes.count(1)


def test_multigraphs_are_summed_and_counted():
    g = nx.MultiGraph([(0, 1), (1, 0), (1, 2), (2, 2)])
    graph = Graph.from_networkx(g)
    assert graph.weights.tolist() == [2.0, 1.0]
    assert (graph.report.duplicates, graph.report.self_loops) == (1, 1)


def test_digraphs_may_be_symmetrised():
    g = nx.DiGraph()
    g.add_weighted_edges_from([(0, 1, 4.0), (1, 0, 2.0), (2, 1, 1.0)])
    found = {s: Graph.from_networkx(g, symmetrize=s) for s in ("mean", "max", "min")}
    assert found["mean"].weights.tolist() == [3.0, 0.5]
    assert found["max"].weights.tolist() == [4.0, 1.0]
    assert found["min"].weights.tolist() == [2.0]


def test_integer_types_do_not_matter():
    expected = from_edges([[0, 1], [1, 2]])
    for kind in (np.int8, np.uint16, np.int32, np.uint64):
        assert from_edges(np.array([[0, 1], [1, 2]], dtype=kind)) == expected
    assert from_edges(torch.tensor([[0, 1], [1, 2]], dtype=torch.int32)) == expected
    matrix = sparse.csr_array(expected.adjacency().astype(np.int16))
    assert Graph.from_scipy(matrix) == expected
    assert from_edges([[0], [1]], torch.ones(1, requires_grad=True)).num_edges == 1


def test_many_nodes_do_not_overflow_the_sort_key():
    n = 2**31 - 1
    arrays = np.array([[n - 2, 0, n - 3], [n - 1, n - 1, n - 1]])
    pairs, weights = canonical(*arrays, np.array([1.0, 2.0, 3.0]), n)
    assert pairs.tolist() == [[0, n - 3, n - 2], [n - 1] * 3]
    assert weights.tolist() == [2.0, 3.0, 1.0]


MEMORY = """
import resource, sys
import numpy as np, torch
from priors.graph import Graph
import scipy.sparse.csgraph, torch.nn.functional
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2 * 10**9,) * 2)
random = np.random.default_rng(0)
edges = random.integers(0, 10**6, (2, 10**7))
graph = Graph.from_edges(edges, num_nodes=10**6)
del edges
loops, pairs = graph.report.self_loops, graph.num_edges
assert loops + pairs <= 10**7 < 1.001 * (loops + pairs), (loops, pairs)
assert graph.degree.sum() == 2 * graph.weights.sum()
assert 0.999 * 10**7 < graph.weights.sum() <= 10**7 - loops  # a pair in both directions is one
assert graph.num_components == 1 + len(graph.isolated) == graph.num_null
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits address space by /proc")
def test_ten_million_random_edges_fit_in_two_gigabytes():
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
