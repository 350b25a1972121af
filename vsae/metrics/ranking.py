"""The nearest rows of each row, without a matrix of all pairs."""

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn.functional import normalize

from vsae.batches import check_finite
from vsae.errors import ShapeError

BLOCK = 1 << 24  # similarities held at a time


def nearest_rows(
    codes: Float[Tensor, "N K"], k: int, *, generator: Generator
) -> Int[Tensor, "N k"]:
    """The ``k`` rows of greatest cosine to each row, nearest first, the row itself left out.

    Equal cosines are taken in random order: sparse codes share no
    latent with most others, and rows in reading order are near in meaning, so that ties broken by
    number would be found to be right. A code of zeros is as near to all: its ranking is random.

    Args:
        codes: ``(N, K)``.
        k: Length of each ranking, ``1 <= k < N``.
        generator: The source of randomness, on the CPU; the global one is never used.

    Raises:
        ShapeError: ``retrieval.shape``.
        NonFiniteDataError: ``data.nonfinite``.

    Example:
        >>> codes = torch.tensor([[1.0, 0.0], [2.0, 0.1], [0.0, 3.0]])
        >>> nearest_rows(codes, 1, generator=torch.Generator()).flatten().tolist()
        [1, 0, 1]
    """
    if codes.dim() != 2 or not 0 < k < len(codes):
        raise ShapeError(
            f"rankings need codes (N, K) and 0 < k < N: got {tuple(codes.shape)} and {k=}.",
            code="retrieval.shape",
        )
    check_finite(codes)
    order = torch.randperm(len(codes), generator=generator)
    unit = normalize(codes.detach().cpu(), dim=-1)[order]
    found = torch.empty(len(codes), k, dtype=torch.int64)
    step = max(BLOCK // len(codes), 1)
    for start in range(0, len(codes), step):
        near = unit[start : start + step] @ unit.mT
        near.diagonal(start).fill_(-torch.inf)
        # whichever of equal columns is taken, the rows in them were drawn
        found[order[start : start + step]] = order[near.topk(k, dim=-1).indices]
    return found
