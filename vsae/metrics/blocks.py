"""Whether codes that belong together are correlated: heat-maps, and one score of them."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from vsae.errors import EmptyDataError, ShapeError
from vsae.metrics.nulls import AgainstNull, against_null, dealt_out


def code_correlations(codes: Float[Tensor, "rows K"]) -> Float[Tensor, "K K"]:
    r"""Correlations between latents, :math:`C = \mathrm{corr}(Z)`, over rows, in float64.

    nan in the rows and columns of latents that do not vary.

    Args:
        codes: Of one level, at least two rows.

    Raises:
        EmptyDataError: ``data.empty``.

    Example:
        >>> code_correlations(torch.tensor([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]])).round(decimals=9)
        tensor([[1., 1.],
                [1., 1.]], dtype=torch.float64)
    """
    if len(codes) < 2:
        raise EmptyDataError(
            f"correlations of {len(codes)} rows: expected at least 2.", code="data.empty"
        )
    centred = codes.double() - codes.double().mean(0)
    return _unit(centred.mT) @ _unit(centred.mT).mT


def _unit(rows: Tensor) -> Tensor:
    size = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows / torch.where(size > 0, size, torch.nan)


def block_score(
    correlations: Tensor,
    labels: Tensor,
    *,
    generator: Generator,
    draws: int = 200,
) -> AgainstNull:
    r"""Mean correlation within clusters minus that between them, against clusters dealt out anew.

    .. math:: \mathrm{mean}\{C_{ij} : i \ne j,\ c_i = c_j\} -
        \mathrm{mean}\{C_{ij} : c_i \ne c_j\}

    Pairs of which one latent does not vary are left out. The null deals the labels out to the
    latents at random, which keeps the sizes of the clusters; its mean is 0.

    Args:
        correlations: ``(K, K)``, of :func:`code_correlations`.
        labels: ``(K,)`` integers, the cluster of each latent.
        generator: The source of randomness, on the CPU.
        draws: Of the null model.

    Raises:
        ShapeError: ``structure.shape``.
        ConfigError: ``nulls.draws``.

    Example:
        >>> blocks = torch.block_diag(torch.ones(2, 2), torch.ones(2, 2)).double()
        >>> block_score(blocks, torch.tensor([0, 0, 1, 1]), generator=Generator()).value
        1.0
    """
    if correlations.dim() != 2 or correlations.shape != (len(labels), len(labels)):
        raise ShapeError(
            f"correlations must be (K, K) and labels (K,): got {tuple(correlations.shape)} and "
            f"{tuple(labels.shape)}.",
            code="structure.shape",
        )
    return against_null(
        _score(correlations, labels),
        lambda source: _score(correlations, dealt_out(labels, source)),
        draws=draws,
        generator=generator,
    )


def _score(correlations: Tensor, labels: Tensor) -> float:
    same = labels[:, None] == labels
    apart = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    known = correlations.isfinite() & apart
    return float(correlations[same & known].mean() - correlations[~same & known].mean())
