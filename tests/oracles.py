"""What the priors are, written a second time in numpy and mpmath; imports nothing of ours.

A *field* says what a number is: ``FLOAT`` (float64) or ``Digits(n)`` (mpmath, in object arrays).
Precisions are built from the raw parameters by their definition, and determinants by elimination.
"""

from dataclasses import dataclass

import mpmath
import numpy as np


@dataclass(frozen=True)
class Digits:
    """Numbers of ``n`` decimal digits; exact conversion from float64."""

    n: int

    def of(self, x):
        with mpmath.workdps(self.n):
            return np.vectorize(mpmath.mpf, otypes=[object])(np.asarray(x, dtype=np.float64))

    def _map(self, function, x):
        with mpmath.workdps(self.n):
            return np.vectorize(function, otypes=[object])(x)

    def exp(self, x):
        return self._map(mpmath.exp, x)

    def log(self, x):
        return self._map(mpmath.log, x)

    def sqrt(self, x):
        return self._map(mpmath.sqrt, x)

    def context(self):
        return mpmath.workdps(self.n)


class _Float(Digits):
    exp, log, sqrt = (staticmethod(f) for f in (np.exp, np.log, np.sqrt))

    def of(self, x):
        return np.asarray(x, dtype=np.float64)


FLOAT = _Float(16)


def isotropic(field, dim, log_scale):
    return field.of(np.eye(dim)) * field.exp(field.of(-2.0) * field.of(log_scale))


def equicorrelated(field, dim, correlation):
    rho, one = field.of(correlation)[()], field.of(1.0)[()]
    identity, ones = field.of(np.eye(dim)), field.of(np.ones((dim, dim)))
    return (identity - ones * (rho / (one + (dim - 1) * rho))) * (one / (one - rho))


def cholesky(field, strict_lower, log_diagonal):
    unit = field.of(np.tril(strict_lower, -1) + np.eye(len(log_diagonal)))
    factor = unit * field.exp(field.of(log_diagonal))[None, :]
    return factor @ factor.T


def block_diagonal(field, members, factors):
    """``members[b]`` are the latents of block ``b``; ``factors[b]`` its two Cholesky arrays."""
    dim = sum(map(len, members))
    out = field.of(np.zeros((dim, dim)))
    for latents, (strict_lower, log_diagonal) in zip(members, factors, strict=True):
        size = len(latents)
        block = cholesky(field, strict_lower[:size, :size], log_diagonal[:size])
        out[np.ix_(latents, latents)] = block
    return out


def laplacian(field, num_nodes, edges, weights, *, normalized=False):
    """``|D| - W`` edge by edge, or its symmetric normalisation."""
    out = field.of(np.zeros((num_nodes, num_nodes)))
    for (i, j), weight in zip(np.asarray(edges).T, field.of(weights), strict=True):
        out[i, i] += abs(weight)
        out[j, j] += abs(weight)
        out[i, j] -= weight
        out[j, i] -= weight
    if normalized:
        degree = out.diagonal().copy()
        degree[degree == 0] = field.of(1.0)[()]
        root = field.sqrt(degree)
        out = out / root[:, None] / root[None, :]
    return out


def graph_precision(field, log_ridge, log_strength, *laplacian_args, **laplacian_kwargs):
    lap = laplacian(field, *laplacian_args, **laplacian_kwargs)
    ridge, strength = field.exp(field.of(log_ridge)), field.exp(field.of(log_strength))
    return lap * strength + field.of(np.eye(len(lap))) * ridge


def logdet(field, matrix):
    """Of a positive-definite matrix, by elimination; at enough digits pivots are not needed."""
    a, pivots = matrix.copy(), []
    for k in range(len(a)):
        pivots.append(a[k, k])
        if k + 1 < len(a):
            update = np.outer(a[k + 1 :, k] / a[k, k], a[k, k + 1 :])
            a[k + 1 :, k + 1 :] = a[k + 1 :, k + 1 :] - update
    return field.log(np.array(pivots)).sum()


def kl_terms(field, precision, loc, mean, covariance, half_logdet):
    """The five numbers whose sum is KL(Normal(mean, covariance) ‖ Normal(loc, precision⁻¹))."""
    gap = field.of(mean) - field.of(loc)
    half = field.of(0.5)[()]
    return [
        half * (precision * covariance).sum(),
        half * (gap @ precision @ gap),
        -half * len(gap),
        -half * logdet(field, precision),
        -half_logdet,
    ]


def kl_diagonal_terms(field, precision, loc, mean, scale):
    s = field.of(scale)
    return kl_terms(field, precision, loc, mean, np.diag(s * s), field.log(s).sum())


def log_density(precision, loc, z):
    """Of a dense Gaussian in float64, one row per ``z``."""
    gap = z - loc
    quadratic = np.einsum("...i,ij,...j->...", gap, precision, gap)
    constant = np.linalg.slogdet(precision)[1] - len(loc) * np.log(2 * np.pi)
    return 0.5 * (constant - quadratic)


def condition(precision):
    values = np.linalg.eigvalsh(precision)
    return values[-1] / max(values[0], 1e-300)


def kl_normal_laplace(mean, scale, b, digits=40):
    """One latent, by numerical integration of q log(q/p), split at the kink of the Laplace."""
    with mpmath.workdps(digits):
        m, s, b = (mpmath.mpf(float(x)) for x in (mean, scale, b))

        def integrand(x):
            z = (x - m) / s
            log_q = -z * z / 2 - mpmath.log(s) - mpmath.log(2 * mpmath.pi) / 2
            return mpmath.exp(log_q) * (log_q + abs(x) / b + mpmath.log(2 * b))

        # Beyond 15 standard deviations the integrand is below 1e-47 of its peak.
        ends = sorted({m - 15 * s, m, m + 15 * s} | ({mpmath.mpf(0)} if abs(m) < 15 * s else set()))
        return mpmath.quad(integrand, ends)
