"""Every pair of latents equally correlated."""

from dataclasses import dataclass
from fractions import Fraction

import torch
from jaxtyping import Float, Int
from torch import Tensor

from priors._gaussian import AbstractPrecision
from priors._prior import AbstractGaussianPrior
from priors.errors import ConfigError


@dataclass(frozen=True)
class TwoLevelPrecision(AbstractPrecision):
    """Eigenvalue ``between`` on the constant vector, ``within`` on everything orthogonal to it."""

    between: Float[Tensor, "*batch"]
    within: Float[Tensor, "*batch"]
    dim: int

    def quadratic(self, z: Float[Tensor, "*rows K"]) -> Float[Tensor, "*out"]:
        # Centred first: ‖z‖² - (1ᵀz)²/K would cancel where the two eigenvalues differ most.
        mean = z.mean(-1)
        spread = (z - mean.unsqueeze(-1)).square().sum(-1)
        return self.within * spread + self.between * self.dim * mean.square()

    def quadratic_at(
        self,
        support: Int[Tensor, "*rows W"],
        values: Float[Tensor, "*rows W"],
        loc: Float[Tensor, " K"] | None = None,
    ) -> Float[Tensor, "*rows"]:
        if loc is not None:
            return super().quadratic_at(support, values, loc)
        mean = values.sum(-1) / self.dim
        spread = (values - mean.unsqueeze(-1)).square().sum(-1)
        spread = spread + (self.dim - values.shape[-1]) * mean.square()  # of the zeros
        return self.within * spread + self.between * self.dim * mean.square()

    @property
    def num_latents(self) -> int:
        return self.dim

    def diagonal(self) -> Float[Tensor, "*batch K"]:
        tau = self.within * ((self.dim - 1) / self.dim) + self.between / self.dim
        return tau.unsqueeze(-1).expand(*tau.shape, self.dim)

    def logdet(self) -> Float[Tensor, "*batch"]:
        return (self.dim - 1) * self.within.log() + self.between.log()

    def unwhiten(self, noise: Float[Tensor, "*rows K"]) -> Float[Tensor, "*rows K"]:
        mean = noise.mean(-1, keepdim=True)
        within, between = self.within.unsqueeze(-1), self.between.unsqueeze(-1)
        return (noise - mean) * within.rsqrt() + mean * between.rsqrt()


class EquicorrelatedPrior(AbstractGaussianPrior):
    r"""Unit-variance Gaussian latents, every pair of the same fixed correlation.

    .. math:: z \sim \mathcal N(m, ρ \mathbf 1 \mathbf 1^\top + (1 - ρ) I), \qquad
        ρ \in \left(-\tfrac 1{K-1}, 1\right)

    Args:
        dim: Number of latents :math:`K`.
        correlation: :math:`ρ`, dimensionless.
        loc: Mean :math:`m`: a number or ``(K,)`` tensor, fixed, or an ``nn.Parameter``, learned.

    Raises:
        ConfigError: ``prior.infeasible_correlation`` outside the interval above (K latents cannot
            all be anti-correlated beyond -1/(K-1)); ``prior.bad_dim``, ``prior.bad_loc``.

    Example:
        >>> EquicorrelatedPrior(2, correlation=0.5)().precision.diagonal()
        tensor([1.3333, 1.3333]...)

    Source:
        Rao (1973), *Linear Statistical Inference and Its Applications*, problem 1.1 (the inverse
        and determinant of an intra-class correlation matrix).
    """

    def __init__(self, dim: int, *, correlation: float, loc: float | Tensor = 0.0) -> None:
        super().__init__(dim, loc)
        bound = -1.0 if dim < 3 else -1 / (dim - 1)
        if not bound < correlation < 1:
            raise ConfigError(
                f"{dim} latents cannot all have pairwise correlation {correlation!r}: expected "
                f"-1/(K-1) = {bound:.6g} < correlation < 1. For stronger negative correlation use "
                "pairs: BlockDiagonalPrior, or GraphLaplacianPrior with negative weights.",
                code="prior.infeasible_correlation",
                context={"correlation": correlation, "bound": bound, "dim": dim},
            )
        rho = Fraction(correlation)  # exact, so that both eigenvalues are correctly rounded
        self.register_buffer("between", torch.tensor(float(1 / (1 + (dim - 1) * rho))))
        self.register_buffer("within", torch.tensor(float(1 / (1 - rho))))

    @property
    def correlation(self) -> float:
        """ρ; of replicas, the first one's."""
        return 1 - 1 / self.within.flatten()[0].item()

    def precision(self) -> TwoLevelPrecision:
        return TwoLevelPrecision(self.between, self.within, self.dim)
