"""The ℓ0 penalty as a probability: how many latents may be active."""

import math

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from priors._prior import check_dim, check_positive, register
from priors.errors import ConfigError


class BernoulliPrior(nn.Module):
    r"""Independent indicators: which latents are active.

    .. math:: -\log p(s) = \sum_k λ_k s_k + \text{const}, \qquad λ_k = \operatorname{logit}(1 - π_k)

    With one rate :math:`π` the KL from a ``Delta`` posterior is :math:`λ \lVert s \rVert_0` plus
    :math:`-K \log(1 - π)`, which matters only when the rate is learned: then :math:`π_k` is fitted
    to how often latent ``k`` is active. The value may be a float 0 or 1 that carries a
    straight-through gradient: the log-density is linear in it.

    Args:
        dim: Number of latents :math:`K`.
        rate: :math:`π`, the prior probability that a latent is active, the same for all at first.
            Above ½ the penalty is a reward.
        learnable: Whether :math:`\operatorname{logit} π_k` is trained, per latent.

    Raises:
        ConfigError: ``prior.bad_dim``; ``prior.bad_rate`` unless ``0 < rate < 1``.

    Example:
        >>> prior = BernoulliPrior(3, rate=0.25)()
        >>> prior.log_prob(torch.tensor([1.0, 0.0, 0.0])).exp().item()  # 1/4 · (3/4)²
        0.14062...

    Source:
        Mitchell & Beauchamp (1988), *Bayesian variable selection in linear regression*, JASA
        83:1023 (the prior over subsets).
    """

    def __init__(self, dim: int, *, rate: float, learnable: bool = False) -> None:
        super().__init__()
        if not 0 < rate < 1:
            raise ConfigError(
                f"a rate is a probability of being active: got {rate!r}, expected 0 < rate < 1.",
                code="prior.bad_rate",
                context={"rate": rate},
            )
        self.dim, self.learnable = check_dim(dim), learnable
        logit = math.log(rate) - math.log1p(-rate)
        register(self, "logits", torch.full((self.dim,), logit), learnable=learnable)

    @classmethod
    def from_price(cls, dim: int, price: float) -> "BernoulliPrior":
        """The prior under which an active latent costs ``λ = price`` nats: ``logit π = -λ``."""
        prior = cls(dim, rate=0.5)
        prior.logits.fill_(-check_positive("price", price))
        return prior

    @property
    def rate(self) -> float:
        """The mean probability of being active, within (0, 1); of replicas, the first one's."""
        rates = self.logits.detach().reshape(-1, self.dim)[0].double().sigmoid()
        limits = torch.finfo(torch.float64)
        return rates.mean().clamp(limits.tiny, 1 - limits.eps).item()

    @torch.no_grad()
    def match(self, rate: Tensor) -> None:
        """Set the probabilities ``(K,)`` of firing, each within (0, 1)."""
        self.logits.copy_(rate.logit())

    def forward(self) -> dist.Independent:
        return dist.Bernoulli(logits=self.logits).to_event(1)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"
