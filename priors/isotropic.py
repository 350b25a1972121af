"""The prior without structure: every latent alike, none knows of another."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from priors._gaussian import AbstractPrecision, read
from priors._prior import AbstractGaussianPrior, check_positive, register


@dataclass(frozen=True)
class ScaledPrecision(AbstractPrecision):
    """The operator ``s⁻² I`` on ``dim`` latents, given by ``log s``."""

    is_diagonal = True

    log_scale: Float[Tensor, "*batch"]
    dim: int

    def quadratic(self, z: Float[Tensor, "*rows K"]) -> Float[Tensor, "*out"]:
        return (-2 * self.log_scale).exp() * z.square().sum(-1)

    def quadratic_at(
        self,
        support: Int[Tensor, "*rows W"],
        values: Float[Tensor, "*rows W"],
        loc: Float[Tensor, " K"] | None = None,
    ) -> Float[Tensor, "*rows"]:
        if loc is None:
            return self.quadratic(values)
        slots = (values * (values - 2 * read(loc, support))).sum(-1)
        return (-2 * self.log_scale).exp() * (slots + loc.square().sum(-1))

    @property
    def num_latents(self) -> int:
        return self.dim

    def diagonal(self) -> Float[Tensor, "*batch K"]:
        tau = (-2 * self.log_scale).exp()
        return tau.unsqueeze(-1).expand(*tau.shape, self.dim)

    def logdet(self) -> Float[Tensor, "*batch"]:
        return -2 * self.dim * self.log_scale

    def unwhiten(self, noise: Float[Tensor, "*rows K"]) -> Float[Tensor, "*rows K"]:
        return self.log_scale.exp().unsqueeze(-1) * noise


class IsotropicPrior(AbstractGaussianPrior):
    r"""Independent Gaussian latents of one scale: the prior of a plain variational autoencoder.

    .. math:: z \sim \mathcal N(m, s^2 I)

    Args:
        dim: Number of latents :math:`K`.
        scale: Standard deviation :math:`s`, in the units of the codes.
        learnable: Whether :math:`\log s` is trained.
        loc: Mean :math:`m`: a number or ``(K,)`` tensor, fixed, or an ``nn.Parameter``, learned.

    Raises:
        ConfigError: ``prior.bad_dim``, ``prior.bad_scale``, ``prior.bad_loc``.

    Example:
        >>> IsotropicPrior(3, scale=2.0)().quadratic(torch.tensor([2.0, 0.0, 0.0])).item()
        1.0

    Source:
        Kingma & Welling (2014), *Auto-Encoding Variational Bayes*, appendix B.
    """

    def __init__(
        self,
        dim: int,
        *,
        scale: float = 1.0,
        learnable: bool = False,
        loc: float | Tensor = 0.0,
    ) -> None:
        super().__init__(dim, loc)
        self.learnable = learnable
        log_scale = torch.tensor(check_positive("scale", scale)).log()
        register(self, "log_scale", log_scale, learnable=learnable)

    def precision(self) -> ScaledPrecision:
        return ScaledPrecision(self.log_scale, self.dim)
