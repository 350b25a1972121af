"""log det(γI + λL): exact by grounding, by eigenvalues, and estimated, against known spectra."""

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prior_table import random_graph
from scipy import sparse

from priors import (
    ComponentLU,
    Graph,
    GraphLaplacianPrior,
    LanczosSpectrum,
    Omitted,
    Spectrum,
    errors,
    sparse_factor,
)
from priors.component_lu import log_determinant

SEEDS = st.integers(0, 2**31)
GAMMAS = [1e-14, 1e-10, 1e-6, 1e-2, 1.0, 1e2]
GAMMA = pytest.mark.parametrize("gamma", GAMMAS)


def _exact(found, eigenvalues, gamma, lam=1.0):
    """Within 1e-12 of Σ|terms|, the terms being logarithms of the eigenvalues of γI + λL."""
    terms = np.log(gamma + lam * eigenvalues)
    assert abs(found - terms.sum()) <= 1e-12 * np.abs(terms).sum()


@given(dim=st.integers(1, 7), signed=st.booleans(), normalized=st.booleans(), seed=SEEDS)
def test_grounding_is_exact_for_any_graph(dim, signed, normalized, seed):
    """Weights over four decades, any components, γ from 1e-14 to 1e2, in 60 digits."""
    rng = np.random.default_rng(seed)
    graph = random_graph(dim, rng, 4, signed=signed)
    gamma, lam = 10 ** rng.uniform(-14, 2), 10 ** rng.uniform(-2, 2)
    field = oracles.Digits(60)
    with field.context():
        raw = (dim, graph.edges.numpy(), graph.weights.numpy())
        matrix = oracles.laplacian(field, *raw, normalized=normalized) * field.of(lam)[()]
        matrix = matrix + field.of(np.eye(dim)) * field.of(gamma)[()]
        exact = oracles.logdet(field, matrix)
        found = log_determinant(graph.normalized() if normalized else graph, gamma, lam)
        # Every eigenvalue is a term; their logarithms are bounded below by the pivots'.
        size = np.abs(np.log(np.linalg.eigvalsh(matrix.astype(float)).clip(min=gamma))).sum()
        assert abs(found - exact) <= 1e-12 * max(size, 1e-3), (found, float(exact))


def _cycle(k):  # 2 - 2 cos θ without cancellation
    return 4 * np.sin(np.pi * np.arange(k) / k) ** 2


def _path(k):
    return 4 * np.sin(np.pi * np.arange(k) / (2 * k)) ** 2


@GAMMA
@pytest.mark.parametrize("k", [1, 2, 3, 10, 300, 2000, 50_000])
def test_rings_paths_and_stars(k, gamma):
    path = Graph.tree([-1, *range(k - 1)])
    _exact(log_determinant(path, gamma, 1.0), _path(k), gamma)
    if k >= 3:
        _exact(log_determinant(Graph.ring(k), gamma, 1.0), _cycle(k), gamma)
    if k > 1:
        star = np.array([0.0] + [1.0] * (k - 2) + [float(k)])
        _exact(log_determinant(Graph.tree([-1] + [0] * (k - 1)), gamma, 1.0), star, gamma)


@GAMMA
@pytest.mark.parametrize(("rows", "cols"), [(1, 7), (12, 20), (250, 200)])
def test_grids(rows, cols, gamma):
    exact = (_path(rows)[:, None] + _path(cols)[None]).ravel()
    _exact(log_determinant(Graph.grid(rows, cols), gamma, 1.0), exact, gamma)


@GAMMA
def test_many_components_at_once(gamma):
    """50 000 isolated nodes; 6 250 blocks of 8; both in the time of one factorisation."""
    empty = Graph(torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0), 50_000)
    _exact(log_determinant(empty, gamma, 1.0), np.zeros(50_000), gamma)
    blocks = np.tile([0.0] + [8.0] * 7, 6250)
    _exact(log_determinant(Graph.blocks([8] * 6250), gamma, 1.0), blocks, gamma)


