"""The linear-Gaussian model worked out with numpy; imports nothing of ours.

``z ~ N(m, P⁻¹); x ~ N(b + zW, σ²I)`` with ``W`` (K, d).
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LinearGaussian:
    precision: np.ndarray  # (K, K)
    loc: np.ndarray  # (K,)
    atoms: np.ndarray  # (K, d)
    bias: np.ndarray  # (d,)
    noise: float

    def log_marginal(self, x: np.ndarray) -> np.ndarray:
        """``log N(x; b + mW, WᵀP⁻¹W + σ²I)`` per row."""
        d = self.atoms.shape[1]
        covariance = self.atoms.T @ np.linalg.solve(self.precision, self.atoms)
        covariance += self.noise**2 * np.eye(d)
        residual = x - self.bias - self.loc @ self.atoms
        quadratic = np.einsum("nd,nd->n", residual, np.linalg.solve(covariance, residual.T).T)
        return -0.5 * (quadratic + np.linalg.slogdet(covariance)[1] + d * np.log(2 * np.pi))

    def posterior_precision(self) -> np.ndarray:
        return self.precision + self.atoms @ self.atoms.T / self.noise**2

    def posterior_mean(self, x: np.ndarray) -> np.ndarray:
        pull = (x - self.bias) @ self.atoms.T / self.noise**2 + self.precision @ self.loc
        return np.linalg.solve(self.posterior_precision(), pull.T).T

    def best_diagonal(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Mean, standard deviation and gap to ``log p(x)`` of the best diagonal posterior."""
        precision = self.posterior_precision()
        diagonal = np.diag(precision)
        gap = 0.5 * (np.log(diagonal).sum() - np.linalg.slogdet(precision)[1])
        return self.posterior_mean(x), diagonal**-0.5, gap
