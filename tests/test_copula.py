"""Copula-correlated sparse features: rates, supports and magnitudes are each as prescribed."""

import math

import numpy as np
import pytest
import torch
from scipy.special import ndtr
from scipy.stats import kstest, lognorm, truncnorm, uniform
from torch import Generator

from priors.errors import ConfigError
from toys.copula import CopulaCase, LatentCorrelation, SupportCorrelation
from toys.correlation import (
    BlockCorrelation,
    Equicorrelated,
    GivenCorrelation,
    Independent,
    blocks,
    pairs,
)
from toys.gaussian_cases import SPARSE_CASES
from toys.magnitudes import (
    ConstantMagnitude,
    LogNormalMagnitude,
    PositiveNormal,
    UniformMagnitude,
)
from toys.tetrachoric import tetrachoric

LIMIT = 4.5  # standard errors; two-sided tail 7e-6


def test_rare_features_cannot_be_strongly_anticorrelated_in_support():
    case = CopulaCase(dependence=SupportCorrelation(structure=pairs(2, -0.8)), rate=0.1)
    with pytest.raises(ConfigError, match=r"\(-0\.1111, 1\)") as caught:
        case.build(Generator())
    assert caught.value.code == "toy.infeasible_correlation"
    CopulaCase(dependence=SupportCorrelation(structure=pairs(2, -0.8)), rate=0.5).build(Generator())


def test_pairwise_feasible_is_not_jointly_feasible():
    # Exclusive in every pair at rate ½ would need three events with P(both) ≈ 0 and sum 3/2.
    third = GivenCorrelation(rows=((1.0, -0.4, -0.4), (-0.4, 1.0, -0.4), (-0.4, -0.4, 1.0)))
    with pytest.raises(ConfigError, match="smallest eigenvalue") as caught:
        CopulaCase(dependence=SupportCorrelation(structure=third), rate=0.5).build(Generator())
    assert caught.value.code == "toy.infeasible_correlation"


# Samples


def errors(codes, expected):
    """Standard error of every Pearson correlation of the columns, by the delta method."""
    z = (codes - codes.mean(0)) / codes.std(0)
    found = z.T @ z / len(z)
    influence = z[:, :, None] * z[:, None] - expected * (z[:, :, None] ** 2 + z[:, None] ** 2) / 2
    return found, influence.std(0) / math.sqrt(len(z)) + 1e-9


SUPPORTS = {
    "blocks": blocks((3, 2), 0.6),
    "pairs": pairs(2, -0.09),
    "mixed": BlockCorrelation(
        parts=(
            Equicorrelated(size=3, correlation=0.5),
            Equicorrelated(size=2, correlation=-0.05),
            Independent(size=1),
        )
    ),
}


@pytest.mark.parametrize("name", SUPPORTS)
def test_supports_have_the_prescribed_rate_and_correlation(name):
    n, rate, structure = 100_000, 0.1, SUPPORTS[name]
    generator = Generator().manual_seed(11)
    case = CopulaCase(dependence=SupportCorrelation(structure=structure), rate=rate)
    toy = case.build(generator)
    codes = toy.sample(n, generator).codes.numpy()
    on = (codes > 0).astype(float)
    assert ((codes != 0) == on).all()  # non-negative
    z = (on.sum(0) - n * rate) / math.sqrt(n * rate * (1 - rate))
    assert np.abs(z).max() < LIMIT
    expected = structure.matrix(Generator()).numpy()
    np.testing.assert_allclose(toy.support, expected, atol=1e-9)
    np.testing.assert_array_equal(toy.correlation, expected)
    found, error = errors(on, expected)
    assert np.abs((found - expected) / error).max() < LIMIT
    np.testing.assert_allclose(toy.realised(torch.from_numpy(codes)).support, found, atol=1e-9)


