"""The law of an amplitude: a normal variable given that it is positive."""

import math

import torch
from jaxtyping import Float
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import Exponential, constraints, register_kl
from torch.distributions.utils import broadcast_all, lazy_property

from priors._tail import hazard, log_ndtr, positive_part

LOG_SQRT_TAU = 0.5 * math.log(2 * math.pi)


class TruncatedNormal(TorchDistribution):
    r"""``Normal(loc, scale)`` given that the value is positive; ``loc = 0`` is the half-normal.

    .. math:: p(a) = \frac{\mathcal N(a; m, s^2)}{Φ(m/s)}, \quad a > 0, \qquad
        \mathbb E a = m + s\,r, \quad \mathrm{Var}\,a = s^2 (1 - αr - r^2), \quad
        α = m/s,\ r = φ(α)/Φ(α)

    Conjugate to a normal likelihood, and the posterior of an exponential amplitude under one.

    Args:
        loc: :math:`m` of the normal before conditioning, in the units of the codes.
        scale: :math:`s` of it.

    Example:
        >>> TruncatedNormal(torch.tensor(0.0), torch.tensor(1.0)).mean  # √(2/π)
        tensor(0.7979)

    Source:
        Johnson, Kotz & Balakrishnan (1994), *Continuous Univariate Distributions*, §13.10.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.positive
    has_rsample = True

    def __init__(
        self, loc: float | Tensor, scale: float | Tensor, validate_args: bool | None = None
    ) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape, _instance=None) -> "TruncatedNormal":
        if Size(batch_shape) == self.batch_shape:
            return self  # with what it has computed
        loc, scale = (v.expand(Size(batch_shape)) for v in (self.loc, self.scale))
        new = TruncatedNormal(loc, scale, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @lazy_property
    def ratio(self) -> Tensor:
        """``loc/scale``."""
        return self.loc / self.scale

    @lazy_property
    def log_mass(self) -> Tensor:
        """``log Φ(loc/scale)``, of the normal before conditioning."""
        return log_ndtr(self.ratio)

    @lazy_property  # a training step asks for mean, variance and entropy, several times over
    def _standard(self) -> tuple[Tensor, Tensor, Tensor]:
        return positive_part(self.ratio, self.log_mass)

    @property
    def mean(self) -> Tensor:
        return self.scale * self._standard[1]

    @property
    def variance(self) -> Tensor:
        return self.scale**2 * self._standard[2]

    def entropy(self) -> Tensor:
        ratio, mass = self.ratio, self.log_mass
        rate, mean, _ = self._standard
        below = ratio < 0
        # log Φ and the square of the ratio cancel in the tail: there from log r = log φ - log Φ.
        tail = 0.5 - 0.5 * ratio * mean - torch.where(below, rate, 1.0).log()
        return self.scale.log() + torch.where(
            below, tail, LOG_SQRT_TAU + 0.5 + mass - 0.5 * ratio * rate
        )

    def log_prob(self, value: Float[Tensor, "*rows"]) -> Float[Tensor, "*out"]:
        if self._validate_args:
            self._validate_sample(value)
        standard = (value - self.loc) / self.scale
        return -0.5 * standard**2 - self.scale.log() - LOG_SQRT_TAU - self.log_mass

    def rsample(self, sample_shape=Size()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        uniform = 1 - torch.rand(shape, dtype=torch.float64, device=self.loc.device)  # in (0, 1]
        ratio = self.ratio.double().expand(shape)
        target = uniform.log() + torch.special.log_ndtr(ratio)
        drawn = self.scale * (ratio - _log_quantile(target, ratio)).clamp(min=0)
        return drawn.to(self.loc.dtype)

    def cdf(self, value: Float[Tensor, "*rows"]) -> Float[Tensor, "*out"]:
        """``P(a <= value)``."""
        if self._validate_args:
            self._validate_sample(value)
        beyond = log_ndtr((self.loc - value) / self.scale) - self.log_mass
        return -torch.expm1(beyond)

    def icdf(self, value: Float[Tensor, "*rows"]) -> Float[Tensor, "*out"]:
        """The quantile: ``P(a <= icdf(p)) = p``."""
        ratio = self.ratio.double()
        target = torch.log1p(-value.double()) + torch.special.log_ndtr(ratio)
        return (self.scale * (ratio - _log_quantile(target, ratio))).to(self.loc.dtype)


def _log_quantile(target: Tensor, above: Tensor) -> Tensor:
    """``y`` with ``log Φ(y) = target``, where ``y <= above``; float64.

    In the tail by Newton's method on the concave ``log Φ``, which converges from any side in a few
    steps, as it is nearly quadratic there.
    """
    low = target <= -15.0
    # Each branch sees only numbers of its own: 0 · inf would be the gradient of the other.
    central = torch.special.ndtri(torch.where(low, -1.0, target).exp().clamp(max=1 - 1e-16))
    tail = torch.where(low, target, -15.0).clamp(min=-torch.finfo(target.dtype).max)
    y = -(-2 * tail).sqrt()
    for _ in range(6):
        value = torch.special.log_ndtr(y)
        y = y - (value - tail) / hazard(y, value)
    y = torch.where(target == -torch.inf, target, torch.where(low, y, central))
    return torch.minimum(y, above)


@register_kl(TruncatedNormal, TruncatedNormal)
def _kl_truncated(q: TruncatedNormal, p: TruncatedNormal) -> Tensor:
    square = (q.variance + (q.mean - p.loc) ** 2) / p.scale**2
    cross = 0.5 * square + p.scale.log() + LOG_SQRT_TAU + p.log_mass
    return cross - q.entropy()


@register_kl(TruncatedNormal, Exponential)
def _kl_exponential(q: TruncatedNormal, p: Exponential) -> Tensor:
    return p.rate * q.mean - p.rate.log() - q.entropy()
