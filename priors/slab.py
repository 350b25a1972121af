"""What may be believed about the *active* latents alone: a normalised density of amplitudes."""

import torch
from jaxtyping import Float, Int
from pyro import distributions as dist
from pyro.distributions import TorchDistribution
from torch import Size, Tensor, nn
from torch.distributions import Distribution, Independent, constraints, kl_divergence, register_kl

from priors._gaussian import PrecisionNormal
from priors.errors import ConfigError
from priors.restrict import at_slots, check_restrictable, restrict


class Slab(TorchDistribution):
    r"""The density of the nonzero entries of a code, given which they are.

    .. math:: \log p(z \mid S) = \sum_{k \in S} \log p_k(z_k), \qquad S = \{k : z_k \ne 0\}

    A zero is not an amplitude but its absence: it is not scored. So the base measure is Lebesgue's
    on the coordinates in :math:`S` and a point mass at zero on the others, and this is a density of
    codes only together with one of :math:`S`, as ``UniformSubsets`` is. The KL from a factorised
    posterior, all of whose coordinates are nonzero, is the sum of those of the coordinates.

    Args:
        factors: The density of every latent, ``Independent`` of event shape ``(K,)``.

    Example:
        >>> slab = Slab(dist.Laplace(torch.zeros(3), 1.0).to_event(1))
        >>> slab.log_prob(torch.tensor([1.0, 0.0, 0.0])).exp().item()  # e^-1 / 2
        0.18393...
    """

    arg_constraints = {}

    def __init__(self, factors: Independent, validate_args: bool | None = None) -> None:
        self.factors = factors
        super().__init__(factors.batch_shape, factors.event_shape, validate_args=validate_args)

    @constraints.dependent_property(event_dim=1)
    def support(self) -> constraints.Constraint:
        return self.factors.support

    def expand(self, batch_shape, _instance=None) -> "Slab":
        return Slab(self.factors.expand(Size(batch_shape)), validate_args=self._validate_args)

    @property
    def has_rsample(self) -> bool:
        return self.factors.has_rsample

    def sample(self, sample_shape=Size()) -> Tensor:
        return self.factors.sample(sample_shape)

    def rsample(self, sample_shape=Size()) -> Tensor:
        return self.factors.rsample(sample_shape)

    def log_prob(self, value: Float[Tensor, "*rows W"]) -> Float[Tensor, "*out"]:
        active = value != 0
        # A density of positive numbers may not be asked about 0; 1 is allowed by every one.
        asked = torch.where(active, value, 1.0)
        if self._validate_args:
            self._validate_sample(asked)
        return torch.where(active, self.factors.base_dist.log_prob(asked), 0.0).sum(-1)


class SlabPrior(nn.Module):
    r"""A prior on active latents only: its scale is learned from the amplitudes that are there.

    .. math:: -\log p(z \mid S) = -\sum_{k \in S} \log p_k(z_k)

    Under the same prior on whole codes the ``K - |S|`` zeros are data too: the scale of a Laplace
    prior is then fitted to :math:`\sum|z| / K` and shrinks with every latent added. Here it is
    fitted to the mean magnitude of the active ones. With a fixed scale the two differ by
    :math:`\sum_{k \notin S} \log p_k(0)`, a constant if all rows have as many active latents.

    Empty slots of a sparse code are not counted. From a Gaussian posterior of the amplitudes the
    KL is closed form, and every slot counts.

    Args:
        prior: A prior with independent latents: ``LaplacePrior``, ``IsotropicPrior``, ….

    Raises:
        ConfigError: ``slab.coupled`` if the latents of ``prior`` are not independent.

    Example:
        >>> from priors import LaplacePrior
        >>> slab = restrict(SlabPrior(LaplacePrior(8192, scale=0.5))(), torch.tensor([[7, 4000]]))
        >>> slab.log_prob(torch.tensor([[1.0, 0.0]])).item()  # |1| / b, and log 2b = 0
        -2.0

    Source:
        Mitchell & Beauchamp (1988), *Bayesian variable selection in linear regression*, JASA
        83:1023 (spike and slab).
    """

    def __init__(self, prior: nn.Module) -> None:
        super().__init__()
        _factors(prior())
        self.prior = prior

    @property
    def dim(self) -> int:
        """Number of latents."""
        return self.prior.dim

    def forward(self) -> Slab:
        return Slab(_factors(self.prior()))


def _factors(prior: Distribution) -> Independent:
    """``prior`` as a product of densities, one per latent."""
    if isinstance(prior, Independent) and len(prior.event_shape) == 1:
        return prior
    if isinstance(prior, PrecisionNormal) and prior.precision.is_diagonal:
        return dist.Normal(prior.loc, prior.precision.diagonal().rsqrt()).to_event(1)
    structure = prior.precision if isinstance(prior, PrecisionNormal) else prior
    raise ConfigError(
        f"a slab is a product over active latents: got {type(structure).__name__}, expected "
        "independent latents (LaplacePrior, IsotropicPrior, …). A prior that couples latents is "
        "used on whole codes, without SlabPrior.",
        code="slab.coupled",
        context={"class": type(structure).__name__},
    )


@restrict.register
def _(prior: Slab, support: Int[Tensor, "*batch W"]) -> Slab:
    check_restrictable(prior, support)
    return Slab(at_slots(prior.factors, support))


@register_kl(Independent, Slab)
def _kl_slab(q: Independent, p: Slab) -> Tensor:
    if isinstance(q.base_dist, dist.Delta) and q.reinterpreted_batch_ndims == 1:
        return -p.log_prob(q.base_dist.v)
    return kl_divergence(q, p.factors)
