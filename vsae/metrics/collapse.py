"""How much of the data a Gaussian prior lets through."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from priors._prior import check_positive
from vsae.errors import EmptyDataError


def surviving_components(
    x: Float[Tensor, "*batch rows d"], *, noise: float, beta: float = 1.0
) -> Int[Tensor, "*batch"]:
    r"""How many principal components a linear β-VAE of noise σ keeps; the others collapse.

    .. math:: \#\{j : λ_j > β σ^2\}, \qquad λ_j \text{ the eigenvalues of } \mathrm{Cov}(x)

    At the optimum of the β-ELBO a component of variance λ is coded with a relative error βσ²/λ, and
    not at all if that exceeds 1. "MSE + α·KL" is σ² = α/2, β = 1: components under α/2 are lost.

    This is said of decoders whose scale is free: atoms of any norm, or a learned prior scale. Unit
    atoms under a fixed standard normal prior have no such threshold: a point posterior then shrinks
    all components alike, by ``1 / (1 + βσ²)``.

    Args:
        x: Activations, in the units the model works in.
        noise: σ, in the same units.
        beta: Weight of the KL.

    Raises:
        ConfigError: ``prior.bad_noise``, ``prior.bad_beta`` unless positive and finite.
        EmptyDataError: ``data.empty`` without rows.

    Example:
        >>> x = torch.tensor([[3.0, 0.5], [-3.0, 0.5], [3.0, -0.5], [-3.0, -0.5]])  # λ = 9, 0.25
        >>> surviving_components(x, noise=0.6).item(), surviving_components(x, noise=0.4).item()
        (1, 2)

    Source:
        Lucas et al. (2019), *Don't Blame the ELBO!*, 1911.02469, §4; Tipping & Bishop (1999).
    """
    if not x.shape[-2]:
        raise EmptyDataError("activations have no rows: got 0, expected >= 1.", code="data.empty")
    bar = check_positive("beta", beta) * check_positive("noise", noise) ** 2
    centred = x.double() - x.double().mean(-2, keepdim=True)
    variances = torch.linalg.svdvals(centred).square() / x.shape[-2]
    return (variances > bar).sum(-1)
