"""Spike and slab: latents that are exactly zero, or have an amplitude."""

import torch
from jaxtyping import Float
from pyro import distributions as dist
from pyro.distributions import TorchDistribution
from torch import Size, Tensor, nn
from torch.distributions import (
    Distribution,
    Independent,
    constraints,
    kl_divergence,
    register_kl,
)

from priors.errors import ConfigError


class SpikeSlab(TorchDistribution):
    r"""Codes :math:`z_k = g_k a_k`: gates decide which latents fire, the slab how strongly.

    .. math:: \log p(z) = \log p_g([z \ne 0]) + \sum_{k : z_k \ne 0} \log p_k(z_k)

    The base measure of a coordinate is Lebesgue's plus a point mass at zero. As a posterior, with
    independent gates of probability :math:`γ_k` and amplitudes :math:`q_k`,

    .. math:: \mathrm{KL}(q \| p) = \mathrm{KL}(q_g \| p_g)
        + \sum_k γ_k\, \mathrm{KL}(q_k \| p_k), \qquad
        \mathbb E z_k = γ_k \mathbb E a_k, \quad
        \mathrm{Var}\, z_k = γ_k \mathbb E a_k^2 - (γ_k \mathbb E a_k)^2

    A gate has no pathwise derivative, so that draws are reparameterised only where no gradient of
    the gates is asked for: of a posterior found by iteration (:class:`vsae.MeanFieldPosterior`).
    Elsewhere use :class:`vsae.ExpectedELBO`, or Pyro's score-function ELBOs.

    Args:
        gates: Which latents fire: of event shape ``(K,)``, zeros and ones, e.g. ``Independent``
            Bernoullis, :class:`priors.IsingGates`, :class:`priors.TreeGates`.
        slab: Amplitudes, ``Independent`` of event shape ``(K,)``, on positive numbers.

    Raises:
        ConfigError: ``spike.shape`` if the two are not of as many latents, or the amplitudes not
            independent.

    Example:
        >>> from priors.truncated_normal import TruncatedNormal
        >>> gates = dist.Bernoulli(torch.tensor([0.5, 0.25])).to_event(1)
        >>> slab = dist.Independent(TruncatedNormal(torch.zeros(2), torch.ones(2)), 1)
        >>> SpikeSlab(gates, slab).log_prob(torch.zeros(2)).exp().item()  # ½ · ¾
        0.375

    Source:
        Mitchell & Beauchamp (1988), *Bayesian variable selection in linear regression*, JASA
        83:1023; Titsias & Lázaro-Gredilla (2011), *Spike and slab variational inference for
        multi-task and multiple kernel learning*.
    """

    arg_constraints = {}
    support = constraints.independent(constraints.greater_than_eq(0.0), 1)

    def __init__(
        self, gates: Distribution, slab: Distribution, validate_args: bool | None = None
    ) -> None:
        if gates.event_shape != slab.event_shape or len(gates.event_shape) != 1:
            raise ConfigError(
                f"gates and slab are of as many latents: got event shapes "
                f"{tuple(gates.event_shape)} and {tuple(slab.event_shape)}, expected (K,) twice.",
                code="spike.shape",
            )
        if not isinstance(slab, Independent):
            raise ConfigError(
                f"amplitudes are independent, a density per latent: got {type(slab).__name__}, "
                "expected Independent(…, 1), as TruncatedNormalPrior(…)() is.",
                code="spike.shape",
            )
        batch = torch.broadcast_shapes(gates.batch_shape, slab.batch_shape)
        self.gates, self.slab = gates.expand(batch), slab.expand(batch)
        super().__init__(batch, gates.event_shape, validate_args=validate_args)

    def expand(self, batch_shape, _instance=None) -> "SpikeSlab":
        shape = Size(batch_shape)
        parts = self.gates.expand(shape), self.slab.expand(shape)
        return SpikeSlab(*parts, validate_args=self._validate_args)

    @property
    def has_rsample(self) -> bool:
        return self.slab.has_rsample and not self.gates.mean.requires_grad

    @property
    def probability(self) -> Float[Tensor, "*batch K"]:
        """The marginal probability that each latent fires, :math:`γ_k`."""
        return self.gates.mean

    @property
    def mean(self) -> Float[Tensor, "*batch K"]:
        return self.probability * self.slab.mean

    @property
    def variance(self) -> Float[Tensor, "*batch K"]:
        probability, mean = self.probability, self.slab.mean
        return probability * (self.slab.variance + (1 - probability) * mean**2)

    def sample(self, sample_shape=Size()) -> Tensor:
        with torch.no_grad():
            return self.gates.sample(sample_shape) * self.slab.sample(sample_shape)

    def rsample(self, sample_shape=Size()) -> Tensor:
        return self.gates.sample(sample_shape) * self.slab.rsample(sample_shape)

    def log_prob(self, value: Float[Tensor, "*rows K"]) -> Float[Tensor, "*out"]:
        if self._validate_args:
            self._validate_sample(value)
        fires = value != 0
        # A density of positive numbers may not be asked about 0; 1 is allowed by every one.
        size = self.slab.base_dist.log_prob(torch.where(fires, value, 1.0))
        return self.gates.log_prob(fires.to(value.dtype)) + torch.where(fires, size, 0.0).sum(-1)


class SpikeSlabPrior(nn.Module):
    r"""The prior of a code that is sparse because latents are *off*, not because they are small.

    .. math:: g \sim p_g, \qquad a_k \sim p_k, \qquad z_k = g_k a_k

    Args:
        gates: Prior of which latents fire: :class:`priors.BernoulliPrior` (independent), or a
            structured one, :class:`priors.IsingGatesPrior`, :class:`priors.TreeGatesPrior`.
        slab: Prior of amplitudes: :class:`priors.TruncatedNormalPrior`,
            :class:`priors.HalfNormalPrior` or :class:`priors.ExponentialPrior`.

    Raises:
        ConfigError: ``spike.shape`` if the two are not of as many latents, or the amplitudes not
            independent.

    Example:
        >>> from priors import BernoulliPrior, HalfNormalPrior
        >>> prior = SpikeSlabPrior(BernoulliPrior(8, rate=0.1), HalfNormalPrior(8, scale=2.0))
        >>> prior().mean[0].item()  # 0.1 · 2 · √(2/π)
        0.1595...

    Source:
        Mitchell & Beauchamp (1988), *Bayesian variable selection in linear regression*, JASA
        83:1023.
    """

    def __init__(self, gates: nn.Module, slab: nn.Module) -> None:
        super().__init__()
        SpikeSlab(gates(), slab())
        self.gates, self.slab = gates, slab

    @property
    def dim(self) -> int:
        """Number of latents."""
        return self.slab.dim

    def forward(self) -> SpikeSlab:
        return SpikeSlab(self.gates(), self.slab())


@register_kl(SpikeSlab, SpikeSlab)
def _kl_spike_slab(q: SpikeSlab, p: SpikeSlab) -> Tensor:
    sizes = kl_divergence(q.slab.base_dist, p.slab.base_dist)
    batch = torch.broadcast_shapes(q.batch_shape, p.batch_shape)  # torch's own KL does not
    gates = kl_divergence(q.gates.expand(batch), p.gates.expand(batch))
    return gates + (q.probability * sizes).sum(-1)


@register_kl(Independent, SpikeSlab)
def _kl_point(q: Independent, p: SpikeSlab) -> Tensor:
    if not isinstance(q.base_dist, dist.Delta):  # a density has no KL from a point mass at zero
        raise NotImplementedError
    return -p.log_prob(q.base_dist.v)
