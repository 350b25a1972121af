"""How often and how strongly latents fire. Density, death and frequency are three things."""

import torch
from jaxtyping import Float
from torch import Tensor

from vsae.errors import EmptyDataError


def _fires(codes: Tensor, threshold: float) -> Tensor:
    if not codes.shape[-2]:
        raise EmptyDataError("codes have no rows: got 0, expected >= 1.", code="data.empty")
    return codes.abs() > threshold


def l0(codes: Float[Tensor, "*batch rows K"], *, threshold: float = 0.0) -> Float[Tensor, "*batch"]:
    r"""Mean number of active latents per row, :math:`\frac1N \sum_{nk} 1[|c_{nk}| > τ]`.

    Args:
        codes: Codes, of the posterior mean unless stated; rectified ones need no threshold.
        threshold: τ, in the units of the codes; identity links give no exact zeros and need one.

    Example:
        >>> l0(torch.tensor([[0.0, 2.0], [1.0, 3.0]])).item()
        1.5
    """
    return _fires(codes, threshold).sum(-1, dtype=torch.float64).mean(-1)


def activation_frequency(
    codes: Float[Tensor, "*batch rows K"], *, threshold: float = 0.0
) -> Float[Tensor, "*batch K"]:
    r"""Share of rows on which each latent is active, :math:`\frac1N \sum_n 1[|c_{nk}| > τ]`."""
    return _fires(codes, threshold).double().mean(-2)


def activation_value(
    codes: Float[Tensor, "*batch rows K"], *, threshold: float = 0.0
) -> Float[Tensor, "*batch K"]:
    """Mean code of each latent over the rows on which it is active; 0 if there are none."""
    fires = _fires(codes, threshold)
    total = torch.where(fires, codes, 0.0).sum(-2, dtype=torch.float64)
    return total / fires.sum(-2).clamp(min=1)


def dead_fraction(
    codes: Float[Tensor, "*batch rows K"], *, threshold: float = 0.0
) -> Float[Tensor, "*batch"]:
    """Share of latents *never* active on these rows: not ``1 - mean frequency``, which is density.

    Example:
        >>> dead_fraction(torch.tensor([[0.0, 2.0], [0.0, 0.0]])).item()
        0.5
    """
    return 1 - _fires(codes, threshold).any(-2).double().mean(-1)


def density(
    codes: Float[Tensor, "*batch rows K"], *, threshold: float = 0.0
) -> Float[Tensor, "*batch"]:
    """Share of the latents active on a row, ``L0 / K``: the mean activation frequency.

    Example:
        >>> density(torch.tensor([[0.0, 2.0], [0.0, 0.0]])).item()
        0.25
    """
    return l0(codes, threshold=threshold) / codes.shape[-1]


def document_dead_percent(
    codes: Float[Tensor, "*batch rows K"], *, threshold: float = 0.0
) -> Float[Tensor, "*batch"]:
    """What *From Organized Shelves to Layered Catalogs* tabulates as "Dead %": it is not death.

    Its three rows are ``100 (1 - mean activation frequency)``, hence ``100 (1 - density)``: with
    92.8 % of latents never active the median frequency, which it also gives, would be 0. For
    comparison with that table only; what is dead is :func:`dead_fraction`.

    Example:
        >>> codes = torch.tensor([[0.0, 2.0], [3.0, 0.0]])
        >>> document_dead_percent(codes).item(), dead_fraction(codes).item()
        (50.0, 0.0)
    """
    return 100 * (1 - density(codes, threshold=threshold))


def active_units(
    mean: Float[Tensor, "*batch rows K"], variance: Float[Tensor, "*batch rows K"]
) -> Float[Tensor, "*batch"]:
    r"""Number of latents whose posterior mean says something about the row.

    Latent :math:`k` counts if :math:`\mathrm{Var}_n\, μ_{nk} > 10^{-2}\, \frac1N \sum_n s_{nk}^2`,
    signal against noise, so that the units of the codes do not matter. A point posterior has no
    noise: there a latent counts if its mean varies at all.

    Source:
        After Burda et al. (2016), *Importance Weighted Autoencoders*, §5.2 (absolute threshold).
    """
    signal = mean.double().var(-2, correction=0)
    return (signal > 1e-2 * variance.double().mean(-2)).sum(-1).double()
