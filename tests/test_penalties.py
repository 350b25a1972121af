"""Three arrangements of one quadratic form, and the form that is another object."""

import numpy as np
import pytest
import torch
from graph_strategies import dense_laplacian, edge_lists, graphs
from hypothesis import given
from hypothesis import strategies as st

from priors.errors import GraphError, NegativeWeightError
from priors.graph import Graph
from priors.penalties import (
    edge_list_difference,
    laplacian_quadratic,
    pairwise_difference,
    sample_graph_smoothness,
)

BATCHES = st.sampled_from([(), (3,), (2, 3), (0,), (70,)])


def codes(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(data=st.data(), signed=st.booleans(), batch=BATCHES, seed=st.integers(0, 2**31))
def test_three_forms_are_one_number_per_row(data, signed, batch, seed):
    n, edges, weights = data.draw(edge_lists(signed=signed))
    graph = Graph(torch.tensor(edges), torch.tensor(weights), n, signed=signed)
    adjacency = torch.tensor(graph.adjacency().toarray())
    z = codes(seed, *batch, n)
    oracle = np.einsum("...i,ij,...j", z.numpy(), dense_laplacian(n, edges, weights), z.numpy())

    # The matrix form sums <= 64 terms of size degree * z² <= 14 * 25.
    for found in (
        laplacian_quadratic(z, graph),
        pairwise_difference(z, adjacency, signed=signed),
        edge_list_difference(z, graph),
    ):
        assert found.shape == batch
        np.testing.assert_allclose(found.numpy(), oracle, rtol=1e-12, atol=1e-12)
    assert (edge_list_difference(z, graph) >= 0).all()


@given(data=st.data(), signed=st.booleans(), seed=st.integers(0, 2**31))
def test_normalised_forms_agree(data, signed, seed):
    graph = data.draw(graphs(signed=signed)).normalized()
    z = codes(seed, 3, graph.num_nodes)
    dense = graph.laplacian().toarray()
    oracle = np.einsum("bi,ij,bj->b", z.numpy(), dense, z.numpy())
    for found in (laplacian_quadratic(z, graph), edge_list_difference(z, graph)):
        np.testing.assert_allclose(found.numpy(), oracle, rtol=1e-12, atol=1e-12)


@given(data=st.data(), signed=st.booleans(), seed=st.integers(0, 2**31))
def test_gradient_is_2Lz_and_hessian_2L(data, signed, seed):
    graph = data.draw(graphs(signed=signed, most_nodes=5))
    if data.draw(st.booleans()):
        graph = graph.normalized()
    laplacian = torch.tensor(graph.laplacian().toarray())
    z = codes(seed, 2, graph.num_nodes).requires_grad_()
    for penalty in (laplacian_quadratic, edge_list_difference):
        (gradient,) = torch.autograd.grad(penalty(z, graph).sum(), z, create_graph=True)
        torch.testing.assert_close(gradient, 2 * z @ laplacian, rtol=1e-12, atol=1e-12)
        if not graph.num_edges and penalty is edge_list_difference:
            continue
        probe = codes(seed + 1, *z.shape)
        (second,) = torch.autograd.grad((gradient * probe).sum(), z)
        torch.testing.assert_close(second, 2 * probe @ laplacian, rtol=1e-12, atol=1e-12)


@given(data=st.data(), signed=st.booleans())
def test_zero_exactly_on_the_null_space(data, signed):
    graph = data.draw(graphs(signed=signed))
    for label in range(graph.num_components):
        z = torch.tensor(graph.null_vector * (graph.components == label))
        assert edge_list_difference(3 * z, graph) == 0  # not merely small
    other = codes(0, graph.num_nodes)
    assert (edge_list_difference(other, graph) > 0) == (graph.num_edges > 0)


@given(n=st.integers(2, 7), seed=st.integers(0, 2**31))
def test_asymmetric_adjacency_is_its_symmetrisation_but_out_degree_minus_adjacency_is_not(n, seed):
    random = np.random.default_rng(seed)
    one_way = random.uniform(0.5, 2.0, (n, n)) * (random.random((n, n)) < 0.5)
    both = (one_way + one_way.T) / 2
    z = random.standard_normal((4, n))

    found = pairwise_difference(torch.tensor(z), torch.tensor(one_way)).numpy()

    symmetric = np.einsum("bi,ij,bj->b", z, np.diag(both.sum(1)) - both, z)
    np.testing.assert_allclose(found, symmetric, rtol=1e-12, atol=1e-12)
    wrong = np.einsum("bi,ij,bj->b", z, np.diag(one_way.sum(1)) - one_way, z)
    # z'(D_out - A)z misses ½ Σ (out - in degree) z², the whole difference.
    missing = z**2 @ (one_way.sum(1) - one_way.sum(0)) / 2
    np.testing.assert_allclose(wrong - found, missing, rtol=1e-9, atol=1e-9)
    if abs(one_way.sum(1) - one_way.sum(0)).max() > 0.1:
        assert abs(wrong - found).max() > 1e-9


def test_out_degree_minus_adjacency_may_be_negative():
    adjacency = np.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    wrong = np.diag(adjacency.sum(1)) - adjacency
    z = np.array([2.0, 1.0, 1.0])
    assert z @ wrong @ z < 0
    assert pairwise_difference(torch.tensor(z), torch.tensor(adjacency)).item() == 2.0


def test_the_diagonal_of_an_adjacency_does_not_count():
    z = torch.tensor([[3.0, -2.0]])
    for diagonal in (5.0, -5.0):
        found = pairwise_difference(z, torch.eye(2) * diagonal, signed=True)
        assert found.item() == 0


@given(data=st.data(), k=st.integers(1, 4), seed=st.integers(0, 2**31))
def test_sample_graph_smoothness_is_the_trace(data, k, seed):
    graph = data.draw(graphs(signed=False))
    z = codes(seed, graph.num_nodes, k)
    dense = graph.laplacian().toarray()
    found = sample_graph_smoothness(z, graph)
    expected = np.trace(z.numpy().T @ dense @ z.numpy())
    np.testing.assert_allclose(found.item(), expected, rtol=1e-12, atol=1e-12)
    # It joins rows: permuting latents changes nothing, permuting rows does.
    permuted = sample_graph_smoothness(z.flip(1), graph)
    torch.testing.assert_close(permuted, found, rtol=1e-12, atol=1e-12)


def test_sample_graph_smoothness_is_not_the_latent_penalty():
    z, graph = torch.tensor([[1.0, 0.0], [0.0, 5.0]]), Graph.ring(2)
    assert sample_graph_smoothness(z, graph) == 26.0
    assert laplacian_quadratic(z, graph).tolist() == [1.0, 25.0]
    z = torch.tensor([[1.0, 1.0], [5.0, 5.0]])
    assert sample_graph_smoothness(z, graph) == 32.0
    assert laplacian_quadratic(z, graph).tolist() == [0.0, 0.0]


def test_edge_list_keeps_the_digits_where_neighbours_agree():
    z = 1e8 + torch.tensor([[0.0, 1.0]])
    assert edge_list_difference(z, Graph.ring(2)).item() == 1.0


@pytest.mark.float32
def test_float32_codes_stay_float32():
    z, graph = torch.randn(3, 4), Graph.ring(4)
    for penalty in (laplacian_quadratic, edge_list_difference):
        assert penalty(z, graph).dtype == torch.float32
    assert pairwise_difference(z, torch.ones(4, 4)).dtype == torch.float32


@pytest.mark.parametrize("penalty", [laplacian_quadratic, edge_list_difference])
def test_a_graph_of_another_size_is_refused(penalty):
    with pytest.raises(GraphError) as caught:
        penalty(torch.zeros(2, 3), Graph.ring(4))
    assert caught.value.code == "graph.num_nodes"
    with pytest.raises(GraphError, match="2 rows and 3 nodes"):
        sample_graph_smoothness(torch.zeros(2, 3), Graph.ring(3))


@pytest.mark.parametrize(
    ("adjacency", "error", "code"),
    [
        ([[0.0, -1.0], [0.0, 0.0]], NegativeWeightError, "graph.negative_weight"),
        ([[0.0, torch.nan], [0.0, 0.0]], GraphError, "graph.nan_weight"),
        ([[0.0, torch.inf], [0.0, 0.0]], GraphError, "graph.nan_weight"),
    ],
)
def test_bad_adjacencies_are_refused(adjacency, error, code):
    with pytest.raises(error) as caught:
        pairwise_difference(torch.zeros(1, 2), torch.tensor(adjacency))
    assert caught.value.code == code


def test_no_square_array_and_no_edge_sized_one():
    """The sparse form's largest tensor is its input: neither (K, K) nor (B, E)."""
    graph = Graph.ring(2000)
    z, largest = torch.randn(4, 2000), 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return out

    with Watch():
        laplacian_quadratic(z, graph)
    assert largest <= 4 * 2000
