"""The k-nearest-neighbour graph against brute force in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from priors import knn
from priors.errors import AsymmetricWeightsError
from priors.graph import Graph


def brute_force(points, k, metric, symmetrize):
    """Dense ``W`` of the definition: one pair at a time, ties by number."""
    n = len(points)
    w, similarity, distances = np.zeros((n, n)), np.zeros((n, n)), []
    norm = np.sqrt((points**2).sum(1))
    for i in range(n):
        for j in range(n):
            if metric == "cosine":
                similarity[i, j] = points[i] @ points[j] / (norm[i] * norm[j] or 1.0)
            else:
                similarity[i, j] = -((points[i] - points[j]) ** 2).sum()
    for i in range(n):
        others = [j for j in np.argsort(-similarity[i], kind="stable") if j != i][:k]
        w[i, others] = similarity[i, others]
        distances += [-similarity[i, j] for j in others]
    chosen = w != 0
    if metric == "cosine":
        w = np.where(w > 1e-13, np.minimum(w, 1), 0)
    else:
        for i in range(n):
            others = [j for j in np.argsort(-similarity[i], kind="stable") if j != i][:k]
            chosen[i, others] = True
        scale = 2 * np.mean(distances)
        w = np.where(chosen, np.exp(similarity / scale) if scale else 1.0, 0)
    return {"max": np.maximum(w, w.T), "min": np.minimum(w, w.T), "mean": (w + w.T) / 2}[symmetrize]


POLICY = st.sampled_from(["max", "min", "mean"])


@given(
    n=st.integers(2, 9),
    d=st.integers(1, 4),
    k=st.integers(1, 8),
    metric=st.sampled_from(["cosine", "euclidean"]),
    symmetrize=POLICY,
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_brute_force(n, d, k, metric, symmetrize, seed):
    points = np.random.default_rng(seed).standard_normal((n, d))
    if metric == "cosine" and d == 1:
        points = np.hstack([points, points**2])  # ±1 is nothing but ties
    k = min(k, n - 1)
    found = Graph.knn(torch.tensor(points), k, metric=metric, symmetrize=symmetrize)
    expected = brute_force(points, k, metric, symmetrize)
    # An inner product of 5 terms, a norm and an exponential: a few roundings.
    np.testing.assert_allclose(found.adjacency().toarray(), expected, rtol=1e-12, atol=1e-15)


@given(
    points=npst.arrays(
        np.float64, st.tuples(st.integers(2, 9), st.integers(1, 2)), elements=st.integers(-2, 2)
    ),
    k=st.integers(1, 8),
    spare=st.integers(0, 2),
    symmetrize=POLICY,
)
def test_ties_go_to_the_lower_number(points, k, spare, symmetrize):
    """On a lattice distances tie exactly, and few spare candidates leave rows uncertified."""
    k = min(k, len(points) - 1)
    expected = brute_force(points, k, "euclidean", symmetrize)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knn, "SPARE", spare)
        found = Graph.knn(torch.tensor(points), k, metric="euclidean", symmetrize=symmetrize)
    np.testing.assert_allclose(found.adjacency().toarray(), expected, rtol=1e-12, atol=1e-15)


@given(
    n=st.integers(2, 16),
    k=st.integers(1, 12),
    tile=st.integers(2, 9),
    metric=st.sampled_from(["cosine", "euclidean"]),
    single=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_blocked_equals_unblocked(n, k, tile, metric, single, seed):
    points = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))
    points = points.float() if single else points.double()
    k = min(k, n - 1)
    whole = Graph.knn(points, k, metric=metric)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knn, "TILE", tile)
        patch.setattr(knn, "SCRATCH", tile)
        assert Graph.knn(points, k, metric=metric) == whole


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_single_precision_finds_the_neighbours_of_double_precision(metric):
    """Near-copies differ by less than float32 can rank: only a certified search gets them right."""
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(5, 16, generator=generator)
    points = centre.repeat(30, 1) + 3e-4 * torch.randn(150, 16, generator=generator)
    points = points.float()
    single = Graph.knn(points, 4, metric=metric)
    double = Graph.knn(points.double(), 4, metric=metric)
    assert torch.equal(single.edges, double.edges)
    assert torch.equal(single.weights, double.weights)
    assert single.num_components == 5


@given(
    seed=st.integers(0, 2**31),
    scale=st.floats(-140, 140),
    metric=st.sampled_from(["cosine", "euclidean"]),
)
def test_the_unit_of_the_points_does_not_matter(seed, scale, metric):
    points = torch.randn(12, 3, generator=torch.Generator().manual_seed(seed))
    one, other = (
        Graph.knn(points, 3, metric=metric),
        Graph.knn(points * 10**scale, 3, metric=metric),
    )
    assert torch.equal(one.edges, other.edges)
    # Only powers of two scale exactly; a cosine near 0 has an absolute error of a few roundings.
    torch.testing.assert_close(one.weights, other.weights, rtol=1e-12, atol=1e-15)


def test_cosine_ties_only_similar_points():
    points = torch.tensor([[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0], [0.0, 3.0], [0.0, 0.0]])
    graph = Graph.knn(points, 4)
    assert graph.edges.tolist() == [[0], [1]]
    assert graph.weights.tolist() == [1.0]
    assert graph.isolated.tolist() == [2, 3, 4]
    assert graph.report.zero_weights == 9


def test_many_zero_vectors_are_isolated_and_cost_nothing():
    points = torch.zeros(3000, 8)
    points[:10] = torch.randn(10, 8, generator=torch.Generator().manual_seed(0)).abs()
    assert Graph.knn(points, 3).isolated.tolist() == list(range(10, 3000))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_more_copies_than_candidates_are_taken_in_order_of_number(metric):
    points = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    graph = Graph.knn(points.repeat_interleave(100, 0), 3, metric=metric)
    # Everyone's first three copies are 0, 1, 2, and 3 for those three themselves.
    expected = [(i, j) for i in range(3) for j in range(i + 1, 100)]
    expected += [(100 + i, 100 + j) for i, j in expected]
    assert sorted(map(tuple, graph.edges.mT.tolist())) == sorted(expected)


def test_orthonormal_points_are_not_tied_by_rounding():
    square = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float32, torch.float64):
        assert Graph.knn(torch.linalg.qr(square.to(dtype)).Q, 5).num_edges == 0


def test_coincident_points_have_weight_one():
    graph = Graph.knn(torch.ones(4, 3), 3, metric="euclidean")
    assert graph.weights.tolist() == [1.0] * 6


def test_half_precision_points_are_read_as_they_are():
    points = torch.randn(20, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert Graph.knn(points, 3) == Graph.knn(points.float(), 3)


def test_mutual_neighbours_pass_where_the_policy_is_error():
    pairs = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    graph = Graph.knn(pairs, 1, metric="euclidean", symmetrize="error")
    assert graph.edges.tolist() == [[0, 2], [1, 3]]
    with pytest.raises(AsymmetricWeightsError) as caught:
        Graph.knn(pairs[:3], 1, metric="euclidean", symmetrize="error")
    assert caught.value.code == "graph.asymmetric"


def test_no_square_array_is_made():
    """4096 x 4096 similarities would be 64 MiB in float32; the largest tensor stays a tile."""
    points = torch.randn(4096, 8, generator=torch.Generator().manual_seed(0)).float()
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return out

    with Watch(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(knn, "TILE", 256)
        Graph.knn(points, 8)
    assert largest < 1_000_000
