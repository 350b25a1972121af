"""The Laplacian on sparse codes, against the dense product of the definition."""

import numpy as np
import pytest
import torch
from graph_strategies import dense_laplacian, graphs
from hypothesis import given
from hypothesis import strategies as st

import priors.neighbours as neighbours
from priors import Graph, GraphLaplacianPrior, Omitted, restrict
from priors.neighbours import neighbour_forms


def scaled_laplacian(graph):
    """``S(|D| - W)S``, entry by entry."""
    scale = graph.scaling.numpy()
    dense = dense_laplacian(graph.num_nodes, graph.edges.numpy(), graph.weights.numpy())
    return scale[:, None] * dense * scale


def codes(rng, nodes, rows):
    width = int(rng.integers(1, nodes + 1))
    support = np.stack([rng.permutation(nodes)[:width] for _ in range(rows)])
    values = rng.standard_normal(support.shape) * (rng.random(support.shape) < 0.8)
    return support, values


@given(
    graph=graphs(signed=True),
    other=graphs(signed=True),
    normalized=st.booleans(),
    rows=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
)
def test_against_the_dense_product(graph, other, normalized, rows, seed):
    rng = np.random.default_rng(seed)
    graph = Graph.disjoint([graph, other])
    graph = graph.normalized() if normalized else graph
    support, values = codes(rng, graph.num_nodes, rows)
    dense = np.zeros((rows, graph.num_nodes))
    np.put_along_axis(dense, support, values, 1)
    expected = dense @ scaled_laplacian(graph)
    z = torch.from_numpy(values).requires_grad_()
    smooth, pull = neighbour_forms(torch.from_numpy(support), z, *graph.laplacian_csr)
    np.testing.assert_allclose(
        pull.detach(), np.take_along_axis(expected, support, 1), rtol=1e-12, atol=1e-12
    )
    np.testing.assert_allclose(smooth.detach(), (dense * expected).sum(1), rtol=1e-12, atol=1e-12)
    weights = torch.from_numpy(rng.standard_normal(rows))
    (grad,) = torch.autograd.grad((weights * smooth).sum(), z)
    twice = 2 * weights[:, None].numpy() * np.take_along_axis(expected, support, 1)
    np.testing.assert_allclose(grad, twice, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 3, 8])
@pytest.mark.parametrize("budget", [1, 2**19])
def test_hubs_and_pieces(monkeypatch, chunk, budget):
    """A hub tied to everyone, whatever the size of the pieces and of the scratch."""
    monkeypatch.setattr(neighbours, "CHUNK", chunk)
    monkeypatch.setattr(neighbours, "SCRATCH_NUMBERS", budget)
    nodes = 60
    star = torch.stack([torch.zeros(nodes - 2, dtype=torch.int64), torch.arange(1, nodes - 1)])
    graph = Graph(star, torch.rand(nodes - 2) + 0.5, nodes)  # the last node is alone
    support = torch.stack([torch.randperm(nodes)[:7] for _ in range(50)])
    support[::2, 0], values = 0, torch.randn(50, 7)
    values[:, 1:][support[:, 1:] == 0] = 0.0  # the hub once per row
    dense = torch.zeros(50, nodes).scatter_add(1, support, values)
    expected = dense @ torch.from_numpy(scaled_laplacian(graph))
    smooth, pull = neighbour_forms(support, values, *graph.laplacian_csr)
    torch.testing.assert_close(pull, expected.gather(1, support), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(smooth, (dense * expected).sum(1), rtol=1e-12, atol=1e-12)


def test_repeated_latents_add_up():
    graph = Graph.ring(5)
    support, values = torch.tensor([[1, 1, 2]]), torch.tensor([[0.5, 0.25, 2.0]])
    smooth, pull = neighbour_forms(support, values, *graph.laplacian_csr)
    merged = neighbour_forms(
        torch.tensor([[1, 2]]), torch.tensor([[0.75, 2.0]]), *graph.laplacian_csr
    )
    torch.testing.assert_close(smooth, merged[0])
    torch.testing.assert_close(pull, merged[1][:, [0, 0, 1]])


def test_combined_graphs():
    ring, blocks = Graph.ring(6), Graph.blocks([2, 4])
    both = Graph.combine([ring, blocks], [1.0, 0.3])
    support, values = torch.tensor([[0, 3, 5], [2, 1, 4]]), torch.randn(2, 3)
    one, two, sum_ = (
        neighbour_forms(support, values, *g.laplacian_csr)[1] for g in (ring, blocks, both)
    )
    torch.testing.assert_close(sum_, one + 0.3 * two)


def test_no_rows():
    support = torch.zeros(0, 3, dtype=torch.int64)
    smooth, pull = neighbour_forms(support, torch.zeros(0, 3), *Graph.ring(5).laplacian_csr)
    assert (smooth.shape, pull.shape) == ((0,), (0, 3))


def test_gradients_to_second_order():
    graph = Graph(
        torch.tensor([[0, 1, 0], [1, 2, 3]]), torch.tensor([1.0, -2.0, 0.5]), 5, signed=True
    )
    support = torch.tensor([[3, 0, 1], [4, 2, 1]])
    csr = graph.laplacian_csr

    def forms(values):
        return neighbour_forms(support, values, *csr)

    values = torch.randn(2, 3, requires_grad=True)
    assert torch.autograd.gradcheck(forms, (values,))
    assert torch.autograd.gradgradcheck(forms, (values,))
    hessian = torch.autograd.functional.hessian(lambda v: forms(v)[0].sum(), values.detach())
    dense = torch.from_numpy(scaled_laplacian(graph))
    for row in range(2):
        block = dense[support[row]][:, support[row]]
        torch.testing.assert_close(hessian[row, :, row], 2 * block)


def test_operator_contract():
    """Fake tensors, schema, autograd registration: what export and compile rely on."""
    graph = Graph.ring(5)
    support, values = torch.tensor([[3, 0], [4, 2]]), torch.randn(2, 2, requires_grad=True)
    torch.library.opcheck(neighbour_forms, (support, values, *graph.laplacian_csr))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_prior_in_either_dtype(dtype):
    prior = GraphLaplacianPrior(Graph.ring(9), ridge=0.3, logdet=Omitted()).to(dtype)
    support, values = torch.tensor([[3, 0, 4], [8, 1, 2]]), torch.rand(2, 3, dtype=dtype)
    dense = torch.zeros(2, 9, dtype=dtype).scatter(1, support, values)
    ours, oracle = restrict(prior(), support).log_prob(values), prior().log_prob(dense)
    assert ours.dtype == torch.float64
    torch.testing.assert_close(ours.to(dtype), oracle)


def test_leading_batch_dimensions():
    prior = GraphLaplacianPrior(Graph.ring(9), ridge=0.3, loc=0.5)
    support, values = torch.tensor([[3, 0, 4], [8, 1, 2]]), torch.randn(4, 2, 3)
    restricted = restrict(prior(), support)
    ours = restricted.log_prob(values)
    each = torch.stack([restricted.log_prob(row) for row in values])
    torch.testing.assert_close(ours, each)
