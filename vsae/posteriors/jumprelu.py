"""JumpReLU: every latent has a threshold of its own, learned."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from priors.errors import ConfigError
from vsae.posteriors.point import point


class JumpReLUPosterior(nn.Module):
    r"""``z = v · H(v - θ)`` with learned thresholds, on the ``width`` best of each row.

    .. math:: z_k = v_k\, H(v_k - θ_k), \qquad
        \frac{∂}{∂θ} H(v - θ) := -\tfrac1ε\,[\,|v - θ| < ε/2\,]

    Site ``active`` holds ``H(v - θ)``: under a :class:`priors.BernoulliPrior` of rate ρ its KL is
    ``λ·L0`` with ``λ = logit(1 - ρ)``, and carries that pseudo-derivative to θ. The derivative
    lives on the slots: rows in which more than ``width`` latents are above their threshold, or
    within ``ε/2`` below it, lose the least of them (:meth:`overflow` counts those rows).

    Args:
        encoder: With ``select(x, k)``, e.g. :class:`vsae.DictionaryEncoder`.
        width: Slots per row; several times the L0 aimed at.
        threshold: Initial θ, in the units of the codes.
        bandwidth: ε of the rectangle kernel, likewise. Thresholds that no pre-activation comes near
            do not move: the source's 1e-3 needs its hundreds of thousands of steps.

    Raises:
        ConfigError: ``posterior.threshold`` unless both are positive; ``select.k``, when run,
            unless ``0 < width <= K``.

    Example:
        >>> from vsae import DictionaryEncoder, LinearDecoder
        >>> encoder = DictionaryEncoder(LinearDecoder(8, 3))
        >>> sorted(JumpReLUPosterior(encoder, width=4)(torch.ones(5, 3)))
        ['active', 'support', 'z']

    Source:
        Rajamanoharan et al. (2024), *Jumping Ahead*, 2407.14435, eq. 3, 11, 12.
    """

    def __init__(
        self, encoder: nn.Module, *, width: int, threshold: float = 0.3, bandwidth: float = 0.3
    ) -> None:
        super().__init__()
        if not (threshold > 0 and bandwidth > 0):
            raise ConfigError(
                f"threshold and bandwidth must be positive: got {threshold}, {bandwidth}.",
                code="posterior.threshold",
            )
        self.encoder, self.width, self.latents = encoder, width, encoder.outputs
        self.bandwidth = bandwidth
        self.log_threshold = nn.Parameter(torch.full_like(encoder.b_enc, threshold).log())

    @property
    def threshold(self) -> Float[Tensor, " K"]:
        """θ."""
        return self.log_threshold.exp()

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        values, support = self.encoder.select(x, self.width)
        z, active = jump(values, self.threshold[support], self.bandwidth)
        return {"support": point(support), "active": point(active), "z": point(z)}

    @torch.no_grad()
    def overflow(self, x: Float[Tensor, "rows d"]) -> Tensor:
        """How many rows have their least slot above the pseudo-derivative's reach."""
        values, support = self.encoder.select(x, self.width)
        return (values > self.threshold[support] - self.bandwidth / 2).all(-1).sum()


def jump(
    v: Float[Tensor, "*rows W"], theta: Float[Tensor, "*rows W"], bandwidth: float
) -> tuple[Float[Tensor, "*rows W"], Float[Tensor, "*rows W"]]:
    """``(v · H(v - θ), H(v - θ))`` with the rectangle kernel's pseudo-derivatives for θ.

    Straight-through by ``detach``: ``torch.export`` loses an ``autograd.Function``'s backward.
    """
    active = (v > theta).to(v)
    kernel = ((v - theta).abs() < bandwidth / 2).detach() / bandwidth
    step = (theta.detach() - theta) * kernel  # zero, with derivative -kernel
    return v * active + theta.detach() * step, active + step
