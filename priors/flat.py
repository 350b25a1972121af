"""No belief about codes at all."""

import torch
from jaxtyping import Float, Int
from pyro.distributions import Delta, TorchDistribution
from torch import Size, Tensor, nn
from torch.distributions import Distribution, Independent, constraints, register_kl

from priors._prior import check_dim
from priors.errors import ConfigError
from priors.restrict import check_restrictable, restrict


class Flat(TorchDistribution):
    """Drawn as standard normals, so that a model can be run, and scored 0 everywhere.

    Improper: it has no normaliser. From a ``Delta`` its KL is 0; from any other posterior there is
    none, and asking raises a ``ConfigError`` with the code ``flat.kl``.

    Args:
        loc: Zeros ``(*batch, K)``, for shape, dtype and device.
    """

    arg_constraints = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, loc: Float[Tensor, "*batch K"], validate_args: bool | None = None) -> None:
        self.loc = loc
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape, _instance=None) -> "Flat":
        loc = self.loc.expand(Size(batch_shape) + self.event_shape)
        return Flat(loc, validate_args=self._validate_args)

    def rsample(self, sample_shape=Size()) -> Tensor:
        shape = self._extended_shape(Size(sample_shape))
        return torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)

    def log_prob(self, value: Float[Tensor, "*rows K"]) -> Float[Tensor, "*out"]:
        if self._validate_args:
            self._validate_sample(value)
        return value.new_zeros(torch.broadcast_shapes(self.batch_shape, value.shape[:-1]))


class FlatPrior(nn.Module):
    r"""No penalty on codes: what most published TopK autoencoders use.

    .. math:: -\log p(z) = 0

    Only sparsity by construction (``TopKPosterior`` and its kin) makes sense of it: the posterior
    must be a ``Delta``.

    Args:
        dim: Number of latents :math:`K`.

    Raises:
        ConfigError: ``prior.bad_dim``; ``flat.kl`` when a KL from a posterior that is no ``Delta``
            is asked for.

    Example:
        >>> FlatPrior(3)().log_prob(torch.tensor([1.0, -2.0, 0.0])).item()
        0.0

    Source:
        Gelman et al. (2013), *Bayesian Data Analysis*, 3rd ed., §2.8 (improper flat priors).
    """

    origin: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = check_dim(dim)
        self.register_buffer("origin", torch.zeros(()), persistent=False)

    def forward(self) -> Flat:
        return Flat(self.origin.unsqueeze(-1).expand(*self.origin.shape, self.dim))

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


@restrict.register
def _(prior: Flat, support: Int[Tensor, "*batch W"]) -> Flat:
    check_restrictable(prior, support)
    return Flat(prior.loc.new_zeros(()).expand(support.shape))


@register_kl(Delta, Flat)
def _kl_point(q: Delta, p: Flat) -> Tensor:
    return p.log_prob(q.v)  # 0


@register_kl(Distribution, Flat)
def _kl_none(q: Distribution, p: Flat) -> Tensor:
    if isinstance(q, Independent) and isinstance(q.base_dist, Delta):
        return p.log_prob(q.base_dist.v)
    raise ConfigError(
        f"a flat prior has no normaliser, so a KL from {type(q).__name__} to it does not exist: "
        "expected a Delta posterior. Use a proper prior: IsotropicPrior, LaplacePrior, ….",
        code="flat.kl",
        context={"posterior": type(q).__name__},
    )
