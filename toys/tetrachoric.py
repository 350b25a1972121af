"""Between the correlation of two Gaussians and the φ correlation of their threshold events."""

import math

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import ndtri
from torch import Tensor

from priors.errors import ConfigError
from toys.correlation import INFEASIBLE

NODES, WEIGHTS = np.polynomial.legendre.leggauss(256)
# Fisher's z = artanh r of the strongest correlation told from ±1 in float64: 1 - r = 3e-15.
EDGE = 17.0


def phi_bounds(p: float, q: float) -> tuple[float, float]:
    r"""The range of φ for events of probabilities ``p`` and ``q`` (Fréchet).

    From :math:`\max(0, p+q-1) ≤ P(\text{both}) ≤ \min(p, q)`; rare events cannot exclude each other
    much: :math:`φ ≥ -p/(1-p)` at equal rates below one half.

    Example:
        >>> low, high = phi_bounds(0.1, 0.1)
        >>> round(low, 4), round(high, 4)
        (-0.1111, 1.0)

    Source:
        Fréchet (1951); Hoeffding (1940).
    """
    _check_rates(p, q)
    spread = math.sqrt(p * (1 - p) * q * (1 - q))
    return (max(0.0, p + q - 1) - p * q) / spread, (min(p, q) - p * q) / spread


def phi_correlation(correlation: float, p: float, q: float) -> float:
    r"""φ of the events ``g < Φ⁻¹(p)`` and ``g' < Φ⁻¹(q)`` for Gaussians of this correlation.

    .. math:: P(\text{both}) = pq + \frac1{2π}\int_0^r \exp\Bigl(
        -\frac{h^2 + k^2 - 2hkt}{2(1-t^2)}\Bigr)\,\frac{dt}{\sqrt{1-t^2}},
        \quad h = Φ^{-1}(p),\; k = Φ^{-1}(q)

    Args:
        correlation: ``r`` of the Gaussians, in (-1, 1).
        p: Probability of the first event, in (0, 1).
        q: Probability of the second.

    Raises:
        ConfigError: ``toy.rate`` or ``toy.infeasible_correlation`` outside these ranges.

    Example:
        >>> round(phi_correlation(0.5, 0.5, 0.5), 6)  # (2/π) arcsin r at even odds
        0.333333

    Source:
        Plackett (1954); Drezner & Wesolowsky (1990).
    """
    _check_rates(p, q)
    if not -1 < correlation < 1:
        raise ConfigError(
            f"a correlation lies in (-1, 1): got {correlation}.",
            code=INFEASIBLE,
            context={"correlation": correlation},
        )
    spread = math.sqrt(p * (1 - p) * q * (1 - q))
    return _excess(math.atanh(correlation), float(ndtri(p)), float(ndtri(q))) / spread


def tetrachoric(phi: float, p: float, q: float) -> float:
    r"""The Gaussian correlation whose threshold events have this φ: the inverse in ``r``.

    Args:
        phi: φ correlation of the two supports.
        p: Probability of the first event, in (0, 1).
        q: Probability of the second.

    Raises:
        ConfigError: ``toy.infeasible_correlation`` outside :func:`phi_bounds`, which it names;
            ``toy.rate`` for a probability outside (0, 1).

    Example:
        >>> round(tetrachoric(1 / 3, 0.5, 0.5), 6)
        0.5

    Source:
        Pearson (1900), *On the correlation of characters not quantitatively measurable*.
    """
    low, high = phi_bounds(p, q)
    if not low < phi < high:
        raise ConfigError(
            f"two features firing at rates {p:g} and {q:g} cannot have support correlation {phi:g}:"
            f" expected a value in ({low:.4g}, {high:.4g}). Raise the rates, or prescribe the"
            " correlation of the Gaussian copula instead.",
            code=INFEASIBLE,
            context={"phi": phi, "rates": (p, q), "bounds": (low, high)},
        )
    h, k = float(ndtri(p)), float(ndtri(q))
    target = phi * math.sqrt(p * (1 - p) * q * (1 - q))

    def miss(fisher: float) -> float:
        return _excess(fisher, h, k) - target

    if miss(-EDGE) >= 0 or miss(EDGE) <= 0:
        raise ConfigError(
            f"support correlation {phi!r} is at its bound for rates {p:g} and {q:g}, where the"
            f" copula is singular: expected a value inside ({low:.4g}, {high:.4g}).",
            code=INFEASIBLE,
            context={"phi": phi, "rates": (p, q), "bounds": (low, high)},
        )
    return math.tanh(brentq(miss, -EDGE, EDGE, xtol=1e-15, rtol=1e-14))


def tetrachoric_matrix(
    support: Float[Tensor, "F F"], rates: tuple[float, ...]
) -> Float[Tensor, "F F"]:
    """:func:`tetrachoric` of every pair; zero stays exactly zero, equal pairs are solved once."""
    return _pairwise(tetrachoric, support, rates)


def phi_matrix(correlation: Float[Tensor, "F F"], rates: tuple[float, ...]) -> Float[Tensor, "F F"]:
    """:func:`phi_correlation` of every pair."""
    return _pairwise(phi_correlation, correlation, rates)


def _pairwise(function, matrix: Tensor, rates: tuple[float, ...]) -> Tensor:
    values, known = matrix.double().numpy(), {}
    result = np.eye(len(rates))
    for i, j in zip(*np.triu_indices(len(rates), 1), strict=True):
        key = (float(values[i, j]), *sorted((rates[i], rates[j])))
        if key[0] != 0 and key not in known:
            known[key] = function(*key)
        result[i, j] = result[j, i] = known.get(key, 0.0)
    return torch.from_numpy(result)


def _excess(fisher: float, h: float, k: float) -> float:
    """``P(both) - pq``: the integral above in ``u = artanh t``, where it has no singular end."""
    u = fisher / 2 * (NODES + 1)
    # 1 / (1 ± tanh u) = (1 + exp(∓2u)) / 2, and the numerator split along h ± k, so that nothing
    # cancels however near to ±1 the correlation is.
    exponent = (h - k) ** 2 * (1 + np.exp(2 * u)) + (h + k) ** 2 * (1 + np.exp(-2 * u))
    return float(fisher / 2 * (WEIGHTS @ (np.exp(-exponent / 8) / np.cosh(u)))) / (2 * math.pi)


def _check_rates(p: float, q: float) -> None:
    if not (0 < p < 1 and 0 < q < 1):
        raise ConfigError(
            f"a firing rate is a probability strictly inside (0, 1): got {p} and {q}.",
            code="toy.rate",
        )
