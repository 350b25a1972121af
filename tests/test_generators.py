"""Document A's cases keep their promises: moments, truth, graphs; every case is a value."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator

from priors.errors import ConfigError
from toys.correlation import (
    BlockCorrelation,
    Independent,
    RandomCorrelation,
)
from toys.gaussian_cases import CASES, SPARSE_CASES, GaussianCase
from toys.notebook_cases import NOTEBOOK_CASES, NotebookCase, PairedFeatures
from toys.toy import precision_graph, realised

# Two-sided tail of 4.5 standard errors: 7e-6 per comparison, and some hundred of them per test.
LIMIT = 4.5
ALL = {f"gaussian-{n}": c for n, c in CASES.items()}
ALL |= {f"sparse-{n}": c for n, c in SPARSE_CASES.items()}
ALL |= {f"notebook-{n}": c for n, c in NOTEBOOK_CASES.items()}


def seeded(seed=0):
    return Generator().manual_seed(seed)


# Gaussian cases


@pytest.mark.parametrize("name", CASES)
def test_gaussian_cases_have_the_moments_they_state(name):
    n, generator = 100_000, seeded(3)
    toy = CASES[name].build(generator)
    x, z = (t.numpy() for t in toy.sample(n, generator))
    scale = np.sqrt(np.broadcast_to(CASES[name].variance, z.shape[1]))
    covariance = scale[:, None] * toy.correlation.numpy() * scale
    dictionary = toy.dictionary.numpy()
    of_x = dictionary.T @ covariance @ dictionary + 0.01 * np.eye(12)
    for sample, expected in ((z, covariance), (x, of_x)):
        found = sample.T @ sample / n
        diagonal = np.diag(expected)
        error = np.sqrt((diagonal[:, None] * diagonal + expected**2) / n)  # Isserlis
        assert np.abs((found - expected) / error).max() < LIMIT


@pytest.mark.parametrize("name", CASES)
def test_gaussian_precision_and_graph_are_the_truth(name):
    toy = CASES[name].build(seeded(1))
    scale = np.sqrt(np.broadcast_to(CASES[name].variance, toy.correlation.shape[0]))
    covariance = scale[:, None] * toy.correlation.numpy() * scale
    np.testing.assert_allclose(toy.precision.numpy() @ covariance, np.eye(len(scale)), atol=1e-12)
    sizes = {
        "case1": 0,
        "case2": 0,
        "case3": 190,
        "case4": 10,
        "case5": 25,
        "case6": 28 + 15 + 6 + 1,
    }
    assert toy.graph.edges.shape[1] == sizes[name]
    assert toy.graph.signed == (name in {"case4", "case5", "case6"})


def test_case_1_is_orthogonal_with_variances_one_to_a_fifth():
    toy = CASES["case1"].build(seeded())
    gram = (toy.dictionary @ toy.dictionary.mT).numpy()
    np.testing.assert_allclose(gram, np.eye(2), atol=1e-14)
    np.testing.assert_allclose(toy.precision.diagonal(), [1, 5], rtol=1e-14)


def test_case_2_is_at_45_degrees_with_equal_variance():
    toy = CASES["case2"].build(seeded())
    assert (toy.dictionary[0] @ toy.dictionary[1]).item() == pytest.approx(2**-0.5, abs=1e-14)
    np.testing.assert_allclose(toy.precision.diagonal(), [1, 1], rtol=1e-14)


def test_cases_train_as_one_batched_model():
    assert {case.d_model for case in (*CASES.values(), *SPARSE_CASES.values())} == {12}
    assert [case.features for case in CASES.values()] == [2, 2, 20, 20, 20, 20]
    assert CASES.keys() == SPARSE_CASES.keys()


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4), seed=st.integers(0, 2**31))
def test_the_signed_laplacian_of_the_graph_is_the_off_diagonal_precision(sizes, seed):
    parts = tuple(RandomCorrelation(size=s, degrees_of_freedom=s + 3) for s in sizes)
    covariance = BlockCorrelation(parts=parts).matrix(seeded(seed)).numpy()
    precision = np.linalg.inv(covariance)
    graph = precision_graph(torch.from_numpy((precision + precision.T) / 2))
    rebuilt = np.zeros_like(precision)  # zᵀLz = Σ |w| (z_i - sign(w) z_j)², edge by edge
    for (i, j), w in zip(graph.edges.T.tolist(), graph.weights.tolist(), strict=True):
        rebuilt[i, j] = rebuilt[j, i] = -w
    off = precision - np.diag(np.diag(precision))
    scale = np.sqrt(np.outer(np.diag(precision), np.diag(precision)))
    assert (np.abs(rebuilt - off) / scale).max() < 2e-10  # the threshold on partial correlations


def test_an_equicorrelated_precision_is_a_complete_laplacian_plus_a_ridge():
    toy = CASES["case3"].build(seeded())
    rho, k = 0.8, 20
    weight = rho / ((1 - rho) * (1 + (k - 1) * rho))
    np.testing.assert_allclose(toy.graph.weights, weight, rtol=1e-10)
    ridge = toy.precision.numpy().sum(0)  # a Laplacian's rows sum to zero
    np.testing.assert_allclose(ridge, 1 / (1 + (k - 1) * rho), rtol=1e-10)


# Realised correlations


@given(
    rows=st.integers(2, 12),
    features=st.integers(1, 4),
    density=st.sampled_from([0.2, 0.6, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_realised_correlations_are_those_of_numpy(rows, features, density, seed):
    rng = np.random.default_rng(seed)
    codes = rng.normal(size=(rows, features)) * (rng.random((rows, features)) < density)
    got = realised(torch.from_numpy(codes))
    np.testing.assert_allclose(got.rate, (codes != 0).mean(0), rtol=1e-15)

    def pearson(a, b):
        if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
            return np.nan
        return np.corrcoef(a, b)[0, 1]

    for i in range(features):
        for j in range(features):
            a, b = codes[:, i], codes[:, j]
            both = (a != 0) & (b != 0)
            support = pearson((a != 0) * 1.0, (b != 0) * 1.0)
            assert got.support[i, j].item() == pytest.approx(support, abs=1e-10, nan_ok=True)
            value = pearson(a, b)
            assert got.value[i, j].item() == pytest.approx(value, abs=1e-10, nan_ok=True)
            # Two raw moments cancel here: relative rounding 1e-16 over a variance share of 1e-6.
            magnitude = pearson(a[both], b[both])
            assert got.magnitude[i, j].item() == pytest.approx(magnitude, abs=1e-6, nan_ok=True)


# Every generator


@pytest.mark.parametrize("name", ALL)
def test_same_generator_state_same_toy_and_data_and_no_other_randomness(name):
    before = torch.get_rng_state()
    runs = []
    for seed in (0, 0, 1):
        generator = seeded(seed)
        toy = ALL[name].build(generator)
        runs.append((toy.dictionary, *toy.sample(64, generator)))
    assert all(torch.equal(a, b) for a, b in zip(runs[0], runs[1], strict=True))
    assert not torch.equal(runs[0][1], runs[2][1])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ALL)
def test_held_out_rows_share_the_dictionary(name):
    generator = seeded()
    toy = ALL[name].build(generator)
    first, second = toy.sample(200, generator), toy.sample(200, generator)
    assert not torch.equal(first.codes, second.codes)
    for x, codes in (first, second):
        residual = (x - codes @ toy.dictionary).numpy()
        expected = 200 * 12 * toy.noise**2  # χ² with 2400 degrees of freedom
        if toy.noise:
            assert abs((residual**2).sum() / expected - 1) < LIMIT * np.sqrt(2 / 2400)
        else:
            assert not residual.any()


@pytest.mark.parametrize("name", ALL)
def test_a_case_is_a_value(name):
    case = ALL[name]
    assert json.loads(json.dumps(asdict(case)))
    assert eval(repr(case), {c.__name__: c for c in _classes()}) == case
    assert hash(case) == hash(case)


def _classes():
    import toys.copula
    import toys.correlation
    import toys.directions
    import toys.magnitudes

    modules = (toys.copula, toys.correlation, toys.directions, toys.magnitudes)
    own = [v for m in modules for v in vars(m).values() if isinstance(v, type)]
    return [*own, GaussianCase, NotebookCase, PairedFeatures]


@pytest.mark.float32
@pytest.mark.parametrize("name", ALL)
def test_data_have_the_default_dtype(name):
    toy = ALL[name].build(seeded())
    x, codes = toy.sample(4, seeded())
    tensors = [x, codes, toy.dictionary, toy.correlation]
    tensors += [t for t in (toy.precision, toy.support) if t is not None]
    assert {t.dtype for t in tensors} == {torch.float32}
    assert toy.graph.weights.dtype == torch.float64


BAD = {
    "variance": (
        lambda: GaussianCase(structure=Independent(size=2), variance=(1.0, 0.0)),
        "toy.variance",
    ),
    "variances": (
        lambda: GaussianCase(structure=Independent(size=2), variance=(1.0, 1.0, 1.0)),
        "toy.size",
    ),
    "noise": (lambda: GaussianCase(structure=Independent(size=2), noise=-0.1), "toy.noise"),
    "d_model": (lambda: GaussianCase(structure=Independent(size=2), d_model=0), "toy.d_model"),
    "rows": (lambda: CASES["case1"].build(seeded()).sample(0, seeded()), "toy.rows"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_a_typed_error(name):
    make, code = BAD[name]
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.code == code
