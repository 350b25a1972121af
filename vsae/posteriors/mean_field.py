"""Mean-field inference under spike and slab: the guide that iterates instead of guessing."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from pyro import distributions as dist
from torch import Tensor, nn
from torch.distributions import Distribution

from priors._tail import log_ndtr, positive_part
from priors.errors import ConfigError
from priors.gates import gate_field
from priors.half_line import HalfLine, half_line
from priors.replicas import stack_like
from priors.spike_slab import SpikeSlab
from priors.truncated_normal import LOG_SQRT_TAU, TruncatedNormal
from vsae.decoders import FreeDecoder
from vsae.posteriors.fista import check_iterations
from vsae.row_noise import fitted_noise
from vsae.unstackable import refuse_replicas

Tail = Callable[[Tensor], tuple[Tensor, Tensor]]


class Belief(NamedTuple):
    """A factorised spike-and-slab posterior of some rows, and the noise that goes with it.

    Args:
        logits: Log-odds of every gate, (B, K).
        loc: Of the normal whose positive part is the amplitude, (B, K).
        scale: Of the same; broadcasts to (B, K).
        rate: Probability of every gate, (B, K).
        code: The expected code, (B, K).
        spread: The sum of the variances of a row's codes, (B,).
        noise: Of each row (B, 1), or of all ().
    """

    logits: Tensor
    loc: Tensor
    scale: Tensor
    rate: Tensor
    code: Tensor
    spread: Tensor
    noise: Tensor


class MeanFieldPosterior(nn.Module):
    r"""Gates and amplitudes by damped mean-field iteration under the model's own prior.

    .. math:: u = \bar z + (x - b - \bar z W) W^\top, \qquad
        q(a_k) \propto p(a_k)\, e^{-(a_k - u_k)^2 / 2σ^2}, \qquad
        \operatorname{logit} γ_k = f_k(γ) + \log \frac{\int p(a)\, e^{(u_k a - a^2/2)/σ^2} da}{1}

    :math:`u_k` is what of the activation the *other* latents leave to latent ``k``, seen along its
    unit atom; :math:`f_k` are the prior log-odds of its gate, given the other gates. The update of
    one latent, the others fixed, maximises the ELBO; all are made at once and damped,
    :math:`\bar z \leftarrow \bar z + δ\,(γ\,\mathbb E a - \bar z)`, and the posterior is that of
    one last, whole update. At a fixed point no update of one latent raises the ELBO. With a
    :class:`vsae.RowNoise` the noise of each row is inferred along, as the site ``noise``.

    The posterior is computed at the model's own parameters and *without* a gradient, so that the
    ELBO's is the one at a fixed posterior: variational EM. Train with :class:`vsae.ExpectedELBO`,
    whose gradient has no sampling noise; every other ELBO works on draws.

    Args:
        decoder: With unit atoms ``W_dec`` (K, d) and bias ``b_dec``, shared with the model.
        prior: ``() -> SpikeSlab``, shared with the model.
        noise: ``() -> σ``, or a :class:`vsae.RowNoise`, shared with the model.
        iterations: Updates of all latents, the last one included.
        damping: :math:`δ` in (0, 1]: the share of the way gone. Whole steps diverge on coherent
            dictionaries.

    Raises:
        ConfigError: ``iterations.count``, ``iterations.damping``; ``mean_field.prior`` for a prior
            that is not a spike and slab, ``mean_field.decoder`` for atoms of any norm; when run,
            ``amplitude.family``, ``gates.family``.

    Example:
        >>> from priors import BernoulliPrior, SpikeSlabPrior, TruncatedNormalPrior
        >>> from vsae import FixedNoise, LinearDecoder
        >>> decoder = LinearDecoder(8, 6)
        >>> slab = TruncatedNormalPrior(8, loc=1.0, scale=0.1)
        >>> prior = SpikeSlabPrior(BernoulliPrior(8, rate=0.05), slab)
        >>> q = MeanFieldPosterior(decoder, prior, FixedNoise(0.1))(decoder.W_dec[:5].detach())
        >>> q["z"].probability.shape
        torch.Size([5, 8])

    Source:
        Titsias & Lázaro-Gredilla (2011), NeurIPS, §3.2 (the paired mean field); Sheikh, Shelton &
        Lücke (2014), *A truncated EM approach for spike-and-slab sparse coding*, JMLR 15:2653.
    """

    def __init__(
        self,
        decoder: nn.Module,
        prior: nn.Module,
        noise: nn.Module,
        *,
        iterations: int = 12,
        damping: float = 0.3,
    ) -> None:
        super().__init__()
        check_iterations(iterations)
        if not 0 < damping <= 1:
            raise ConfigError(
                f"damping is a share of the way: got {damping}, expected 0 < damping <= 1.",
                code="iterations.damping",
            )
        if not isinstance(prior(), SpikeSlab):
            raise ConfigError(
                f"mean-field gates need a spike-and-slab prior: got {type(prior()).__name__}, "
                "expected SpikeSlabPrior(gates, slab). FISTAPosterior is for ℓ1 priors.",
                code="mean_field.prior",
            )
        if isinstance(decoder, FreeDecoder):
            raise ConfigError(
                "mean-field updates are of unit atoms: got FreeDecoder, expected LinearDecoder.",
                code="mean_field.decoder",
            )
        self.decoder, self.prior, self.noise = decoder, prior, noise
        self.iterations, self.damping = int(iterations), float(damping)
        self.latents = decoder.latents

    @property
    def encoder(self) -> nn.Module:
        """The decoder: codes are read with the atoms that write them."""
        return self.decoder

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        with torch.no_grad():
            return as_sites(self.infer(x))

    def infer(self, x: Float[Tensor, "*rows d"]) -> Belief:
        """The belief after all iterations, from the empty code."""
        zeros = x.new_zeros(*x.shape[:-1], self.latents)
        return self.refine(x, zeros, zeros, x.new_zeros(x.shape[:-1]), self.iterations)

    def refine(
        self,
        x: Float[Tensor, "*rows d"],
        code: Float[Tensor, "*rows K"],
        gates: Float[Tensor, "*rows K"],
        spread: Float[Tensor, "*rows"],
        iterations: int,
    ) -> Belief:
        """The belief some iterations after an expected code, gates and total variance of rows."""
        prior, noise = self.prior(), self.noise()
        slab, share = half_line(prior.slab.base_dist), self.damping
        atoms, bias = self.decoder.W_dec, self.decoder.b_dec
        target = x if bias is None else x - bias
        for left in range(iterations, 0, -1):
            residual = target - code @ atoms
            sigma = _row_noise(noise, residual.square().sum(-1) + spread, x.shape[-1])
            pull = code + residual @ atoms.mT
            tail = _rough_tail if left > 1 and x.dtype == torch.float32 else _exact_tail
            belief = _update(pull, sigma, slab, gate_field(prior.gates, gates), tail)
            if left > 1:
                code = torch.lerp(code, belief.code, share)
                gates = torch.lerp(gates, belief.rate, share)
                spread = torch.lerp(spread, belief.spread, share)
        return belief

    def extra_repr(self) -> str:
        return f"iterations={self.iterations}, damping={self.damping}"


class UnrolledMeanFieldPosterior(MeanFieldPosterior):
    """The same posterior, with the gradient of the iterations that found it.

    Gates that depend on parameters have no pathwise draws: train with :class:`vsae.ExpectedELBO`,
    or with Pyro's score-function ELBOs. Memory grows with the iterations.

    Args:
        decoder: As of :class:`MeanFieldPosterior`.
        prior: As there.
        noise: As there.
        iterations: As there.
        damping: As there.

    Example:
        >>> from priors import BernoulliPrior, HalfNormalPrior, SpikeSlabPrior
        >>> from vsae import FixedNoise, LinearDecoder
        >>> decoder = LinearDecoder(8, 6)
        >>> prior = SpikeSlabPrior(BernoulliPrior(8, rate=0.05), HalfNormalPrior(8))
        >>> q = UnrolledMeanFieldPosterior(decoder, prior, FixedNoise(0.1), iterations=3)
        >>> q(torch.ones(2, 6))["z"].mean.requires_grad
        True

    Source:
        Hershey, Le Roux & Weninger (2014), *Deep Unfolding*, 1409.2574.
    """

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        return as_sites(self.infer(x))


def as_sites(belief: Belief) -> dict[str, Distribution]:
    """A belief as distributions of the model's sites."""
    gates = dist.Bernoulli(logits=belief.logits, validate_args=False).to_event(1)
    slab = TruncatedNormal(belief.loc, belief.scale, validate_args=False)
    sites = {"z": SpikeSlab(gates, dist.Independent(slab, 1), validate_args=False)}
    if belief.noise.dim():
        sites["noise"] = dist.Delta(belief.noise.squeeze(-1))
    return sites


