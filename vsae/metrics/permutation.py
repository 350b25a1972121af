"""The exact mean and variance of a sum over a uniformly random assignment."""

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor


def permutation_moments(
    blocks: Iterable[Float[Tensor, "_ P"]], copies: Int[Tensor, " P"]
) -> tuple[float, float]:
    r"""Mean and variance of :math:`\sum_i a_{iπ(i)}` over uniform permutations π.

    .. math:: \mathrm E = \frac1n \sum_{ij} a_{ij}, \qquad \mathrm{Var} = \frac1{n - 1} \sum_{ij}
        (a_{ij} - \bar a_{i\cdot} - \bar a_{\cdot j} + \bar a)^2

    Args:
        blocks: The matrix, some rows at a time, so that it need not be held; equal columns once.
        copies: How often each column stands in the ``n × n`` matrix; the sum is ``n``.

    Example:
        >>> permutation_moments([torch.eye(2)], torch.ones(2, dtype=torch.int64))
        (1.0, 1.0)

    Source:
        Hoeffding (1951), *A combinatorial central limit theorem*, theorem 2.
    """
    times = copies.double()
    n = float(times.sum())
    columns, squares, rows = torch.zeros_like(times), 0.0, 0.0
    for block in (block.double() for block in blocks):
        columns += block.sum(0)
        squares += float((block.square() @ times).sum())
        rows += float((block @ times / n).square().sum())
    if n == 0:
        return 0.0, 0.0
    grand = float(columns @ times) / n**2
    spread = squares - n * rows - float(columns.square() @ times) / n + (n * grand) ** 2
    return n * grand, max(spread, 0.0) / max(n - 1, 1)  # rounding only; n = 1 does not vary
