"""The one Gaussian of every structured prior, and the operations a structure must supply."""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    constraints,
    register_kl,
)

from priors.diagonal_forms import diagonal_sums
from priors.errors import ConfigError


class AbstractPrecision(ABC):
    r"""A symmetric positive-definite operator :math:`Λ` on codes ``(*batch, K)``, never dense.

    *The following four methods make a structure*; density, exact KL, sampler and deterministic
    penalty follow. Tensors of a structure carry its batch shape in front, ``()`` or ``(R, 1)`` for
    ``R`` replicas, and results broadcast against the batch shape of ``z`` as distributions do.
    """

    is_diagonal = False  # whether latents are independent

    @abstractmethod
    def quadratic(self, z: Float[Tensor, "*batch K"]) -> Float[Tensor, "*batch"]:
        """``zᵀΛz`` per row, no ½."""

    @abstractmethod
    def diagonal(self) -> Float[Tensor, "*batch K"]:
        """``diag Λ``."""

    @abstractmethod
    def logdet(self) -> Float[Tensor, "*batch"]:
        """``log det Λ``."""

    @abstractmethod
    def unwhiten(self, noise: Float[Tensor, "*batch N"]) -> Float[Tensor, "*batch K"]:
        """A draw from ``Normal(0, Λ⁻¹)``, linear in ``N = noise_size`` standard normals."""

    @property
    def noise_size(self) -> int:
        """How many standard normals a draw takes; ``K`` unless a structure says otherwise."""
        return self.num_latents

    @property
    def num_latents(self) -> int:
        """``K``; a structure whose diagonal is work to find may know it better."""
        return self.diagonal().shape[-1]

    def quadratic_at(
        self,
        support: Int[Tensor, "*rows W"],
        values: Float[Tensor, "*rows W"],
        loc: Float[Tensor, " K"] | None = None,
    ) -> Float[Tensor, "*rows"]:
        """``(z - m)ᵀΛ(z - m)`` of codes ``z`` that are ``values`` on ``support``, else 0; no ½.

        ``loc`` is ``m``, 0 if not given. Writes the codes out, unless a structure knows better.
        """
        codes = values.new_zeros(*values.shape[:-1], self.num_latents)
        codes = codes.scatter_add(-1, support, values)
        return self.quadratic(codes if loc is None else codes - loc)


def read(table: Float[Tensor, " K"], slots: Int[Tensor, "*rows W"]) -> Float[Tensor, "*rows W"]:
    """``table[slots]``; the gradient of ``index_select`` is the faster one."""
    return table.index_select(0, slots.reshape(-1)).view(slots.shape)


class PrecisionNormal(TorchDistribution):
    r"""The Gaussian of mean ``loc`` and precision operator ``Λ``, of event shape ``(K,)``.

    .. math:: \log p(z) = \tfrac12 \log\det Λ - \tfrac12 (z - m)^\top Λ (z - m) - \tfrac K2 \log 2π

    It has a closed-form ``kl_divergence`` from every Gaussian: ``Normal(…).to_event(1)``,
    ``MultivariateNormal`` and ``LowRankMultivariateNormal``; from a ``Delta`` it is ``-log p``.

    Args:
        loc: Mean ``(*batch, K)``, in the units of the codes; its batch shape is the distribution's.
        precision: The structure, of the same batch shape.
        centred: Declares ``loc == 0``, so that sparse codes need not look.

    Example:
        >>> from priors import IsotropicPrior
        >>> IsotropicPrior(2, scale=2.0)().log_prob(torch.zeros(2)).exp().item()  # 1 / (2π · 4)
        0.0397887...

    Source:
        Rasmussen & Williams (2006), *Gaussian Processes for Machine Learning*, eq. A.6, A.23.
    """

    arg_constraints = {"loc": constraints.real_vector}
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        loc: Float[Tensor, "*batch K"],
        precision: AbstractPrecision,
        *,
        centred: bool = False,
        validate_args: bool | None = None,
    ) -> None:
        self.loc, self.precision, self.centred = loc, precision, centred
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape, _instance=None) -> "PrecisionNormal":
        new = self._get_checked_instance(PrecisionNormal, _instance)
        new.loc = self.loc.expand(Size(batch_shape) + self.event_shape)
        new.precision, new.centred = self.precision, self.centred
        super(PrecisionNormal, new).__init__(
            Size(batch_shape), self.event_shape, validate_args=False
        )
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        return self.loc

    def quadratic(self, value: Float[Tensor, "*rows K"]) -> Float[Tensor, "*out"]:
        """``(z - m)ᵀΛ(z - m)`` per row, no ½: the deterministic penalty this prior is."""
        if not self.centred:
            return self.precision.quadratic(value - self.loc)
        shape = torch.broadcast_shapes(value.shape, self.loc.shape)
        return self.precision.quadratic(value if value.shape == shape else value.expand(shape))

    def log_prob(self, value: Float[Tensor, "*rows K"]) -> Float[Tensor, "*out"]:
        if self._validate_args:
            self._validate_sample(value)
        return self.log_normalizer() - 0.5 * self.quadratic(value)

    def log_normalizer(self) -> Float[Tensor, "*out"]:
        """``½ log det Λ - ½ K log 2π``: the log-density at the mean."""
        logdet = self.precision.logdet().to(self.loc.dtype)
        return 0.5 * (logdet - self.event_shape[0] * math.log(2 * math.pi))

    def entropy(self) -> Float[Tensor, "*out"]:
        return (0.5 * self.event_shape[0] - self.log_normalizer()).expand(self.batch_shape)

    def rsample(self, sample_shape=Size()) -> Tensor:
        shape = (*self._extended_shape(sample_shape)[:-1], self.precision.noise_size)
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + self.precision.unwhiten(noise)


