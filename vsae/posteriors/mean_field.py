"""Mean-field inference under spike and slab: the guide that iterates instead of guessing."""

import torch
from jaxtyping import Float
from pyro import distributions as dist
from torch import Tensor, nn
from torch.distributions import Distribution

from priors.errors import ConfigError
from priors.gates import gate_field
from priors.half_line import half_line
from priors.replicas import stack_like
from priors.spike_slab import SpikeSlab
from vsae.decoders import FreeDecoder
from vsae.posteriors.fista import check_iterations
from vsae.posteriors.mean_field_update import Belief, Moments, hasty_update, update
from vsae.row_noise import fitted_noise
from vsae.unstackable import refuse_replicas


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
        start = Moments(rate=zeros, code=zeros, spread=x.new_zeros(x.shape[:-1]))
        return self.refine(x, start, self.iterations)

    def refine(self, x: Float[Tensor, "*rows d"], moments: Moments, iterations: int) -> Belief:
        """The belief some iterations after some moments of the codes of rows."""
        prior, noise, bias = self.prior(), self.noise(), self.decoder.b_dec
        slab = half_line(prior.slab.base_dist)
        target = x if bias is None else x - bias
        hasty = x.dtype == torch.float32 and not torch.is_grad_enabled()
        for _ in range(iterations - 1):
            seen = self._seen(target, moments, prior.gates, noise)
            new = hasty_update(*seen, slab) if hasty else update(*seen, slab).moments
            pairs = zip(moments, new, strict=True)
            moments = Moments(*(torch.lerp(old, value, self.damping) for old, value in pairs))
        return update(*self._seen(target, moments, prior.gates, noise), slab)

    def _seen(
        self, target: Tensor, moments: Moments, gates: Distribution, noise: Tensor | Distribution
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the others leave of every latent, the noise, and the prior log-odds of gates."""
        atoms = self.decoder.W_dec
        residual = target - moments.code @ atoms
        square = residual.square().sum(-1) + moments.spread
        sigma = _row_noise(noise, square, target.shape[-1])
        return residual @ atoms.mT + moments.code, sigma, gate_field(gates, moments.rate)

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
    slab = dist.Independent(belief.amplitude, 1)
    sites = {"z": SpikeSlab(gates, slab, validate_args=False)}
    if belief.noise.dim():
        sites["noise"] = dist.Delta(belief.noise.squeeze(-1))
    return sites


def _row_noise(noise: Tensor | Distribution, square: Tensor, d_model: int) -> Tensor:
    """The noise of each row (B, 1), or of all ()."""
    if isinstance(noise, dist.Pareto):
        return fitted_noise(noise, square, d_model)[..., None]
    return noise


stack_like.register(MeanFieldPosterior, refuse_replicas)
