"""Priors of amplitudes: how large a latent is, given that it fires."""

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from priors._prior import check_dim, check_positive, register
from priors._tail import hazard, log_ndtr
from priors.errors import ConfigError
from priors.truncated_normal import TruncatedNormal

FARTHEST, NEAREST = 6.0, -5.0  # locations in scales, between which truncation is solved for
NEWTON = 8  # steps, to 1e-9 of α from wherever they begin


class TruncatedNormalPrior(nn.Module):
    r"""Independent positive latents about a size of their own.

    .. math:: a_k \sim \mathcal N(μ_k, s_k^2) \text{ given } a_k > 0

    As a slab, amplitudes that keep away from zero, if their scale is small: a belief that what an
    activation adds is not shared out among latents at will.

    Args:
        dim: Number of latents :math:`K`.
        loc: All :math:`μ_k` to begin with, in the units of the codes.
        scale: All :math:`s_k` to begin with.
        learnable: Whether :math:`μ_k` and :math:`\log s_k` are trained by gradients;
            :class:`vsae.FittedSpikeSlabPrior` fits them in closed form instead.

    Raises:
        ConfigError: ``prior.bad_dim``, ``prior.bad_scale``, ``prior.bad_loc``.

    Example:
        >>> TruncatedNormalPrior(3, loc=4.0, scale=0.5)().mean.shape
        torch.Size([3])

    Source:
        The slab of Mitchell & Beauchamp (1988), *Bayesian variable selection in linear regression*,
        JASA 83:1023, on positive numbers.
    """

    loc: Tensor
    log_scale: Tensor

    def __init__(
        self, dim: int, *, loc: float = 1.0, scale: float = 1.0, learnable: bool = False
    ) -> None:
        super().__init__()
        self.dim, self.learnable = check_dim(dim), learnable
        where = torch.full((dim,), float(loc))
        if not bool(where.isfinite().all()):
            raise ConfigError(f"a location is a finite number: got {loc}.", code="prior.bad_loc")
        spread = torch.full((dim,), check_positive("scale", scale)).log()
        register(self, "loc", where, learnable=learnable)
        register(self, "log_scale", spread, learnable=learnable)

    @torch.no_grad()
    def match(self, first: Tensor, second: Tensor) -> None:
        r"""Set location and scale to those of two moments ``(K,)``, which are the most likely ones.

        Means are positive, and second moments above their squares.
        Amplitudes that vary nearly as much as an exponential's, by 0.97 of their mean or more, have
        :math:`μ_k = -5\,s_k` and that mean: the law is exponential but for a few per cent.
        """
        variance = second - first**2
        ratio, scale = standardised(first.double(), variance.double())
        far = first > FARTHEST * variance.sqrt()  # nothing is cut off that numbers could tell
        self.loc.copy_(torch.where(far, first, ratio * scale))
        self.log_scale.copy_(torch.where(far, 0.5 * variance.log(), scale.log()))

    def forward(self) -> dist.Independent:
        return dist.Independent(TruncatedNormal(self.loc, self.log_scale.exp()), 1)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


def standardised(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    r"""``α = μ / s`` and ``s`` of the normal that has these moments once it is cut off at 0.

    .. math:: m(α) = α + h, \quad v(α) = 1 - h\,m(α), \quad h = φ(α) / Φ(α), \qquad
        m(α) / \sqrt{v(α)} = \mathbb E a / \sqrt{\operatorname{Var} a}, \quad
        s = \mathbb E a / m(α)

    The left-hand side rises and is convex, and is above α: Newton's method from the right-hand side
    falls to the root. ``α`` is kept in [-5, 6].
    """
    wanted = mean / variance.sqrt()
    ratio = wanted.clamp(NEAREST, FARTHEST)
    for _ in range(NEWTON):
        rate, centre, spread = _cut_off(ratio)
        deviation = spread.sqrt()
        slope = deviation - centre * rate * (centre**2 - spread) / (2 * deviation**3)
        ratio = (ratio - (centre / deviation - wanted) / slope).clamp(NEAREST, FARTHEST)
    return ratio, mean / _cut_off(ratio)[1]


def _cut_off(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``φ/Φ``, mean and variance of ``Normal(x, 1)`` given that it is positive; in float64."""
    rate = hazard(x, log_ndtr(x))
    return rate, x + rate, 1 - x * rate - rate**2


class HalfNormalPrior(nn.Module):
    r"""Independent positive latents, the smaller the likelier.

    .. math:: p(a_k) = \sqrt{2/π}\, s_k^{-1} e^{-a_k^2 / 2 s_k^2}, \qquad a_k > 0

    Args:
        dim: Number of latents :math:`K`.
        scale: All :math:`s_k` to begin with, in the units of the codes.
        learnable: Whether :math:`\log s_k` is trained by gradients.

    Raises:
        ConfigError: ``prior.bad_dim``, ``prior.bad_scale``.

    Example:
        >>> HalfNormalPrior(1, scale=1.0)().log_prob(torch.tensor([1e-9])).exp().item()  # √(2/π)
        0.7978...

    Source:
        Johnson, Kotz & Balakrishnan (1994), *Continuous Univariate Distributions*, §13.10.
    """

    log_scale: Tensor

    def __init__(self, dim: int, *, scale: float = 1.0, learnable: bool = False) -> None:
        super().__init__()
        self.dim, self.learnable = check_dim(dim), learnable
        spread = torch.full((dim,), check_positive("scale", scale)).log()
        register(self, "log_scale", spread, learnable=learnable)

    @torch.no_grad()
    def match(self, first: Tensor, second: Tensor) -> None:
        """Set the scale to the most likely one, given the moments ``(K,)`` of amplitudes."""
        self.log_scale.copy_(0.5 * second.log())

    def forward(self) -> dist.Independent:
        scale = self.log_scale.exp()
        return dist.Independent(TruncatedNormal(torch.zeros_like(scale), scale), 1)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class ExponentialPrior(nn.Module):
    r"""Independent non-negative latents: ℓ1 as a density of codes that cannot be negative.

    .. math:: -\log p(z) = \sum_k z_k / b_k + \log b_k, \qquad z_k \ge 0

    Args:
        dim: Number of latents :math:`K`.
        scale: All :math:`b_k` to begin with, the mean, in the units of the codes.
        learnable: Whether :math:`\log b_k` is trained by gradients.

    Raises:
        ConfigError: ``prior.bad_dim``, ``prior.bad_scale``.

    Example:
        >>> ExponentialPrior(2, scale=0.5)().log_prob(torch.tensor([1.0, 0.0])).item()  # log 4 - 2
        -0.6137...

    Source:
        Olshausen & Field (1997), *Sparse coding with an overcomplete basis set*, Vision Research
        37:3311; Hoyer (2002), *Non-negative sparse coding*.
    """

    log_scale: Tensor

    def __init__(self, dim: int, *, scale: float = 1.0, learnable: bool = False) -> None:
        super().__init__()
        self.dim, self.learnable = check_dim(dim), learnable
        spread = torch.full((dim,), check_positive("scale", scale)).log()
        register(self, "log_scale", spread, learnable=learnable)

    @torch.no_grad()
    def match(self, first: Tensor, second: Tensor) -> None:
        """Set the scale to the most likely one, given the moments ``(K,)`` of amplitudes."""
        self.log_scale.copy_(first.log())

    def forward(self) -> dist.Independent:
        return dist.Exponential((-self.log_scale).exp()).to_event(1)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"
