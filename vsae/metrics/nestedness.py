"""Whether fine clusters lie inside coarse ones."""

import torch
from torch import Generator, Tensor

from vsae.errors import ConfigError, EmptyDataError, ShapeError
from vsae.metrics.nulls import AgainstNull, against_null, dealt_out


def nestedness(
    fine: Tensor,
    coarse: Tensor,
    *,
    generator: Generator,
    share: float = 1.0,
    draws: int = 200,
) -> AgainstNull:
    r"""Share of fine clusters contained in one coarse cluster, against coarse labels dealt anew.

    .. math:: \frac1F \#\Big\{f : \max_c \frac{|f \cap c|}{|f|} \ge \mathrm{share}\Big\}

    A fine cluster of one member is contained in anything: the null says how much of the value is
    that. One coarse cluster contains everything: then value and null are both 1.

    Args:
        fine: ``(n,)`` integers, the fine cluster of each row, or of each latent; -1 for one in
            none.
        coarse: The coarse one, of the same members; likewise.
        generator: The source of randomness, on the CPU.
        share: Of a fine cluster's members that must agree; 1 is "fully contained", as published.
        draws: Of the null model, which permutes the coarse labels over the members.

    Raises:
        ShapeError: ``structure.shape``.
        ConfigError: ``nestedness.share`` unless in (½, 1]; ``nulls.draws``.
        EmptyDataError: ``data.empty`` if no member is in clusters of both kinds.

    Example:
        >>> fine, coarse = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([7, 7, 7, 7, 8, 9])
        >>> nestedness(fine, coarse, generator=Generator()).value
        0.666...
    """
    if fine.dim() != 1 or fine.shape != coarse.shape:
        raise ShapeError(
            f"labels must be (n,) both: got {tuple(fine.shape)} and {tuple(coarse.shape)}.",
            code="structure.shape",
        )
    if not 0.5 < share <= 1:
        raise ConfigError(
            f"the share of a cluster that must agree: got {share}, expected (0.5, 1].",
            code="nestedness.share",
        )
    both = (fine >= 0) & (coarse >= 0)
    if not bool(both.any()):
        raise EmptyDataError(
            "no member is in a fine and a coarse cluster: got 0, expected >= 1.", code="data.empty"
        )
    members = fine[both].unique(return_inverse=True)[1]
    around = coarse[both].unique(return_inverse=True)[1]
    return against_null(
        _contained(members, around, share),
        lambda source: _contained(members, dealt_out(around, source), share),
        draws=draws,
        generator=generator,
    )


def _contained(fine: Tensor, coarse: Tensor, share: float) -> float:
    shape = (int(fine.max()) + 1, int(coarse.max()) + 1)
    counts = torch.bincount(fine * shape[1] + coarse, minlength=shape[0] * shape[1]).view(shape)
    return float((counts.amax(1) >= share * counts.sum(1)).double().mean())
