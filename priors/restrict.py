"""A prior over K latents in the coordinates of a support: same density, never densified."""

import math
from functools import singledispatch

import torch
from jaxtyping import Float, Int
from pyro.distributions import Delta, TorchDistribution
from torch import Size, Tensor
from torch.distributions import (
    Distribution,
    Independent,
    Normal,
    constraints,
    kl_divergence,
    register_kl,
)

from priors._gaussian import PrecisionNormal, read
from priors.errors import ConfigError


@singledispatch
def restrict(prior: Distribution, support: Int[Tensor, "*batch W"]) -> TorchDistribution:
    r"""The prior on the codes that vanish outside ``support``, as a density of their amplitudes.

    .. math:: \log p_S(a) = \log p(z), \qquad z_{s_j} = a_j, \quad z_k = 0 \text{ for } k \notin S

    The *dense* log-density, value and every gradient, constants and log-determinants included,
    without a code of ``K`` numbers. So an amplitude of 0 is an empty slot and costs nothing,
    whatever its index. It is a density of codes, not normalised over ``a`` alone: to learn a scale
    from active latents only, see :class:`priors.SlabPrior`.

    The result is in float64, whatever the codes are in: the constant of thousands of latents would
    swamp the penalty of a few amplitudes in float32. A draw is the prior's own, read at the slots.
    Two nonzero amplitudes of one row at one latent have no defined density
    (:class:`priors.UniformSubsets` refuses them).

    Dispatches on the class of ``prior``; ``restrict.register`` adds one.

    Args:
        prior: Of batch shape ``()`` and event shape ``(K,)``; already known are ``Independent``
            (any factorised density), ``PrecisionNormal``, and those of ``SlabPrior`` and
            ``FlatPrior``.
        support: The latent of each slot, ``0 … K-1``.

    Returns:
        A distribution of batch shape ``(*batch,)`` and event shape ``(W,)``.

    Raises:
        ConfigError: ``restrict.unregistered`` for a class without a sparse form,
            ``restrict.replicas`` for a stack of replicas, ``restrict.event`` if ``prior`` is not
            over vectors, ``restrict.support`` if ``support`` is not rows of integers.

    Example:
        >>> from priors import LaplacePrior
        >>> prior = LaplacePrior(4)()
        >>> sparse = restrict(prior, torch.tensor([[2, 0]]))
        >>> dense = prior.log_prob(torch.tensor([-3.0, 0.0, 5.0, 0.0]))
        >>> sparse.log_prob(torch.tensor([[5.0, -3.0]])).item() - dense.item()
        0.0

    Source:
        Gao et al. (2024), *Scaling and evaluating sparse autoencoders*, §2.3, for codes in slots;
        the density is the prior's own in these coordinates.
    """
    raise ConfigError(
        f"{type(prior).__name__} has no sparse form: got a prior whose class is not registered. "
        f"Register one, `@restrict.register` on a function (prior: {type(prior).__name__}, "
        "support) -> distribution over the amplitudes, or use dense codes.",
        code="restrict.unregistered",
        context={"class": type(prior).__name__},
    )


class Restricted(TorchDistribution):
    """What restricted priors share: shapes, ``expand``, sampling; a subclass adds ``log_prob``.

    Args:
        prior: The dense prior, of batch shape ``()``.
        slots: The latent of each slot ``(*batch, W)``.
    """

    arg_constraints = {}
    support = constraints.real_vector

    def __init__(
        self, prior: Distribution, slots: Tensor, validate_args: bool | None = None
    ) -> None:
        check_restrictable(prior, slots)
        self.prior, self.slots = prior, slots
        super().__init__(slots.shape[:-1], slots.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape, _instance=None) -> "Restricted":
        slots = self.slots.expand(Size(batch_shape) + self.event_shape)
        return type(self)(self.prior, slots, validate_args=self._validate_args)

    @property
    def has_rsample(self) -> bool:
        return self.prior.has_rsample

    def sample(self, sample_shape=Size()) -> Tensor:
        with torch.no_grad():
            return self._draw(Size(sample_shape), "sample")

    def rsample(self, sample_shape=Size()) -> Tensor:
        return self._draw(Size(sample_shape), "rsample")

    def _draw(self, sample_shape: Size, method: str) -> Tensor:
        full = getattr(self.prior.expand(self.batch_shape), method)(sample_shape)
        return full.gather(-1, self.slots.expand(full.shape[:-1] + self.event_shape))


class RestrictedIndependent(Restricted):
    """For factorised priors: ``log p(z) = log p(0) + Σ_j [log p_s(a_j) - log p_s(0)]``."""

    @constraints.dependent_property(event_dim=1)
    def support(self) -> constraints.Constraint:
        return constraints.independent(self.prior.base_dist.support, 1)

    @property
    def at_slots(self) -> Independent:
        """The marginals of the slots: the normalised density of ``a``."""
        return at_slots(self.prior, self.slots)

    def at_zero(self) -> tuple[Float[Tensor, ""], Float[Tensor, "*batch W"]]:
        """``log p(0)``, in float64, and its terms at the slots."""
        base = self.prior.base_dist
        terms = base.log_prob(_like(base).new_zeros(base.batch_shape))
        return terms.sum(dtype=torch.float64), read(terms, self.slots)

    def log_prob(self, value: Float[Tensor, "*rows W"]) -> Float[Tensor, "*out"]:
        if self._validate_args:
            self._validate_sample(value)
        constant, empty = self.at_zero()
        terms = self.at_slots.base_dist.log_prob(value) - empty
        return terms.sum(-1, dtype=torch.float64) + constant

    def _draw(self, sample_shape: Size, method: str) -> Tensor:
        return getattr(self.at_slots, method)(sample_shape)


