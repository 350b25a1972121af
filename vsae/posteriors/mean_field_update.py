"""One update of all gates and amplitudes, given the other latents: exact, or in haste."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from priors.half_line import HalfLine
from priors.truncated_normal import LOG_SQRT_TAU, TruncatedNormal

LEAST = -12.0  # standard deviations below zero at which Φ stays what it is there, in haste


class Moments(NamedTuple):
    """What an update needs of the one before.

    Args:
        rate: Probability of every gate, (B, K).
        code: The expected code, (B, K).
        spread: The sum of the variances of a row's codes, (B,).
    """

    rate: Tensor
    code: Tensor
    spread: Tensor


class Belief(NamedTuple):
    """A factorised spike-and-slab posterior of some rows, and the noise that goes with it.

    Args:
        logits: Log-odds of every gate, (B, K).
        amplitude: Of every latent given that its gate is on, (B, K).
        moments: Of the codes.
        noise: Of each row (B, 1), or of all ().
    """

    logits: Tensor
    amplitude: TruncatedNormal
    moments: Moments
    noise: Tensor


def update(pull: Float[Tensor, "*rows K"], noise: Tensor, field: Tensor, slab: HalfLine) -> Belief:
    r"""The best gate and amplitude of every latent, the others as they are.

    .. math:: \frac{1}{s^2} = P + \frac1{σ^2}, \quad m = s^2 \Big(h + \frac{u}{σ^2}\Big), \quad
        \operatorname{logit} γ = f + \tfrac12 \frac{m^2}{s^2} + \log Φ\big(\tfrac ms\big)
        + \log s + \tfrac12 \log 2π - A

    with the slab :math:`\exp(ha - \tfrac12 P a^2 - A)` on :math:`a \ge 0`; the amplitude is
    :math:`\mathcal N(m, s^2)` given that it is positive.

    Args:
        pull: What the other latents leave of the activation, along each latent's atom.
        noise: Of each row (B, 1), or of all ().
        field: Prior log-odds of every gate given the others.
        slab: Amplitudes a priori.
    """
    sharpness = noise**-2
    scale = (slab.precision + sharpness).rsqrt()
    loc = torch.addcmul(slab.linear, pull, sharpness) * scale**2
    amplitude = TruncatedNormal(loc, scale, validate_args=False)
    mass = 0.5 * amplitude.ratio**2 + amplitude.log_mass
    logits = mass + (scale.log() + LOG_SQRT_TAU - slab.log_normaliser + field)
    rate, mean = logits.sigmoid(), amplitude.mean
    code = rate * mean
    square = rate * (scale * scale + loc * mean)  # E a² = s² + m E a
    moments = Moments(rate, code, (square - code * code).sum(-1))
    return Belief(logits, amplitude, moments, noise)


def hasty_update(
    pull: Float[Tensor, "*rows K"], noise: Tensor, field: Tensor, slab: HalfLine
) -> Moments:
    """The moments of :func:`update` in float32, fewer passes over memory; ``pull`` is overwritten.

    Its arguments are those of :func:`update`. For the way to a belief: without a gradient, and with
    log-odds too large by ``log(-r / 12)`` where an amplitude's mode is ``r < -12`` standard
    deviations below zero, the gate being shut.
    """
    sharpness = noise**-2
    variance = (slab.precision + sharpness).reciprocal_()
    scale = variance.sqrt()
    ratio = pull.mul_(sharpness).add_(slab.linear).mul_(scale).clamp_(min=LEAST)
    loc = ratio * scale
    twice = (ratio * -math.sqrt(0.5)).erfc_()  # 2 Φ(ratio)
    half = ratio.square().mul_(0.5)
    known = field - slab.log_normaliser + (LOG_SQRT_TAU - math.log(2))
    rate = (twice * scale).log_().add_(half).add_(known).sigmoid_()
    density = half.neg_().exp_()  # √(2π) φ(ratio)
    mean = ratio.addcdiv_(density, twice, value=math.sqrt(2 / math.pi)).mul_(scale)
    code = mean.mul_(rate)
    square = loc.mul_(code).addcmul_(rate, variance)  # E z², of the mode as it was clamped
    return Moments(rate, code, square.sum(-1) - torch.linalg.vector_norm(code, dim=-1) ** 2)
