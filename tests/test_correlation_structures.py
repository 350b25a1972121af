"""Correlation structures are feasible or refused; dictionaries have the geometry they state."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator

from priors.errors import ConfigError
from toys.correlation import (
    BlockCorrelation,
    Equicorrelated,
    GivenCorrelation,
    Independent,
    RandomCorrelation,
    blocks,
    pairs,
)
from toys.directions import (
    AngledPair,
    OrthonormalDirections,
    RandomDirections,
    SpreadDirections,
)
from toys.gaussian_cases import CASES

LIMIT = 4.5  # standard errors; two-sided tail 7e-6


def seeded(seed=0):
    return Generator().manual_seed(seed)


@given(size=st.integers(2, 24), rho=st.floats(-1.2, 1.2))
def test_equicorrelation_is_refused_exactly_when_it_is_infeasible(size, rho):
    dense = np.full((size, size), rho) + (1 - rho) * np.eye(size)
    smallest = np.linalg.eigvalsh(dense)[0]
    if abs(smallest) < 1e-9:
        return  # at the bound the oracle's own rounding decides
    if smallest > 0:
        made = Equicorrelated(size=size, correlation=rho).matrix(Generator())
        np.testing.assert_array_equal(made.numpy(), dense + np.diag(1 - np.diag(dense)))
        return
    with pytest.raises(ConfigError) as caught:
        Equicorrelated(size=size, correlation=rho)
    assert caught.value.code == "toy.infeasible_correlation"
    assert caught.value.context["bound"] == -1 / (size - 1)


def test_case_4_as_written_is_infeasible_and_the_error_offers_pairs():
    with pytest.raises(ConfigError, match=r"\(-0\.05263, 1\).*pairs\(10, -0\.8\)") as caught:
        Equicorrelated(size=20, correlation=-0.8)
    assert caught.value.code == "toy.infeasible_correlation"
    offered = pairs(10, -0.8).matrix(Generator())
    assert np.linalg.eigvalsh(offered.numpy())[0] == pytest.approx(0.2, abs=1e-12)
    assert CASES["case4"].structure == pairs(10, -0.8)


@given(size=st.integers(1, 12), extra=st.integers(0, 6), seed=st.integers(0, 2**31))
def test_random_correlation_is_positive_definite_with_unit_diagonal(size, extra, seed):
    structure = RandomCorrelation(size=size, degrees_of_freedom=size + extra)
    made = structure.matrix(seeded(seed)).numpy()
    assert (np.diag(made) == 1).all()
    assert (made == made.T).all()
    assert np.linalg.eigvalsh(made)[0] > 0


def test_random_correlations_have_the_stated_spread_and_both_signs():
    n = 7  # the cosine of two Gaussian vectors in n dimensions: E r² = 1/n, E r⁴ = 3/(n(n+2))
    generator = seeded()
    structure = RandomCorrelation(size=2, degrees_of_freedom=n)
    r = np.array([structure.matrix(generator)[0, 1].item() for _ in range(4000)])
    error = np.sqrt((3 / (n * (n + 2)) - 1 / n**2) / r.size)
    assert abs((r**2).mean() - 1 / n) < LIMIT * error
    assert abs(r.mean()) < LIMIT * np.sqrt(1 / n / r.size)


def test_blocks_are_their_parts_and_nothing_else():
    parts = (Equicorrelated(size=3, correlation=0.8), Independent(size=1), *pairs(1, -0.5).parts)
    made = BlockCorrelation(parts=parts).matrix(Generator()).numpy()
    expected = np.eye(6)
    expected[:3, :3] = 0.8 + 0.2 * np.eye(3)
    expected[4, 5] = expected[5, 4] = -0.5
    np.testing.assert_array_equal(np.round(made, 15), np.round(expected, 15))


# Directions


@given(features=st.integers(1, 20), d_model=st.integers(2, 12), seed=st.integers(0, 2**31))
def test_every_dictionary_has_unit_rows(features, d_model, seed):
    laws = [RandomDirections(), SpreadDirections(steps=3)]
    if features <= d_model:
        laws.append(OrthonormalDirections())
    if features == 2:
        laws.append(AngledPair(degrees=45.0))
    for law in laws:
        rows = law.draw(features, d_model, seeded(seed)).numpy()
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-14)


@given(degrees=st.floats(0.1, 179.9), d_model=st.integers(2, 12), seed=st.integers(0, 2**31))
def test_the_angle_is_the_angle(degrees, d_model, seed):
    a, b = AngledPair(degrees=degrees).draw(2, d_model, seeded(seed)).numpy()
    assert a @ b == pytest.approx(np.cos(np.deg2rad(degrees)), abs=1e-14)


def test_spreading_lowers_coherence_towards_the_welch_bound():
    def coherence(law, seed):
        rows = law.draw(20, 12, seeded(seed)).numpy()
        return np.abs(rows @ rows.T - np.eye(20)).max()

    welch = np.sqrt((20 - 12) / (12 * 19))  # no 20 directions in 12 dimensions have less
    for seed in range(5):
        spread = coherence(SpreadDirections(), seed)
        assert welch <= spread < 0.45
        assert spread < 0.75 * coherence(RandomDirections(), seed)


BAD = {
    "no features": (lambda: Independent(size=0), "toy.empty"),
    "no parts": (lambda: BlockCorrelation(parts=()), "toy.empty"),
    "correlation 1": (lambda: pairs(3, 1.0), "toy.infeasible_correlation"),
    "correlation nan": (lambda: pairs(3, float("nan")), "toy.infeasible_correlation"),
    "negative block": (lambda: blocks((3, 2), -0.8), "toy.infeasible_correlation"),
    "singular": (
        lambda: RandomCorrelation(size=4, degrees_of_freedom=3),
        "toy.infeasible_correlation",
    ),
    "asymmetric": (
        lambda: GivenCorrelation(rows=((1.0, 0.1), (0.2, 1.0))),
        "toy.infeasible_correlation",
    ),
    "ragged": (lambda: GivenCorrelation(rows=((1.0,), (0.2, 1.0))), "toy.infeasible_correlation"),
    "indefinite": (
        lambda: GivenCorrelation(rows=((1.0, 0.9, 0.9), (0.9, 1.0, -0.9), (0.9, -0.9, 1.0))),
        "toy.infeasible_correlation",
    ),
    "angle": (lambda: AngledPair(degrees=180.0), "toy.angle"),
    "three at an angle": (lambda: AngledPair(degrees=45.0).draw(3, 5, seeded()), "toy.pair"),
    "too many": (lambda: OrthonormalDirections().draw(3, 2, seeded()), "toy.too_many_features"),
    "spread": (lambda: SpreadDirections(rate=0.0), "toy.spread"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_a_typed_error(name):
    make, code = BAD[name]
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.code == code
