"""What a latent stands for, as the mean of the rows on which it fires."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from vsae.metrics.firing import firings
from vsae.metrics.hierarchy import check_rows, check_shapes


def concept_vectors(x: Tensor, codes: Tensor) -> Float[Tensor, "K d"]:
    r"""Mean activation of the rows on which each latent fires; a row of nan if it never does.

    Whiten and centre ``x`` first for Park's geometry: the claim is about the causal inner product.

    Args:
        x: ``(rows, d)``.
        codes: ``(rows, K)``.

    Raises:
        ShapeError: ``hierarchy.shape``.
        DataError: ``data.empty``, ``data.nonfinite``.

    Example:
        >>> x, codes = torch.tensor([[2.0], [4.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        >>> concept_vectors(x, codes).tolist()
        [[3.0], [nan]]

    Source:
        After Park et al. (2024), 2406.01506, §3 (there: a linear discriminant's direction).
    """
    fires, x = firings(codes), check_rows("x", x)
    check_shapes([("x", x, (len(codes), None))])
    total = torch.from_numpy(fires.T @ x.double().numpy())
    count = torch.from_numpy(fires.sum(0))[:, None]
    return torch.where(count > 0, total / count, math.nan)
