"""Noise that is not the same for every row: at least a floor, and heavy-tailed above it."""

import torch
from jaxtyping import Float
from pyro import distributions as dist
from torch import Tensor, nn

from priors._prior import check_positive
from vsae.likelihood import as_noise


class RowNoise(nn.Module):
    r"""A noise per row, never below a floor: ``noise ~ Pareto(floor, shape)``.

    .. math:: p(σ_b) = α σ_0^α σ_b^{-α-1}, \quad σ_b \ge σ_0, \qquad
        \hat σ_b^2 = \max\Big(σ_0^2,\ \frac{\mathbb E_q \lVert x_b - \hat x_b \rVert^2}{d + α + 1}
        \Big)

    As a latent of the model, site ``noise`` (B,), it makes the likelihood robust: rows that the
    dictionary cannot explain yet do not force latents to fire, and the gradient of a row is
    weighted by :math:`1/σ_b^2`. The second formula maximises the ELBO given the codes.

    Args:
        floor: :math:`σ_0`, in (normalised) activation units: a number, or a module such as
            :class:`vsae.AnnealedNoise`.
        shape: :math:`α`; a large one believes that rows are at the floor.

    Raises:
        ConfigError: ``noise.scale`` for a floor, ``prior.bad_shape`` for a shape that is not
            positive.

    Example:
        >>> RowNoise(0.1)().log_prob(torch.tensor(0.2)).exp().item()  # 0.1 / 0.2²
        2.5...

    Source:
        A scale mixture of normals, as in Andrews & Mallows (1974), JRSS B 36:99, bounded below so
        that a row that is explained exactly is no singularity.
    """

    def __init__(self, floor: float | nn.Module, *, shape: float = 1.0) -> None:
        super().__init__()
        self.floor, self.shape = as_noise(floor), check_positive("shape", shape)

    def forward(self) -> dist.Pareto:
        floor = self.floor()
        return dist.Pareto(floor, torch.full_like(floor, self.shape), validate_args=False)

    def extra_repr(self) -> str:
        return f"shape={self.shape}"


def fitted_noise(
    prior: dist.Pareto, square: Float[Tensor, "*rows"], d_model: int
) -> Float[Tensor, "*rows"]:
    """The noise of each row that maximises the ELBO, given its expected squared error."""
    return (square / (d_model + prior.alpha + 1)).sqrt().maximum(prior.scale)
