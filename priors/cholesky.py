"""A Gaussian whose whole precision is learned."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor, nn

from priors._gaussian import AbstractPrecision
from priors._prior import AbstractGaussianPrior, check_positive
from priors.triangular import rows_times_lower


@dataclass(frozen=True)
class CholeskyPrecision(AbstractPrecision):
    """The operator ``(UD)(UD)ᵀ``, ``U`` unit lower-triangular and ``D`` a positive diagonal.

    Nothing is factorised or multiplied out: the product ``Λ`` has the square of the factor's
    condition number, and a density computed from it loses half the digits.
    """

    unit_lower: Float[Tensor, "*batch K K"]
    log_diagonal: Float[Tensor, "*batch K"]

    @cached_property
    def factor(self) -> Float[Tensor, "*batch K K"]:
        """``UD``: the diagonal scales the factor, K² numbers, and not the rows."""
        return self.unit_lower * self.log_diagonal.exp().unsqueeze(-2)

    def quadratic(self, z: Float[Tensor, "*rows K"]) -> Float[Tensor, "*out"]:
        return rows_times_lower(z, self.factor).square().sum(-1)

    @property
    def num_latents(self) -> int:
        return self.log_diagonal.shape[-1]

    def diagonal(self) -> Float[Tensor, "*batch K"]:
        return self.factor.square().sum(-1)

    def logdet(self) -> Float[Tensor, "*batch"]:
        return 2 * self.log_diagonal.sum(-1)

    def unwhiten(self, noise: Float[Tensor, "*rows K"]) -> Float[Tensor, "*rows K"]:
        return rows_solve((-self.log_diagonal).exp() * noise, self.unit_lower)


def rows_solve(
    rows: Float[Tensor, "*rows K"], unit_lower: Float[Tensor, "*batch K K"]
) -> Float[Tensor, "*rows K"]:
    """The rows ``z`` with ``z @ unit_lower = rows``; the inverse of ``rows_times``."""
    matrix = unit_lower if unit_lower.dim() == 2 else unit_lower.squeeze(-3)
    flat = rows.reshape(-1, rows.shape[-1]) if matrix.dim() == 2 else rows
    solved = torch.linalg.solve_triangular(
        matrix, flat, upper=False, left=False, unitriangular=True
    )
    return solved.view(rows.shape)


class CholeskyPrior(AbstractGaussianPrior):
    r"""A Gaussian over codes whose full precision is learned through its Cholesky factor.

    .. math:: z \sim \mathcal N(m, Λ^{-1}), \quad Λ = LL^\top, \quad L = UD, \qquad
        -\log p(z) = \tfrac12 \lVert L^\top (z - m)\rVert^2 - \sum_k \log D_{kk} + \tfrac K2 \log 2π

    Learning the factor of the *precision* keeps a step free of factorisations: the quadratic is
    one ``(B, K) @ (K, K)`` product and the determinant is a sum. With a linear decoder and no
    sparsity this prior identifies a subspace only, never a dictionary.

    Args:
        dim: Number of latents :math:`K`; :math:`K^2` numbers are stored.
        scale: Initial standard deviation of each latent, in the units of the codes (those of the
            activations, since decoder atoms have unit norm).
        loc: Mean :math:`m`: a number or ``(K,)`` tensor, fixed, or an ``nn.Parameter``, learned.

    Raises:
        ConfigError: ``prior.bad_dim``, ``prior.bad_scale``, ``prior.bad_loc``.

    Example:
        >>> CholeskyPrior(3, scale=2.0)().quadratic(torch.tensor([2.0, 0.0, 0.0])).item()
        1.0

    Source:
        Rasmussen & Williams (2006), *Gaussian Processes for Machine Learning*, eq. A.23;
        Pourahmadi (1999), *Biometrika* 86:677 (the unconstrained unit-lower and diagonal form).
    """

    def __init__(self, dim: int, *, scale: float = 1.0, loc: float | Tensor = 0.0) -> None:
        super().__init__(dim, loc)
        self.log_diagonal = nn.Parameter(-torch.full((dim,), check_positive("scale", scale)).log())
        self.strict_lower = nn.Parameter(torch.zeros(dim, dim))

    def precision(self) -> CholeskyPrecision:
        unit = torch.eye(self.dim, dtype=self.strict_lower.dtype, device=self.strict_lower.device)
        return CholeskyPrecision(self.strict_lower.tril(-1) + unit, self.log_diagonal)
