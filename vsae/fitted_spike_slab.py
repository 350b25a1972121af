"""The M-step of spike and slab: rates and amplitudes from the posterior's moments."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from priors.errors import ConfigError
from priors.replicas import stack_like
from priors.spike_slab import SpikeSlab, SpikeSlabPrior
from vsae.observer import PosteriorObserver
from vsae.unstackable import refuse_replicas

LEAST, GREATEST = 1e-5, 0.5  # rates


class FittedSpikeSlabPrior(PosteriorObserver):
    r"""A spike-and-slab prior that follows the posterior of training in closed form.

    .. math:: n_k \leftarrow (1-ρ)\,n_k + ρ\,\overline{γ_k}, \quad
        f_k \leftarrow (1-ρ)\,f_k + ρ\,\overline{γ_k \mathbb E a_k}, \quad
        s_k \leftarrow (1-ρ)\,s_k + ρ\,\overline{γ_k \mathbb E a_k^2}

    Bars are means over the rows of a batch. The rate becomes :math:`n_k`: with one per latent it is
    automatic relevance determination, latents that are not needed are switched off for good
    measure. It is held between 1e-5 and ½. The amplitudes' mean becomes
    :math:`(1-p) f_k/n_k + p \sum f / \sum n`, shrunk towards that of all latents, and their
    variance :math:`s_k/n_k - (f_k/n_k)^2`, but at most :math:`(\text{spread} \cdot
    \text{mean})^2`. At 1, the deviation of an exponential law, a
    :class:`priors.TruncatedNormalPrior` may come to be anything from one size to none, as every
    latent's amplitudes suggest; less is a belief that amplitudes keep away from zero.
    The prior's own gradient, if it is ``learnable``, would undo this: leave it fixed.

    Args:
        prior: Whose rates and amplitudes are set; it starts from what it has.
        rate: :math:`ρ` in (0, 1], per update.
        pooling: :math:`p` in [0, 1].
        spread: Greatest relative deviation of amplitudes; positive, may be infinite. A
            :class:`priors.HalfNormalPrior` needs 0.76 at least: its own is that, always.

    Raises:
        ConfigError: ``fitted.setting``.

    Example:
        >>> from priors import BernoulliPrior, TruncatedNormalPrior
        >>> slab = TruncatedNormalPrior(2, loc=1.0, scale=0.1)
        >>> prior = FittedSpikeSlabPrior(SpikeSlabPrior(BernoulliPrior(2, rate=0.2), slab))
        >>> prior.observe_posterior({"z": prior().expand((5,))})
        >>> prior().probability[0].item()
        0.2...

    Source:
        The M-step of expectation maximisation (Dempster, Laird & Rubin, 1977), in the stochastic
        form of Cappé & Moulines (2009), *On-line EM algorithm for latent data models*, JRSS B 71.
    """

    moments: Tensor

    def __init__(
        self,
        prior: SpikeSlabPrior,
        *,
        rate: float = 0.03,
        pooling: float = 0.5,
        spread: float = 1.0,
    ) -> None:
        super().__init__()
        if not (0 < rate <= 1 and 0 <= pooling <= 1 and spread > 0):
            raise ConfigError(
                f"an M-step has 0 < rate <= 1, 0 <= pooling <= 1 and spread > 0: got {rate=}, "
                f"{pooling=}, {spread=}.",
                code="fitted.setting",
            )
        self.prior, self.rate = prior, float(rate)
        self.pooling, self.spread = float(pooling), float(spread)
        self.register_buffer("moments", self._now(prior()))

    @property
    def dim(self) -> int:
        """Number of latents."""
        return self.prior.dim

    @staticmethod
    @torch.no_grad()
    def _now(q: SpikeSlab) -> Tensor:
        """Rate and two moments (3, K), means over rows if there are any."""
        probability, first, spread = q.probability, q.slab.mean, q.slab.variance
        found = torch.stack([probability, probability * first, probability * (spread + first**2)])
        return found.reshape(3, -1, found.shape[-1]).mean(1)

    def forward(self) -> SpikeSlab:
        return self.prior()

    @torch.no_grad()
    def observe_posterior(self, posterior: dict[str, Distribution]) -> None:
        self.follow(torch.lerp(self.moments, self._now(posterior["z"]), self.rate))

    @torch.no_grad()
    def follow(self, moments: Float[Tensor, "3 K"]) -> None:
        """Take these for the rate and the two moments of every latent."""
        self.moments.copy_(moments)
        probability, first, second = self.moments
        self.prior.gates.match(probability.clamp(LEAST, GREATEST))
        shared = first.sum() / probability.sum()
        # Of a latent that never fires, at rate 1, nothing is known.
        known = probability > torch.finfo(probability.dtype).tiny
        mean = torch.where(known, first / probability, shared)
        square = torch.where(known, second / probability, shared**2)
        centre = torch.lerp(mean, shared, self.pooling)
        widest = (self.spread * centre) ** 2
        variance = (square - mean**2).clamp(min=1e-4 * centre**2).minimum(widest)
        self.prior.slab.match(centre, variance + centre**2)

    def extra_repr(self) -> str:
        return f"rate={self.rate}, pooling={self.pooling}, spread={self.spread}"


stack_like.register(FittedSpikeSlabPrior, refuse_replicas)
