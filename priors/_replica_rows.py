"""Rows of codes as one ``(R, N, K)`` array, whatever their batch shape, and back."""

import torch
from torch import Size, Tensor


def flat_rows(z: Tensor, replicas: int | None) -> tuple[Tensor, Size]:
    """Codes ``(*batch, K)`` as ``(1, N, K)``; replicas' ``(*batch, R, B, K)`` as ``(R, N, K)``.

    Also the shape that :func:`unflat_rows` needs. Fewer dimensions are broadcast first.
    """
    if replicas is None:
        return z.reshape(1, z.shape[:-1].numel(), z.shape[-1]), z.shape[:-1]
    z = z.expand(torch.broadcast_shapes(z.shape, (replicas, 1, z.shape[-1])))
    rows = z.movedim(-3, 0)
    count = rows.shape[1:-1].numel()
    return rows.reshape(replicas, count, z.shape[-1]), rows.shape[:-1]


def unflat_rows(values: Tensor, shape: Size, replicas: int | None) -> Tensor:
    """``(R, N)`` numbers, or ``(R, N, K)`` codes, in the batch shape the rows came in."""
    out = values.reshape(shape + values.shape[2:])
    return out if replicas is None else out.movedim(0, len(shape) - 2)
