"""What a normal likelihood makes of an amplitude's prior: exponential families on a ≥ 0."""

from functools import singledispatch
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Exponential

from priors._tail import log_ndtr
from priors.errors import ConfigError
from priors.truncated_normal import LOG_SQRT_TAU, TruncatedNormal


class HalfLine(NamedTuple):
    r"""The density :math:`\exp(h a - \tfrac12 P a^2 - A)` on :math:`a \ge 0`.

    A normal likelihood of mean ``a`` adds to ``h`` and ``P``, so that the posterior is of this form
    too, and the evidence is the difference of two ``A``: conjugacy.

    Args:
        linear: :math:`h`, per unit of the codes.
        precision: :math:`P \ge 0`.
        log_normaliser: :math:`A`.
    """

    linear: Tensor
    precision: Tensor
    log_normaliser: Tensor


@singledispatch
def half_line(prior: Distribution) -> HalfLine:
    """A prior of amplitudes by its natural parameters; register other families' own.

    Raises:
        ConfigError: ``amplitude.family`` for a distribution that is not of this form.

    Example:
        >>> half_line(Exponential(torch.tensor(2.0))).linear
        tensor(-2.)
    """
    raise ConfigError(
        f"amplitudes are not conjugate to normal noise: got {type(prior).__name__}, expected a "
        "TruncatedNormal (HalfNormalPrior, TruncatedNormalPrior) or an Exponential.",
        code="amplitude.family",
        context={"class": type(prior).__name__},
    )


@half_line.register
def _(prior: TruncatedNormal) -> HalfLine:
    precision = prior.scale**-2
    linear = prior.loc * precision
    mass = log_ndtr(prior.loc / prior.scale)
    return HalfLine(linear, precision, log_integral(linear, precision, mass))


@half_line.register
def _(prior: Exponential) -> HalfLine:
    return HalfLine(-prior.rate, torch.zeros_like(prior.rate), -prior.rate.log())


def log_integral(linear: Tensor, precision: Tensor, log_mass: Tensor) -> Tensor:
    r""":math:`\log \int_0^\infty e^{ha - Pa^2/2} da` for ``P > 0``, given ``log Φ``."""
    return 0.5 * linear**2 / precision - 0.5 * precision.log() + LOG_SQRT_TAU + log_mass