def test_rates_are_exact_one_by_one_whatever_the_correlation():
    rates = (0.01, 0.05, 0.2, 0.5, 0.9)
    structure = Equicorrelated(size=5, correlation=0.8)
    generator = Generator().manual_seed(4)
    case = CopulaCase(dependence=LatentCorrelation(structure=structure), rate=rates)
    toy = case.build(generator)
    on = toy.sample(100_000, generator).codes.numpy() > 0
    p = np.array(rates)
    z = (on.sum(0) - 100_000 * p) / np.sqrt(100_000 * p * (1 - p))
    assert np.abs(z).max() < LIMIT
    found, error = errors(on.astype(float), toy.support.numpy())
    assert np.abs((found - toy.support.numpy()) / error).max() < LIMIT


@pytest.mark.parametrize(("support", "magnitude"), [(0.0, 0.8), (0.6, 0.0), (0.6, -0.7)])
def test_support_and_magnitude_correlations_are_imposed_separately(support, magnitude):
    n, generator = 200_000, Generator().manual_seed(5)
    case = CopulaCase(
        dependence=SupportCorrelation(structure=pairs(1, support)),
        rate=0.2,
        magnitude_structure=pairs(1, magnitude),
    )
    toy = case.build(generator)
    codes = toy.sample(n, generator).codes
    seen = toy.realised(codes)
    found, error = errors((codes.numpy() > 0) * 1.0, np.array([[1, support], [support, 1]]))
    assert abs(found[0, 1] - support) / error[0, 1] < LIMIT
    active = codes.numpy()[(codes > 0).all(1).numpy()]
    # Uniform margins of a Gaussian copula: Pearson's r is Spearman's, (6/π) arcsin(r/2).
    expected = 6 / math.pi * math.asin(magnitude / 2)
    _, error = errors(active, np.array([[1, expected], [expected, 1]]))
    assert abs(seen.magnitude[0, 1].item() - expected) / error[0, 1] < LIMIT


def test_masking_dilutes_what_the_copula_keeps():
    # The same ½, once imposed on values before independent masks, once on the supports.
    rng, p, n = np.random.default_rng(0), 0.316, 400_000
    factor = np.linalg.cholesky(0.5 * np.eye(4) + 0.5)
    masked = (rng.random((n, 4)) @ factor.T) * (rng.random((n, 4)) < p)
    upper = np.triu_indices(4, 1)
    diluted = np.corrcoef(masked.T)[upper].mean()
    assert diluted == pytest.approx(0.031, abs=LIMIT / math.sqrt(n))
    structure = Equicorrelated(size=4, correlation=0.5)
    case = CopulaCase(dependence=SupportCorrelation(structure=structure), rate=p)
    generator = Generator().manual_seed(0)
    seen = case.build(generator).sample(n, generator).codes.numpy() > 0
    assert np.corrcoef(seen.T)[upper].mean() == pytest.approx(0.5, abs=LIMIT / math.sqrt(n))


def test_the_copulas_precision_is_the_precision_of_what_was_solved():
    case = CopulaCase(dependence=SupportCorrelation(structure=pairs(2, 0.5)), rate=0.1)
    toy = case.build(Generator())
    r = tetrachoric(0.5, 0.1, 0.1)
    expected = np.kron(np.eye(2), np.linalg.inv(np.array([[1, r], [r, 1]])))
    np.testing.assert_allclose(toy.precision, expected, rtol=1e-10, atol=1e-12)
    assert toy.graph.edges.T.tolist() == [[0, 1], [2, 3]]
    np.testing.assert_allclose(toy.graph.weights, r / (1 - r * r), rtol=1e-10)


def test_sparse_cases_fire_on_a_tenth_of_rows_with_the_stated_scales():
    generator = Generator().manual_seed(0)
    for name, case in SPARSE_CASES.items():
        toy = case.build(generator)
        codes = toy.sample(20_000, generator).codes.numpy()
        z = ((codes > 0).sum(0) - 2000) / math.sqrt(1800)
        assert np.abs(z).max() < LIMIT, name
        assert codes.min() >= 0
    toy = SPARSE_CASES["case1"].build(generator)
    codes = toy.sample(50_000, generator).codes.numpy()
    power = [(codes[:, i] ** 2)[codes[:, i] > 0] for i in (0, 1)]
    ratio = power[1].mean() / power[0].mean()
    error = ratio * math.hypot(*(p.std() / p.mean() / math.sqrt(len(p)) for p in power))
    assert abs(ratio - 0.2) < LIMIT * error


