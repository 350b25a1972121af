"""Automatic relevance determination: every latent has a scale of its own, learned."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from priors._gaussian import AbstractPrecision, read
from priors._prior import AbstractGaussianPrior, check_positive


@dataclass(frozen=True)
class DiagonalPrecision(AbstractPrecision):
    """The operator ``diag(s⁻²)``, given by ``log s``."""

    is_diagonal = True

    log_scale: Float[Tensor, "*batch K"]

    def quadratic(self, z: Float[Tensor, "*rows K"]) -> Float[Tensor, "*out"]:
        return (self.diagonal() * z.square()).sum(-1)

    def quadratic_at(
        self,
        support: Int[Tensor, "*rows W"],
        values: Float[Tensor, "*rows W"],
        loc: Float[Tensor, " K"] | None = None,
    ) -> Float[Tensor, "*rows"]:
        at_slots = read(self.diagonal(), support)
        if loc is None:
            return (at_slots * values.square()).sum(-1)
        slots = (at_slots * values * (values - 2 * read(loc, support))).sum(-1)
        return slots + self.quadratic(loc)

    @property
    def num_latents(self) -> int:
        return self.log_scale.shape[-1]

    def diagonal(self) -> Float[Tensor, "*batch K"]:
        return (-2 * self.log_scale).exp()

    def logdet(self) -> Float[Tensor, "*batch"]:
        return -2 * self.log_scale.sum(-1)

    def unwhiten(self, noise: Float[Tensor, "*rows K"]) -> Float[Tensor, "*rows K"]:
        return self.log_scale.exp() * noise


class ARDPrior(AbstractGaussianPrior):
    r"""Independent Gaussian latents, each of its own learned scale: those not needed shrink to 0.

    .. math:: z_k \sim \mathcal N(m_k, α_k^{-1}), \qquad
        α_k^{-1} = s_k^2 \to \tfrac1N \sum_n (μ_{nk} - m_k)^2 + σ_{nk}^2

    The limit is where the KL's gradient in :math:`s_k` vanishes, given posterior means μ and
    deviations σ. A latent that the decoder does not profit from is pruned: its posterior is the
    prior, so that the KL costs nothing at any scale, and the noise it adds to :math:`\hat x` drives
    both to zero. A rare latent is not charged for the variance 1 it does not have.

    Not for a *point* posterior over whole codes: a latent that is always zero has density
    :math:`s_k^{-1}`, unbounded. Use :class:`priors.SlabPrior` there, under which a latent that
    never fires has no gradient.

    Args:
        dim: Number of latents :math:`K`.
        scale: All standard deviations :math:`s_k` to begin with, in the units of the codes.
        loc: Mean :math:`m`: a number or ``(K,)`` tensor, fixed, or an ``nn.Parameter``, learned.

    Raises:
        ConfigError: ``prior.bad_dim``, ``prior.bad_scale``, ``prior.bad_loc``.

    Example:
        >>> prior = ARDPrior(3, scale=2.0)
        >>> prior.log_scale.shape, prior().quadratic(torch.tensor([2.0, 0.0, 2.0])).item()
        (torch.Size([3]), 2.0)

    Source:
        MacKay (1994), *Bayesian non-linear modeling for the prediction competition*; Tipping
        (2001), *Sparse Bayesian Learning and the Relevance Vector Machine*, JMLR 1:211.
    """

    def __init__(self, dim: int, *, scale: float = 1.0, loc: float | Tensor = 0.0) -> None:
        super().__init__(dim, loc)
        log_scale = torch.full((dim,), check_positive("scale", scale)).log()
        self.log_scale = nn.Parameter(log_scale)

    def precision(self) -> DiagonalPrecision:
        return DiagonalPrecision(self.log_scale)
