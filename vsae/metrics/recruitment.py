"""Which fine latents a coarse latent goes with, and how few they are."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from vsae.batches import check_finite
from vsae.errors import EmptyDataError, ShapeError
from vsae.metrics.nulls import AgainstNull, against_null, dealt_out


@dataclass(frozen=True)
class Recruitment:
    """How fine latents fire given each coarse one.

    Attributes:
        probability: :math:`P_{ij}`, fine ``i`` given coarse ``j``, (K_fine, K_coarse); nan for a
            coarse latent that never fires.
        lift: :math:`P_{ij} / P_i`; nan too for a fine latent that never fires.
        effective: Effective number of fine latents recruited by each coarse one, (K_coarse,).
        mean_effective: Its mean over coarse latents that fire, against rows dealt out anew. *Below*
            the null's range: recruiting is selective.
    """

    probability: Float[Tensor, "f c"]
    lift: Float[Tensor, "f c"]
    effective: Float[Tensor, " c"]
    mean_effective: AgainstNull


def recruitment(
    fine: Tensor,
    coarse: Tensor,
    *,
    generator: Generator,
    draws: int = 100,
) -> Recruitment:
    r"""What a coarse latent says of the fine ones, in firing.

    .. math:: P_{ij} = P(z_i > 0 \mid z_j > 0), \qquad \mathrm{lift}_{ij} = P_{ij} / P_i, \qquad
        n_j = \exp H\big(\mathrm{lift}_{:j} / \textstyle\sum_i \mathrm{lift}_{ij}\big)

    Independent levels have lift 1 and recruit every fine latent that fires. The null permutes the
    rows of the coarse codes, which keeps both levels as they are.

    Args:
        fine: Codes ``(rows, K_fine)`` of the finer level; a latent fires where its code is not 0.
        coarse: ``(rows, K_coarse)``, those of the coarser one on the same rows.
        generator: The source of randomness, on the CPU.
        draws: Of the null model.

    Raises:
        ShapeError: ``structure.shape``.
        NonFiniteDataError: ``data.nonfinite``: a code that is not a number is not one that fires.
        EmptyDataError: ``data.empty`` if no row has an active latent in both.
        ConfigError: ``nulls.draws``.

    Example:
        >>> fine = torch.eye(4).repeat(25, 1)
        >>> coarse = fine @ torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
        >>> found = recruitment(fine, coarse, generator=Generator())
        >>> found.effective.tolist(), found.mean_effective.beyond
        ([2.0, 2.0], True)
    """
    if fine.dim() != 2 or coarse.dim() != 2 or len(fine) != len(coarse):
        raise ShapeError(
            f"codes must be (rows, K) of the same rows: got {tuple(fine.shape)} and "
            f"{tuple(coarse.shape)}.",
            code="structure.shape",
        )
    check_finite(fine)
    check_finite(coarse)
    on, above = (fine != 0).double(), (coarse != 0).double()
    if not bool(on.any() and above.any()):
        raise EmptyDataError("no latent fires: got 0, expected >= 1.", code="data.empty")
    probability, lift = _lift(on, above)
    effective = _effective(lift)
    return Recruitment(
        probability,
        lift,
        effective,
        against_null(
            float(effective.nanmean()),
            lambda source: float(_effective(_lift(on, dealt_out(above, source))[1]).nanmean()),
            draws=draws,
            generator=generator,
        ),
    )


def _lift(on: Tensor, above: Tensor) -> tuple[Tensor, Tensor]:
    together, rows = on.mT @ above, above.sum(0)
    probability = together / torch.where(rows > 0, rows, torch.nan)
    rate = on.mean(0)[:, None]
    return probability, probability / torch.where(rate > 0, rate, torch.nan)


def _effective(lift: Tensor) -> Tensor:
    """exp of the entropy of each column, without the fine latents that never fire."""
    share = lift.nan_to_num(nan=0.0)
    total = share.sum(0)
    share = share / torch.where(total > 0, total, torch.nan)
    return torch.special.entr(share).sum(0).exp()
