"""Products with a lower-triangular matrix that leave out its zeros."""

import torch
from jaxtyping import Float
from torch import Tensor

from priors.replicas import rows_times

WHOLE = 512  # up to this size one product is faster than its parts


def rows_times_lower(
    rows: Float[Tensor, "*rows K"], lower: Float[Tensor, "*batch K K"]
) -> Float[Tensor, "*rows K"]:
    """``rows_times(rows, lower)`` for a lower-triangular matrix, by halves.

    Two levels down, 5/8 of the multiplications are left, forward and backward.

    Example:
        >>> rows_times_lower(torch.ones(1, 2), torch.tensor([[1.0, 0.0], [2.0, 3.0]])).tolist()
        [[3.0, 3.0]]
    """
    size = lower.shape[-1]
    if size <= WHOLE:
        return rows_times(rows, lower)
    halves = [size // 2, size - size // 2]
    left, right = rows.split(halves, -1)
    top, bottom = lower.split(halves, -2)
    corner, last = bottom.split(halves, -1)
    first = rows_times_lower(left, top[..., : halves[0]]) + rows_times(right, corner)
    return torch.cat([first, rows_times_lower(right, last)], -1)
