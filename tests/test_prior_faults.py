"""What cannot be a prior is a typed error with a stable code, and never repaired."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from priors import (
    BlockDiagonalPrior,
    CholeskyPrior,
    ComponentLU,
    EquicorrelatedPrior,
    Graph,
    GraphLaplacianPrior,
    IsotropicPrior,
    LanczosSpectrum,
    LaplacePrior,
    Omitted,
    replicas,
)
from priors.errors import ConfigError, GraphWarning, NotPositiveDefiniteError, VsaeError

RING = Graph.ring(4)
EMPTY = Graph(torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0), 4)
PAIR = Graph(torch.tensor([[0], [1]]), torch.ones(1), 9)
WRONG = {
    "prior.bad_dim": [
        lambda: IsotropicPrior(0),
        lambda: CholeskyPrior(-1),
        lambda: LaplacePrior(0),
        lambda: EquicorrelatedPrior(0, correlation=0.5),
    ],
    "prior.bad_scale": [
        lambda: IsotropicPrior(3, scale=0.0),
        lambda: IsotropicPrior(3, scale=float("nan")),
        lambda: CholeskyPrior(3, scale=-1.0),
        lambda: BlockDiagonalPrior([2], scale=float("inf")),
        lambda: LaplacePrior(3, scale=-2.0),
        lambda: IsotropicPrior(3, scale=1e-50),  # 0 in float32
    ],
    "prior.bad_loc": [  # C12: NaN is named first, then shapes
        lambda: IsotropicPrior(3, loc=float("nan")),
        lambda: CholeskyPrior(3, loc=torch.zeros(4)),
        lambda: CholeskyPrior(3, loc=torch.zeros(3, dtype=torch.int64)),
        lambda: BlockDiagonalPrior([3, 4, 4], loc=nn.Parameter(torch.zeros(12))),  # C13
        lambda: GraphLaplacianPrior(RING, loc=torch.tensor([0.0, torch.inf, 0.0, 0.0])),
    ],
    "prior.infeasible_correlation": [
        lambda: EquicorrelatedPrior(3, correlation=-0.8),
        lambda: EquicorrelatedPrior(5, correlation=-0.25),
        lambda: EquicorrelatedPrior(5, correlation=1.0),
        lambda: EquicorrelatedPrior(2, correlation=float("nan")),
    ],
    "prior.block_sizes": [  # C13
        lambda: BlockDiagonalPrior([]),
        lambda: BlockDiagonalPrior([2, 0]),
        lambda: BlockDiagonalPrior([2, -1]),
        lambda: BlockDiagonalPrior.from_labels([]),
    ],
    "prior.block_order": [
        lambda: BlockDiagonalPrior([3, 4, 4], order=list(range(12))),
        lambda: BlockDiagonalPrior([2, 1], order=[0, 1, 1]),  # overlap
    ],
    "prior.bad_strength": [
        lambda: GraphLaplacianPrior(RING, strength=0.0),
        lambda: GraphLaplacianPrior(RING, strength=float("nan")),
        lambda: GraphLaplacianPrior(RING, strength=1e39),
    ],
    "prior.dtype": [lambda: IsotropicPrior(3).bfloat16()(), lambda: CholeskyPrior(3).half()()],
    "prior.event_shape": [
        lambda: kl_divergence(Independent(Normal(torch.zeros(1), 1.0), 1), IsotropicPrior(3)()),
        lambda: kl_divergence(MultivariateNormal(torch.zeros(2), torch.eye(2)), CholeskyPrior(3)()),
    ],
    "graph.constant_logdet": [
        lambda: GraphLaplacianPrior(RING, learnable=True, logdet=ComponentLU()),
        lambda: GraphLaplacianPrior(RING, learnable=True, logdet=Omitted()),
    ],
    "graph.improper": [  # C1
        lambda: GraphLaplacianPrior(RING, ridge=0.0),
        lambda: GraphLaplacianPrior(RING, ridge=-1.0, learnable=True),
        lambda: GraphLaplacianPrior(EMPTY, ridge=float("nan")),
        lambda: GraphLaplacianPrior(RING.normalized(), ridge=1e-46, logdet=Omitted()),
        lambda: GraphLaplacianPrior(RING, ridge=1e-39, logdet=LanczosSpectrum()),
        lambda: GraphLaplacianPrior(RING, ridge=1e39),
    ],
    "logdet.bad_probes": [lambda: LanczosSpectrum(probes=1), lambda: LanczosSpectrum(steps=0)],
    "replicas.mismatch": [
        lambda: replicas.stack([IsotropicPrior(2), IsotropicPrior(3)]),
        lambda: replicas.stack([IsotropicPrior(2), LaplacePrior(2)]),
        lambda: replicas.stack(
            [GraphLaplacianPrior(RING), GraphLaplacianPrior(RING, learnable=True)]
        ),
        lambda: replicas.stack([BlockDiagonalPrior([1, 2]), BlockDiagonalPrior([2, 1])]),
        lambda: replicas.stack([GraphLaplacianPrior(RING), GraphLaplacianPrior(Graph.ring(5))]),
    ],
}
CASES = [(code, make) for code, makes in WRONG.items() for make in makes]


@pytest.mark.parametrize(("code", "make"), CASES, ids=[code for code, _ in CASES])
def test_wrong_settings_are_named(code, make):
    with pytest.raises(VsaeError) as caught:
        make()
    assert caught.value.code == code
    assert "expected" in str(caught.value).lower() or "must be" in str(caught.value)


def test_messages_say_what_was_got_and_what_is_feasible():
    with pytest.raises(ConfigError, match=r"-1/\(K-1\) = -0.5 < correlation < 1.*pairs"):
        EquicorrelatedPrior(3, correlation=-0.8)
    with pytest.raises(ConfigError, match=r"3\+4\+4=11 but order has 12"):
        BlockDiagonalPrior([3, 4, 4], order=list(range(12)))
    with pytest.raises(torch.linalg.LinAlgError, match=r"not positive-definite.*2-dimensional"):
        GraphLaplacianPrior(Graph.blocks([2, 2]), ridge=0.0)
    EquicorrelatedPrior(2, correlation=-0.8)  # a pair can


def test_ten_thousand_singular_laplacians_are_never_accepted():
    """C1: any graph whose signs are balanced, ridge 0, negative, NaN or gone in float32."""
    rng = np.random.default_rng(0)
    ridges = [0.0, -0.0, -1e-12, 1e-39, 1e-45, 5e-324, -1.0, float("nan")]
    for trial in range(10_000):
        n = int(rng.integers(1, 13))
        low, high = np.triu_indices(n, 1)
        kept = rng.random(len(low)) < rng.uniform(0, 1)
        edges, signs = np.stack([low[kept], high[kept]]), rng.choice([-1.0, 1.0], n)
        weights = 10 ** rng.uniform(-2, 2, kept.sum())
        if signed := trial % 3 == 0:
            weights = weights * signs[edges[0]] * signs[edges[1]]
        graph = Graph(torch.from_numpy(edges), torch.from_numpy(weights), n, signed=signed)
        graph = graph.normalized() if trial % 20 == 0 else graph
        with pytest.raises(NotPositiveDefiniteError, match="not positive-definite") as caught:
            GraphLaplacianPrior(graph, ridge=ridges[trial % 8], learnable=trial % 2 == 0)
        pattern = sparse.coo_array((abs(weights), edges), shape=(n, n))
        components = sparse.csgraph.connected_components(pattern, directed=False)[0]
        assert caught.value.code == "graph.improper"
        assert caught.value.context["num_null"] == components


def test_isolated_nodes_are_named_when_they_are_wild():
    """C3: up to five names, the implied standard deviation, and silence when it is ordinary."""
    with pytest.warns(GraphWarning, match=r"7 isolated nodes \(2, 3, 4, 5, 6, …\).* 1e\+03"):
        GraphLaplacianPrior(PAIR, ridge=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GraphLaplacianPrior(PAIR, ridge=1.0)
        GraphLaplacianPrior(Graph.blocks([2, 2, 3]), ridge=1e-6)  # components are welcome
        GraphLaplacianPrior(EMPTY, ridge=1e-6)  # nothing to compare with


@settings(max_examples=200)
@given(sizes=st.lists(st.integers(-1, 3), max_size=5), extra=st.integers(-2, 2))
def test_block_arithmetic(sizes, extra):
    """C13: accepted exactly when every size is at least 1 and the order names every latent once."""
    order = list(range(max(0, sum(sizes) + extra)))
    fits = bool(sizes) and min(sizes) >= 1 and extra == 0
    if fits:
        assert BlockDiagonalPrior(sizes, order=order).dim == sum(sizes)
    else:
        with pytest.raises(ConfigError):
            BlockDiagonalPrior(sizes, order=order)


@given(
    dim=st.integers(1, 5),
    raw=st.lists(st.floats(-5, 5), min_size=30, max_size=30),
    z=st.lists(st.floats(-3, 3), min_size=5, max_size=5),
)
def test_no_learned_factor_is_refused_or_repaired(dim, raw, z):
    """C11: any raw entries in [-5, 5] are a proper prior, used as they are, with no jitter."""
    prior = CholeskyPrior(dim)
    raw = torch.tensor(raw)
    with torch.no_grad():
        prior.log_diagonal.copy_(raw[25 : 25 + dim])
        prior.strict_lower.copy_(raw[:25].view(5, 5)[:dim, :dim])
    z = torch.tensor(z[:dim])
    found = prior()
    assert found.log_prob(z).isfinite()
    assert found.rsample().isfinite().all()
    assert torch.equal(found.precision.logdet(), 2 * prior.log_diagonal.sum())


def test_an_inexact_normaliser_says_so():
    """C10: only by name, and marked."""
    assert GraphLaplacianPrior(RING).log_determinant.exact
    assert GraphLaplacianPrior(RING, learnable=True).log_determinant.exact
    assert not GraphLaplacianPrior(RING, logdet=LanczosSpectrum()).log_determinant.exact
    assert not GraphLaplacianPrior(RING, logdet=Omitted()).log_determinant.exact
