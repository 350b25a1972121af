"""What may be believed about *which* latents are active: a uniform choice among subsets."""

import math

import torch
from jaxtyping import Float, Int
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints

from priors.errors import ConfigError


class _Subset(constraints.Constraint):
    """``k`` distinct integers of ``0 … dim - 1`` along the last dimension, in any order."""

    is_discrete, event_dim = True, 1

    def __init__(self, dim: int) -> None:
        self.dim = dim
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        ordered = value.sort(-1).values
        inside = (ordered[..., 0] >= 0) & (ordered[..., -1] < self.dim)
        return inside & (ordered.diff(dim=-1) > 0).all(-1)


class UniformSubsets(TorchDistribution):
    r"""Every subset of ``k`` of the ``dim`` latents is equally likely.

    .. math:: p(S) = \binom{K}{k}^{-1}

    A value is an integer tensor ``(*batch, k)``. The order of its entries carries no meaning: the
    density is that of the *set*. Under a ``Delta`` guide its KL is the constant
    :math:`\log\binom{K}{k}`.

    A draw takes ``k²`` comparisons per row (Floyd's algorithm) where that is less than the ``dim``
    uniforms per row of the alternative.

    Args:
        dim: Number of latents :math:`K`.
        k: Size of the subsets, ``1 … dim``.
        batch_shape: Of the distribution; Pyro's plates expand it.
        device: Of its draws; torch's default if ``None``.

    Raises:
        ConfigError: ``subsets.size`` unless ``1 <= k <= dim``.

    Example:
        >>> UniformSubsets(4, 2).log_prob(torch.tensor([3, 1])).exp().item()  # 1 / 6
        0.16666...

    Source:
        Bentley & Floyd (1987), *A Sample of Brilliance*, CACM 30:754 (the sampler).
    """

    arg_constraints = {}
    has_rsample = False

    def __init__(
        self,
        dim: int,
        k: int,
        batch_shape: Size | tuple[int, ...] = Size(),
        device: torch.device | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if not 0 < k <= dim:
            raise ConfigError(
                f"no subsets of k={k!r} among dim={dim!r} latents: expected 1 <= k <= dim.",
                code="subsets.size",
                context={"dim": dim, "k": k},
            )
        self.dim, self.k, self.device = dim, k, device
        super().__init__(Size(batch_shape), Size((k,)), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> constraints.Constraint:
        return _Subset(self.dim)

    def expand(self, batch_shape, _instance=None) -> "UniformSubsets":
        return UniformSubsets(
            self.dim, self.k, Size(batch_shape), self.device, validate_args=self._validate_args
        )

    def sample(self, sample_shape=Size()) -> Int[Tensor, "*rows k"]:
        shape = Size(sample_shape) + self.batch_shape
        if self.k**2 >= self.dim:
            keys = torch.rand(*shape, self.dim, dtype=torch.float64, device=self.device)
            return keys.topk(self.k, dim=-1).indices
        chosen = torch.empty(*shape, self.k, dtype=torch.int64, device=self.device)
        for i, last in enumerate(range(self.dim - self.k, self.dim)):
            new = torch.randint(last + 1, shape, device=self.device)
            taken = (chosen[..., :i] == new.unsqueeze(-1)).any(-1)
            chosen[..., i] = torch.where(taken, last, new)
        return chosen

    def log_prob(self, value: Int[Tensor, "*rows k"]) -> Float[Tensor, "*out"]:
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(self.batch_shape, value.shape[:-1])
        return torch.full(shape, -self.log_count(), device=value.device)

    def log_count(self) -> float:
        r""":math:`\log\binom{K}{k}`, in nats."""
        chosen, others = math.lgamma(self.k + 1), math.lgamma(self.dim - self.k + 1)
        return math.lgamma(self.dim + 1) - chosen - others
