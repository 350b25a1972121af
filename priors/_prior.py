"""What every Gaussian prior shares: a mean, fixed or learned, and a precision made when called."""

from numbers import Integral

import torch
from torch import Tensor, nn

from priors._gaussian import AbstractPrecision, PrecisionNormal
from priors.errors import ConfigError


def check_dim(dim: int) -> int:
    """``dim`` if it can be a number of latents."""
    if isinstance(dim, bool) or not isinstance(dim, Integral) or dim < 1:
        raise ConfigError(
            f"a prior needs at least one latent: got dim={dim!r}, expected an int >= 1.",
            code="prior.bad_dim",
            context={"dim": dim},
        )
    return int(dim)


def check_positive(name: str, value: float) -> float:
    """``value`` if it is positive and finite, as every scale must be, in float32 too."""
    limits = torch.finfo(torch.float32)
    if not limits.tiny <= value <= limits.max:
        raise ConfigError(
            f"{name} must be positive and finite in float32: got {value!r}, expected "
            f"{limits.tiny:.3g} to {limits.max:.3g}.",
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


class AbstractGaussianPrior(nn.Module):
    """A module whose call is a :class:`PrecisionNormal`; a subclass says what its precision is.

    Args:
        dim: Number of latents ``K``.
        loc: Mean, in the units of the codes: a number or a ``(K,)`` tensor is fixed, an
            ``nn.Parameter`` of shape ``(K,)`` is learned.

    Raises:
        ConfigError: ``prior.bad_dim``; ``prior.bad_loc`` for a mean of another shape, not finite or
            not of floats; ``prior.dtype``, when called, for 16-bit parameters.
    """

    # No ABC: its metaclass would clash with PyroModule's in ``PyroModule[IsotropicPrior]``.

    def __init__(self, dim: int, loc: float | Tensor = 0.0) -> None:
        super().__init__()
        self.dim = check_dim(dim)
        loc = loc if isinstance(loc, Tensor) else torch.full((dim,), float(loc))
        if loc.shape != (dim,) or not loc.is_floating_point() or not loc.isfinite().all():
            raise ConfigError(
                f"loc must be finite floats, one per latent: got {loc.dtype} of shape "
                f"{tuple(loc.shape)} and {int((~loc.isfinite()).sum())} non-finite entries, "
                f"expected ({dim},).",
                code="prior.bad_loc",
                context={"shape": tuple(loc.shape), "dim": dim},
            )
        if isinstance(loc, nn.Parameter):
            self.loc = loc
        else:
            self.register_buffer("loc", loc.detach().to(torch.get_default_dtype(), copy=True))
        self._seen: tuple | None = None

    def precision(self) -> AbstractPrecision:
        """The structure at the present parameters; *a subclass defines it*."""
        raise NotImplementedError(f"{type(self).__name__} defines no precision()")

    def forward(self) -> PrecisionNormal:
        if self.loc.dtype in (torch.float16, torch.bfloat16):
            raise ConfigError(
                f"a prior of {self.loc.dtype}: expected float32 or float64, log-determinants being "
                "small differences of large numbers. Keep it out of .half() and .bfloat16().",
                code="prior.dtype",
            )
        return PrecisionNormal(self.loc, self.precision(), centred=self._centred())

    def _centred(self) -> bool:
        """Whether the mean is fixed at 0, as it is now: it may have been loaded or assigned."""
        if isinstance(self.loc, nn.Parameter) or torch.compiler.is_compiling():
            return False
        if (
            self._seen is None
            or self._seen[0] is not self.loc
            or self._seen[1] != self.loc._version
        ):
            self._seen = (self.loc, self.loc._version, not bool(self.loc.any()))
        return self._seen[2]

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_seen": None}  # a copy looks again

    def extra_repr(self) -> str:
        return f"dim={self.dim}"
