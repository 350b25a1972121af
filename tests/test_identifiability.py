"""What a learned Gaussian prior cannot identify: every tight frame is an optimum."""

import numpy as np
import torch
from gaussian_oracle import LinearGaussian
from hypothesis import given
from hypothesis import strategies as st
from pyro import poutine
from torch import nn

from priors import CholeskyPrior
from vsae import FreeDecoder, SparseAutoencoder, metrics

K, D, SIGMA = 6, 4, 0.5


def orbit(seed: int, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A dictionary (K, D) and prior precision (K, K) with zero gap and marginal ``covariance``.

    ``W = T^½ Vᵀ D^½`` with ``T = σ²(I - σ²C⁻¹)``, any ``V`` with orthonormal columns, any positive
    diagonal ``D``; prior precision ``D - WᵀW/σ²``.
    """
    rng = np.random.default_rng(seed)
    values, vectors = np.linalg.eigh(SIGMA**2 * (np.eye(D) - SIGMA**2 * np.linalg.inv(covariance)))
    root = (vectors * np.sqrt(values)) @ vectors.T
    frame = np.linalg.qr(rng.standard_normal((K, D)))[0]
    diagonal = rng.uniform(1.0, 4.0, K)
    atoms = np.sqrt(diagonal)[:, None] * frame @ root
    return atoms, np.diag(diagonal) - atoms @ atoms.T / SIGMA**2


def target() -> np.ndarray:
    a = np.random.default_rng(7).standard_normal((D, D))
    return a @ a.T + np.eye(D)


@given(st.integers(0, 2**31))
def test_every_tight_frame_has_zero_gap_and_maximal_likelihood(seed):
    covariance = target()
    atoms, precision = orbit(seed, covariance)
    model = LinearGaussian(precision, np.zeros(K), atoms, np.zeros(D), SIGMA)
    marginal = atoms.T @ np.linalg.solve(precision, atoms) + SIGMA**2 * np.eye(D)
    np.testing.assert_allclose(marginal, covariance, rtol=0, atol=1e-10)
    *_, gap = model.best_diagonal(np.zeros((1, D)))
    assert abs(gap) < 1e-10


def test_two_dictionaries_one_likelihood_in_our_model():
    """Same exact ELBO from atoms that are no rotation or relabelling of each other."""
    x, elbos, dictionaries = torch.randn(20, D), [], []
    for seed in (1, 2):
        atoms, precision = orbit(seed, target())
        prior = CholeskyPrior(K)
        factor = torch.as_tensor(np.linalg.cholesky(precision))
        with torch.no_grad():
            prior.log_diagonal.copy_(factor.diagonal().log())
            prior.strict_lower.copy_(factor / factor.diagonal())
        model = SparseAutoencoder(FreeDecoder(K, D), prior, noise=SIGMA)
        model.decoder.W_dec = nn.Parameter(torch.as_tensor(atoms))
        oracle = LinearGaussian(precision, np.zeros(K), atoms, np.zeros(D), SIGMA)
        elbos.append(exact_elbo(model, oracle, x))
        dictionaries.append(model.decoder.W_dec)
        covariance = torch.as_tensor(target())
        likelihood = torch.distributions.MultivariateNormal(torch.zeros(D), covariance)
        torch.testing.assert_close(elbos[-1], likelihood.log_prob(x))
    torch.testing.assert_close(*elbos)
    assert metrics.mean_correlation_coefficient(*(w.detach() for w in dictionaries)) < 0.95


def exact_elbo(model, oracle, x):
    """The ELBO at the best diagonal posterior, its expectation by sigma points."""
    mean, scale, _ = (torch.as_tensor(v) for v in oracle.best_diagonal(x.numpy()))
    steps = torch.cat([torch.eye(K), -torch.eye(K)]) * K**0.5 * scale
    points = (mean + steps[:, None]).flatten(0, 1)
    conditioned = poutine.condition(model, data={"z": points})
    trace = poutine.trace(conditioned).get_trace(x.repeat(2 * K, 1))
    trace.compute_log_prob(lambda name, _: name == "x")
    reconstruction = trace.nodes["x"]["log_prob"].view(2 * K, len(x)).mean(0)
    q = torch.distributions.Independent(torch.distributions.Normal(mean, scale.expand_as(mean)), 1)
    return (reconstruction - torch.distributions.kl_divergence(q, model.prior())).detach()
