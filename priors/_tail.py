"""The tail of a normal: log Φ and φ/Φ, without cancellation and fast where a step needs them."""

import math

import torch
from torch import Tensor

# erfcx(z) = t · exp(polynomial in t), t = 1/(1 + z/2), for z >= 0: a Chebyshev fit in single
# precision (Press et al., Numerical Recipes, §6.2). torch's own takes 20 times as long a number.
_COEFFICIENTS = (
    -1.26551223,
    1.00002368,
    0.37409196,
    0.09678418,
    -0.18628806,
    0.27886807,
    -1.13520398,
    1.48851587,
    -0.82215223,
    0.17087277,
)


def log_ndtr(x: Tensor) -> Tensor:
    """``log Φ(x)``: torch's own in float64; in float32 to an absolute 3e-7 for ``x >= -6``.

    Below, where log Φ is dominated by ``-x²/2``, to float32's relative precision.
    """
    if x.dtype != torch.float32:
        return torch.special.log_ndtr(x)
    z = x.abs() * math.sqrt(0.5)
    t = torch.reciprocal(1 + 0.5 * z)
    exponent = torch.full_like(t, _COEFFICIENTS[-1])
    for coefficient in _COEFFICIENTS[-2::-1]:
        exponent = exponent * t + coefficient
    lower = (0.5 * t).log() + exponent - z * z  # log Φ(-|x|)
    return torch.where(x < 0, lower, torch.log1p(-lower.exp()))


def hazard(x: Tensor, log_cdf: Tensor) -> Tensor:
    """``φ(x) / Φ(x)``, given ``log Φ(x)``: the inverse Mills ratio of the lower tail."""
    return torch.exp(-0.5 * x * x - 0.5 * math.log(2 * math.pi) - log_cdf)