@GAMMA
@pytest.mark.parametrize("k", [3, 4, 50, 2000])
def test_signed_rings(k, gamma):
    """One negative edge makes a ring unbalanced: its angles are half-way between, none is 0."""
    ring = Graph.ring(k)
    weights = torch.ones(k)
    weights[0] = -1.0
    graph = Graph(ring.edges, weights, k, signed=True)
    exact = 4 * np.sin(np.pi * (np.arange(k) + 0.5) / k) ** 2
    _exact(log_determinant(graph, gamma, 1.0), exact, gamma)
    weights[1] = -1.0  # two of them: balanced again, and the spectrum is that of the plain ring
    balanced = Graph(ring.edges, weights, k, signed=True)
    _exact(log_determinant(balanced, gamma, 1.0), _cycle(k), gamma)


@pytest.mark.parametrize("k", [64, 800, 2000])
def test_random_weighted_trees_by_the_matrix_tree_theorem(k):
    """As γ → 0, det(γI + L) → γ K Πw for a tree: no eigenvalue is computed anywhere."""
    rng = np.random.default_rng(k)
    parents = [-1] + [int(rng.integers(0, i)) for i in range(1, k)]
    tree = Graph.tree(parents)
    weights = torch.from_numpy(10 ** rng.uniform(-2, 2, k - 1))
    graph = Graph(tree.edges, weights, k)
    gamma = 1e-14
    terms = [np.log(gamma), np.log(k), *weights.log().tolist()]
    # The neglected terms are of relative size γ times the trace of the pseudo-inverse.
    neglected = gamma * 100 * k**2
    bound = 1e-12 * np.abs(terms).sum() + neglected
    assert abs(log_determinant(graph, gamma, 1.0) - sum(terms)) <= bound


@given(dim=st.integers(1, 30), signed=st.booleans(), normalized=st.booleans(), seed=SEEDS)
def test_eigenvalues_agree_with_grounding_in_value_and_gradient(dim, signed, normalized, seed):
    rng = np.random.default_rng(seed)
    graph = random_graph(dim, rng, 2, signed=signed)
    graph = graph.normalized() if normalized else graph
    spectrum = Spectrum().of(graph)
    assert int((spectrum.eigenvalues == 0).sum()) == graph.num_null
    gamma, lam = torch.from_numpy(10 ** rng.uniform([-12, -1], [1, 1])).unbind()
    found = spectrum(gamma, lam)
    exact = log_determinant(graph, gamma.item(), lam.item())
    # An eigenvalue is known to 1e-16 of the largest, here up to 1e4 times the smallest.
    assert abs(found.item() - exact) <= 1e-10 * (dim + abs(exact))
    gamma, lam = gamma.requires_grad_(), lam.requires_grad_()
    slopes = torch.autograd.grad(spectrum(gamma, lam), [gamma, lam])
    # Euler: log det is K times homogeneous of degree 0 in the logarithm.
    euler = slopes[0] * gamma + slopes[1] * lam
    assert abs(euler.item() - dim) <= 1e-12 * dim


def test_spectrum_gradient():
    spectrum = Spectrum().of(Graph.combine([Graph.ring(9), Graph.blocks([4, 5])], [1.0, 0.5]))
    at = (torch.tensor(0.3, requires_grad=True), torch.tensor(2.0, requires_grad=True))
    assert torch.autograd.gradcheck(spectrum, at)