def _row_noise(noise: Tensor | Distribution, square: Tensor, d_model: int) -> Tensor:
    """The noise of each row (B, 1), or of all ()."""
    if isinstance(noise, dist.Pareto):
        return fitted_noise(noise, square, d_model)[..., None]
    return noise


def _update(
    pull: Float[Tensor, "*rows K"], noise: Tensor, slab: HalfLine, field: Tensor, tail: Tail
) -> Belief:
    """The best gate and amplitude of every latent, the others as they are."""
    sharpness = noise**-2
    scale = (slab.precision + sharpness).rsqrt()
    ratio = torch.addcmul(slab.linear, pull, sharpness) * scale
    mass, standard = tail(ratio)
    logits = mass + (scale.log() + LOG_SQRT_TAU - slab.log_normaliser + field)
    rate, loc, mean = logits.sigmoid(), ratio * scale, standard * scale
    code = rate * mean
    square = rate * (scale * scale + loc * mean)  # E a² = s² + m E a
    return Belief(logits, loc, scale, rate, code, (square - code * code).sum(-1), noise)


def _exact_tail(ratio: Tensor) -> tuple[Tensor, Tensor]:
    """``½ratio² + log Φ(ratio)``, and the mean of ``Normal(ratio, 1)`` on positive numbers."""
    log_mass = log_ndtr(ratio)
    return 0.5 * ratio * ratio + log_mass, positive_part(ratio, log_mass)[1]


def _rough_tail(ratio: Tensor) -> tuple[Tensor, Tensor]:
    """The same, a third of the time: where Φ underflows, below -12, its value at -12.

    On the way to a belief only: log-odds there are too large by ``log(-ratio / 12)``.
    """
    ratio = ratio.clamp(min=-12.0)
    half, mass = 0.5 * ratio * ratio, 0.5 * torch.erfc(ratio * -math.sqrt(0.5))
    return half + mass.log(), ratio + (-half - LOG_SQRT_TAU).exp() / mass


stack_like.register(MeanFieldPosterior, refuse_replicas)