class RestrictedPrecision(Restricted):
    """For Gaussians given by a precision: the structure's own ``quadratic_at``."""

    def quadratic(self, value: Float[Tensor, "*rows W"]) -> Float[Tensor, "*out"]:
        """``(z - m)ᵀΛ(z - m)`` of the dense codes ``z``."""
        loc = None if self.prior.centred else self.prior.loc
        slots, value = torch.broadcast_tensors(self.slots, value)
        return self.prior.precision.quadratic_at(slots, value, loc).double()

    def log_prob(self, value: Float[Tensor, "*rows W"]) -> Float[Tensor, "*out"]:
        if self._validate_args:
            self._validate_sample(value)
        return self.prior.log_normalizer().double() - 0.5 * self.quadratic(value)


def check_restrictable(prior: Distribution, support: Tensor) -> None:
    """One prior over vectors, and rows of integers."""
    if len(prior.event_shape) != 1:
        raise ConfigError(
            f"only a prior over vectors has a sparse form: got {type(prior).__name__} of event "
            f"shape {tuple(prior.event_shape)}, expected (K,). Use .to_event(1).",
            code="restrict.event",
            context={"event_shape": tuple(prior.event_shape)},
        )
    if prior.batch_shape:
        raise ConfigError(
            f"sparse codes of a batch of priors: got batch shape {tuple(prior.batch_shape)}, "
            "expected () (a stack of replicas has (R, 1)). Unstack it, or use dense codes.",
            code="restrict.replicas",
            context={"batch_shape": tuple(prior.batch_shape)},
        )
    if support.dim() < 1 or support.dtype != torch.int64:
        raise ConfigError(
            f"a support is rows of latent numbers: got {support.dtype} of shape "
            f"{tuple(support.shape)}, expected int64 (*batch, W).",
            code="restrict.support",
            context={"dtype": str(support.dtype), "shape": tuple(support.shape)},
        )


def at_slots(prior: Independent, slots: Int[Tensor, "*batch W"]) -> Independent:
    """``prior`` with its parameters read at ``slots``: the marginal of those latents.

    Its base is rebuilt from the names in ``arg_constraints``, as torch's own distributions are.
    """
    base = prior.base_dist
    values = {name: read(getattr(base, name), slots) for name in _parameters(base)}
    return type(prior)(type(base)(**values, validate_args=False), 1, validate_args=False)


def _parameters(base: Distribution) -> list[str]:
    """Names of the parameters of a univariate family, one number per latent each."""
    names = [name for name in base.arg_constraints if hasattr(base, name)]
    if "logits" in names:
        names.remove("probs")  # two ways to say one thing
    shapes = {getattr(getattr(base, name), "shape", None) for name in names}
    if shapes != {base.batch_shape}:
        raise ConfigError(
            f"Independent({type(base).__name__}) has no sparse form: its parameters are not one "
            "number per latent. Register the prior's own class on `restrict`.",
            code="restrict.unregistered",
            context={"class": type(base).__name__},
        )
    return names


def _like(base: Distribution) -> Tensor:
    return getattr(base, _parameters(base)[0])


@restrict.register
def _(prior: Independent, support: Tensor) -> Restricted:
    check_restrictable(prior, support)
    _parameters(prior.base_dist)
    return RestrictedIndependent(prior, support)


@restrict.register
def _(prior: PrecisionNormal, support: Tensor) -> Restricted:
    return RestrictedPrecision(prior, support)


@register_kl(Independent, RestrictedIndependent)
def _kl_independent(q: Independent, p: RestrictedIndependent) -> Tensor:
    """Of a density of the amplitudes: latents without a slot are 0, and cost what 0 costs."""
    constant, empty = p.at_zero()
    return kl_divergence(q, p.at_slots) + empty.sum(-1, dtype=torch.float64) - constant


@register_kl(Independent, RestrictedPrecision)
def _kl_precision(q: Independent, p: RestrictedPrecision) -> Tensor:
    if isinstance(q.base_dist, Delta) and q.reinterpreted_batch_ndims == 1:
        return -p.log_prob(q.base_dist.v)
    if not isinstance(q.base_dist, Normal) or q.reinterpreted_batch_ndims != 1:
        raise NotImplementedError
    scale, width = q.base_dist.scale, p.event_shape[0]
    trace = (read(p.prior.precision.diagonal(), p.slots) * scale.square()).sum(-1)
    entropy = scale.log().sum(-1) + 0.5 * width * (1 + math.log(2 * math.pi))
    return 0.5 * (p.quadratic(q.base_dist.loc) + trace) - p.prior.log_normalizer() - entropy
