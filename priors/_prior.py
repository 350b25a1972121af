"""What every Gaussian prior shares: a mean, fixed or learned, and a precision made when called."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from priors._gaussian import AbstractPrecision, PrecisionNormal
from priors.errors import ConfigError


def check_dim(dim: int) -> int:
    """``dim`` if it can be a number of latents."""
    if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
        raise ConfigError(
            f"a prior needs at least one latent: got dim={dim!r}, expected an int >= 1.",
            code="prior.bad_dim",
            context={"dim": dim},
        )
    return dim


def check_positive(name: str, value: float) -> float:
    """``value`` if it is positive and finite, as every scale must be."""
    if not (value > 0 and math.isfinite(value)):
        raise ConfigError(
            f"{name} must be positive and finite: got {value!r}.",
            code=f"prior.bad_{name}",
            context={name: value},
        )
    return float(value)


def register(module: nn.Module, name: str, value: Tensor, *, learnable: bool) -> None:
    """A setting of a prior: a parameter if learned, else a buffer, which Pyro does not warn of."""
    if learnable:
        module.register_parameter(name, nn.Parameter(value))
    else:
        module.register_buffer(name, value)


class AbstractGaussianPrior(nn.Module, ABC):
    """A module whose call is a :class:`PrecisionNormal`; a subclass says what its precision is.

    Args:
        dim: Number of latents ``K``.
        loc: Mean, in the units of the codes: a number or a ``(K,)`` tensor is fixed, an
            ``nn.Parameter`` of shape ``(K,)`` is learned.

    Raises:
        ConfigError: ``prior.bad_dim``; ``prior.bad_loc`` for a mean of another shape or not finite.
    """

    def __init__(self, dim: int, loc: float | Tensor = 0.0) -> None:
        super().__init__()
        self.dim = check_dim(dim)
        self.centred = not isinstance(loc, Tensor) and loc == 0.0
        loc = loc if isinstance(loc, Tensor) else torch.full((dim,), float(loc))
        if loc.shape != (dim,) or not loc.isfinite().all():
            raise ConfigError(
                f"loc must be finite and one number per latent: got shape {tuple(loc.shape)} and "
                f"{int((~loc.isfinite()).sum())} non-finite entries, expected ({dim},).",
                code="prior.bad_loc",
                context={"shape": tuple(loc.shape), "dim": dim},
            )
        if isinstance(loc, nn.Parameter):
            self.loc = loc
        else:
            self.register_buffer("loc", loc)

    @abstractmethod
    def precision(self) -> AbstractPrecision:
        """The structure at the present parameters."""

    def forward(self) -> PrecisionNormal:
        return PrecisionNormal(self.loc, self.precision(), centred=self.centred)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"