# Magnitudes

LAWS = {
    "uniform": (UniformMagnitude(low=0.5, high=2.0), uniform(0.5, 1.5)),
    "half normal": (PositiveNormal(scale=1.5), truncnorm(0, np.inf, 0, 1.5)),
    "positive normal": (PositiveNormal(loc=1.0, scale=0.5), truncnorm(-2, np.inf, 1, 0.5)),
    "tail of a normal": (PositiveNormal(loc=-3.0, scale=1.0), truncnorm(3, np.inf, -3, 1)),
    "lognormal": (LogNormalMagnitude(loc=0.3, scale=0.5), lognorm(0.5, scale=math.exp(0.3))),
}


@pytest.mark.parametrize("name", LAWS)
def test_a_magnitude_law_is_the_quantile_function_of_scipy(name):
    law, oracle = LAWS[name]
    h = torch.linspace(-5, 5, 201)
    found = law.from_normal(h).numpy()
    # Compared through the tail each value lies in, where the quantile has its digits.
    low, high = h.numpy() < 0, h.numpy() >= 0
    np.testing.assert_allclose(found[low], oracle.ppf(ndtr(h.numpy()[low])), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found[high], oracle.isf(ndtr(-h.numpy()[high])), rtol=1e-9)
    assert (np.diff(found) > 0).all()
    assert (found > 0).all()


@pytest.mark.parametrize("name", LAWS)
def test_active_features_follow_their_law(name):
    law, oracle = LAWS[name]
    generator = Generator().manual_seed(1)
    case = CopulaCase(
        dependence=SupportCorrelation(structure=pairs(1, 0.5)), rate=0.3, magnitude=law
    )
    codes = case.build(generator).sample(20_000, generator).codes.numpy()[:, 0]
    assert kstest(codes[codes > 0], oracle.cdf).pvalue > 1e-5


def test_constant_magnitudes_are_constant_and_have_no_correlation():
    generator = Generator().manual_seed(1)
    case = CopulaCase(
        dependence=SupportCorrelation(structure=pairs(1, 0.5)),
        rate=0.3,
        magnitude=ConstantMagnitude(value=2.0),
    )
    toy = case.build(generator)
    codes = toy.sample(1000, generator).codes
    assert sorted(set(codes.flatten().tolist())) == [0.0, 2.0]
    assert toy.realised(codes).magnitude.isnan().all()


def case(**settings):
    return CopulaCase(dependence=LatentCorrelation(structure=Independent(size=2)), **settings)


BAD = {
    "rate 0": (lambda: case(rate=0.0), "toy.rate"),
    "rate 1": (lambda: case(rate=(0.5, 1.0)), "toy.rate"),
    "rates": (lambda: case(rate=(0.5, 0.5, 0.5)), "toy.size"),
    "scale": (lambda: case(scale=0.0), "toy.scale"),
    "noise": (lambda: case(noise=float("nan")), "toy.noise"),
    "d_model": (lambda: case(d_model=0), "toy.d_model"),
    "magnitudes": (lambda: case(magnitude_structure=Independent(size=3)), "toy.size"),
    "uniform": (lambda: UniformMagnitude(low=1.0, high=1.0), "toy.magnitude"),
    "normal": (lambda: PositiveNormal(scale=0.0), "toy.magnitude"),
    "lognormal": (lambda: LogNormalMagnitude(scale=-1.0), "toy.magnitude"),
    "constant": (lambda: ConstantMagnitude(value=0.0), "toy.magnitude"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_a_typed_error(name):
    make, code = BAD[name]
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.code == code