def _check_latents(q: Distribution, p: PrecisionNormal) -> None:
    if q.event_shape != p.event_shape:
        raise ConfigError(
            f"a posterior of {tuple(q.event_shape)} latents and a prior of {tuple(p.event_shape)}: "
            "expected the same, a broadcast KL would be wrong.",
            code="prior.event_shape",
            context={"posterior": tuple(q.event_shape), "prior": tuple(p.event_shape)},
        )


def _kl(trace: Tensor, loc: Tensor, half_logdet: Tensor, p: PrecisionNormal) -> Tensor:
    """``½[tr ΛΣ + (μ-m)ᵀΛ(μ-m) - K - log det Λ] - ½ log det Σ``."""
    logdet = p.precision.logdet().to(loc.dtype)
    return 0.5 * (trace + p.quadratic(loc) - logdet - p.event_shape[0]) - half_logdet


def _trace(factor: Float[Tensor, "*rows K J"], p: PrecisionNormal) -> Float[Tensor, "*out"]:
    """``tr ΛFFᵀ``: the quadratic form of the columns of ``F``."""
    batch = torch.broadcast_shapes(factor.shape[:-2], p.batch_shape)
    columns = factor.mT.expand(batch + factor.mT.shape[-2:]).movedim(-2, 0)
    return p.precision.quadratic(columns).sum(0)


@register_kl(Independent, PrecisionNormal)
def _kl_diagonal(q: Independent, p: PrecisionNormal) -> Tensor:
    if not isinstance(q.base_dist, Normal) or q.reinterpreted_batch_ndims != 1:
        raise NotImplementedError
    _check_latents(q, p)
    trace, half_logdet = diagonal_sums(q.base_dist.scale, p.precision.diagonal())
    return _kl(trace, q.base_dist.loc, half_logdet, p)


@register_kl(MultivariateNormal, PrecisionNormal)
def _kl_full(q: MultivariateNormal, p: PrecisionNormal) -> Tensor:
    _check_latents(q, p)
    factor = q.scale_tril
    half_logdet = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return _kl(_trace(factor, p), q.loc, half_logdet, p)


@register_kl(LowRankMultivariateNormal, PrecisionNormal)
def _kl_low_rank(q: LowRankMultivariateNormal, p: PrecisionNormal) -> Tensor:
    _check_latents(q, p)
    factor, diagonal = q.cov_factor, q.cov_diag  # Σ = WWᵀ + D
    trace = _trace(factor, p) + (diagonal * p.precision.diagonal()).sum(-1)
    # log det Σ = log det D + log det(I + VᵀV), V = D^-½W, from the triangle of [V; I] = QR: the
    # product VᵀV would have the square of its condition number.
    whitened = factor / diagonal.sqrt().unsqueeze(-1)
    rank = factor.shape[-1]
    identity = torch.eye(rank, dtype=factor.dtype, device=factor.device).expand(
        *factor.shape[:-2], -1, -1
    )
    triangle = torch.linalg.qr(torch.cat([whitened, identity], -2)).R
    half_logdet = triangle.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
    half_logdet = half_logdet + 0.5 * diagonal.log().sum(-1)
    return _kl(trace, q.loc, half_logdet, p)