@pytest.mark.parametrize(
    "graph",
    [
        Graph.grid(12, 20),
        Graph.tree([-1] + [i // 3 for i in range(299)]),
        Graph.blocks([3] * 100),
        Graph.knn(torch.randn(300, 5, generator=torch.Generator().manual_seed(0)), 8),
    ],
    ids=["grid", "tree", "blocks", "knn"],
)
def test_lanczos_is_within_its_standard_error(graph):
    lanczos, spectrum = LanczosSpectrum(probes=16, steps=40).of(graph), Spectrum().of(graph)
    assert not lanczos.exact
    assert spectrum.exact
    for gamma, lam in [(1.0, 1.0), (0.1, 3.0), (1e-3, 1.0)]:
        at = torch.tensor(gamma), torch.tensor(lam)
        error = (lanczos(*at) - spectrum(*at)).abs()
        # Two probes' worth of quadrature error (1e-6 of K) on top of five standard errors.
        assert error <= 5 * lanczos.standard_error(*at) + 1e-6 * graph.num_nodes
        assert lanczos(*at) == LanczosSpectrum(probes=16, steps=40).of(graph)(*at)  # no chance left
    at = (torch.tensor(0.3, requires_grad=True), torch.tensor(2.0, requires_grad=True))
    assert torch.autograd.gradcheck(lanczos, at)


@pytest.mark.parametrize("sizes", [[2], [2, 1], [1, 1, 1], [2, 2, 2]])
def test_lanczos_on_tiny_graphs(sizes):
    """Here a probe may fall into the null space, and one eigenvalue makes the rule exact."""
    graph = Graph.blocks(sizes)
    at = torch.tensor(1e-9), torch.tensor(1.0)
    found = LanczosSpectrum(probes=4).of(graph)(*at)
    torch.testing.assert_close(found, Spectrum().of(graph)(*at), rtol=1e-12, atol=0)


def test_a_share_of_eigenvalues_and_the_constant_left_out():
    graph = Graph.ring(6)
    shared = Spectrum().of(graph)
    priors = [GraphLaplacianPrior(graph, learnable=True, logdet=shared) for _ in range(2)]
    assert priors[0].log_determinant is priors[1].log_determinant
    fixed = {"ridge": 0.3, "strength": 2.0}
    z, other = torch.randn(2, 6)
    without = GraphLaplacianPrior(graph, logdet=Omitted(), **fixed)()
    exact = GraphLaplacianPrior(graph, logdet=ComponentLU(), **fixed)()
    gap = exact.log_prob(z) - without.log_prob(z)
    torch.testing.assert_close(gap, exact.log_prob(other) - without.log_prob(other))
    torch.testing.assert_close(gap, 0.5 * exact.precision.logdet())


@given(dim=st.integers(1, 12), seed=SEEDS)
def test_fill_is_counted_exactly(dim, seed):
    """Column counts of the factor, against elimination of a dense boolean pattern."""
    graph = random_graph(dim, np.random.default_rng(seed), 1)
    pattern = sparse.csc_array(graph.laplacian() + sparse.eye_array(dim))
    dense = pattern.toarray() != 0
    for k in range(dim):
        below = np.flatnonzero(dense[k + 1 :, k]) + k + 1
        dense[np.ix_(below, below)] = True
    counts = sparse_factor.column_counts(pattern)
    assert counts.tolist() == np.tril(dense).sum(0).tolist()


def test_too_much_fill_is_refused_before_it_happens(monkeypatch):
    monkeypatch.setattr(sparse_factor, "MOST_FILL", 1000)
    prior = GraphLaplacianPrior(Graph.grid(30, 30))
    with pytest.raises(errors.GraphError, match=r"Spectrum.*LanczosSpectrum.*Omitted") as caught:
        prior().log_prob(torch.zeros(900))
    assert caught.value.code == "graph.too_large"
    assert caught.value.context["fill"] > 1000


def test_a_component_too_large_for_eigenvalues(monkeypatch):
    monkeypatch.setattr("priors.spectrum.MOST_NODES", 5)
    with pytest.raises(errors.GraphError, match="LanczosSpectrum") as caught:
        GraphLaplacianPrior(Graph.ring(6), learnable=True)
    assert caught.value.code == "graph.too_large"
    GraphLaplacianPrior(Graph.blocks([5, 5]), learnable=True)
