"""The ℓ1 penalty of latents in tiers, as a density with a learned scale per tier."""

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import nn

from priors._prior import check_positive, register
from priors.errors import ConfigError
from priors.tiers import check_count, check_sizes, per_latent


class TieredLaplacePrior(nn.Module):
    r"""Independent Laplace latents, one scale for each tier of them.

    .. math:: -\log p(z) = \sum_i \lVert z_i \rVert_1 / b_i + d_i \log 2 b_i, \qquad
        b_i = \mathrm{floor} + e^{r_i}

    "Importance weights" of an ℓ1 penalty, made a density: a tier's weight is :math:`1 / b_i`, and
    the normaliser is what keeps it from being learned away. At the best scale,
    :math:`b_i = \mathbb E\lVert z_i\rVert_1 / d_i`, every tier pays the same
    :math:`1 + \log 2b_i` nats per latent, of which 1 is ℓ1.

    Under a *point* posterior a learned scale has no lower bound of its own: codes and scale going
    to zero together gain :math:`d_i` nats for every factor e, and there is no entropy to pay for
    it. ``floor`` is that bound, so choose it with the units of the codes in mind; whether a tier
    ends there is to be looked at. A tier of :math:`d_i` latents needs more nats of reconstruction
    than that to live: a small noise.

    Args:
        sizes: Latents of each tier, :math:`d_1, …, d_n`.
        scales: :math:`b_i` to begin with, in the units of the codes: one number, or one per tier.
        learnable: Whether :math:`r_i` are trained.
        floor: The least scale, in the same units.
        ramps: A module ``() -> (n,)``, e.g. :class:`vsae.Curriculum`: a tier whose ramp is 0 has
            codes of zero because it does not take part yet, and teaches its scale nothing. All
            take part if ``None``.

    Raises:
        ConfigError: ``tiers.sizes``, ``tiers.count``, ``prior.bad_scale``, ``prior.bad_floor``
            unless ``0 < floor < scale``.

    Example:
        >>> prior = TieredLaplacePrior((1, 2), scales=(0.5, 0.25))
        >>> prior().log_prob(torch.tensor([1.0, -2.0, 0.5])).item()  # -1/b₁ - 2.5/b₂ - 2 log 2b₂
        -10.61370...

    Source:
        Park & Casella (2008), *The Bayesian Lasso*, JASA 103:681; Kendall, Gal & Cipolla (2018),
        *Multi-Task Learning Using Uncertainty* (the normaliser as what weighs terms).
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        scales: float | Sequence[float] = 1.0,
        learnable: bool = True,
        floor: float = 1e-3,
        ramps: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.sizes, self.learnable = check_sizes(sizes), learnable
        given = scales if isinstance(scales, Sequence) else [scales] * len(self.sizes)
        checked = check_count("scales", given, self.sizes)
        self.scales = tuple(check_positive("scale", scale) for scale in checked)
        self.floor = check_positive("floor", floor)
        if not self.floor < min(self.scales):
            raise ConfigError(
                f"learned scales stay above their floor: got {floor=} and scales {self.scales}, "
                "expected 0 < floor < scale.",
                code="prior.bad_floor",
            )
        excess = (torch.tensor(self.scales) - self.floor).log()
        register(self, "log_excess", excess, learnable=learnable)
        self.ramps = ramps

    @property
    def dim(self) -> int:
        """Number of latents :math:`K`, all tiers together."""
        return sum(self.sizes)

    def tier_scales(self) -> torch.Tensor:
        """:math:`b_i`, one per tier."""
        excess = self.log_excess
        if self.ramps is not None:
            excess = torch.where(self.ramps() > 0, excess, excess.detach())
        return self.floor + excess.exp()

    def forward(self) -> dist.Independent:
        scale = per_latent(self.tier_scales(), self.sizes)
        return dist.Laplace(torch.zeros_like(scale), scale).to_event(1)

    def extra_repr(self) -> str:
        return f"sizes={self.sizes}"
