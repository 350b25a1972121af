"""Between Gaussian correlation and φ: against an integral of our own choosing, and inverted."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri

from priors.errors import ConfigError
from toys.tetrachoric import phi_bounds, phi_correlation, tetrachoric, tetrachoric_matrix

RATES = st.floats(0.01, 0.99)
NODES, WEIGHTS = np.polynomial.legendre.leggauss(400)


def both(r, p, q):
    """P(g < Φ⁻¹(p), g' < Φ⁻¹(q)) by conditioning on g: independent of Plackett's integral."""
    h, k = ndtri(p), ndtri(q)
    x = (h + 10) / 2 * NODES + (h - 10) / 2
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    inner = density * ndtr((k - r * x) / math.sqrt(1 - r * r))
    return (h + 10) / 2 * (WEIGHTS @ inner)


@given(r=st.floats(-0.97, 0.97), p=RATES, q=RATES)
def test_phi_is_the_orthant_probability(r, p, q):
    spread = math.sqrt(p * (1 - p) * q * (1 - q))
    oracle = (both(r, p, q) - p * q) / spread
    assert phi_correlation(r, p, q) == pytest.approx(oracle, abs=1e-12 / spread)


@given(r=st.floats(-0.9999, 0.9999))
def test_phi_at_even_odds_is_sheppards_arcsine(r):
    assert phi_correlation(r, 0.5, 0.5) == pytest.approx(2 / math.pi * math.asin(r), abs=1e-12)


@given(share=st.floats(0.001, 0.999), p=RATES, q=RATES)
def test_tetrachoric_inverts_phi_over_the_whole_feasible_range(share, p, q):
    low, high = phi_bounds(p, q)
    phi = low + share * (high - low)
    r = tetrachoric(phi, p, q)
    assert -1 < r < 1
    assert r * phi >= 0 or abs(r) < 1e-13  # independence, up to rounding of the bounds
    assert phi_correlation(r, p, q) == pytest.approx(phi, abs=1e-9)


@given(p=RATES, q=RATES, beyond=st.floats(0, 2), high=st.booleans())
def test_beyond_the_frechet_bound_is_an_error_that_names_it(p, q, beyond, high):
    bounds = phi_bounds(p, q)
    phi = bounds[1] + beyond if high else bounds[0] - beyond
    with pytest.raises(ConfigError, match="expected a value in") as caught:
        tetrachoric(phi, p, q)
    assert caught.value.code == "toy.infeasible_correlation"
    assert caught.value.context["bounds"] == bounds
    # the bounds themselves, from the two extreme joint laws
    spread = math.sqrt(p * (1 - p) * q * (1 - q))
    assert bounds[0] == pytest.approx((max(0, p + q - 1) - p * q) / spread)
    assert bounds[1] == pytest.approx((min(p, q) - p * q) / spread)


def test_unequal_rates_are_solved_pair_by_pair():
    rates = (0.05, 0.2, 0.5)
    phi = torch.tensor([[1.0, 0.2, 0.1], [0.2, 1.0, 0.0], [0.1, 0.0, 1.0]])
    solved = tetrachoric_matrix(phi, rates).numpy()
    assert solved[1, 2] == 0
    for i, j in ((0, 1), (0, 2)):
        spread = math.sqrt(np.prod([rates[k] * (1 - rates[k]) for k in (i, j)]))
        found = (both(solved[i, j], rates[i], rates[j]) - rates[i] * rates[j]) / spread
        assert found == pytest.approx(phi[i, j].item(), abs=1e-9)


BAD = {
    "r": (lambda: phi_correlation(1.0, 0.5, 0.5), "toy.infeasible_correlation"),
    "p": (lambda: tetrachoric(0.1, 0.0, 0.5), "toy.rate"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_a_typed_error(name):
    make, code = BAD[name]
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.code == code
