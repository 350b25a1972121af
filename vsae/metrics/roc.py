"""The area under the ROC curve, exactly."""

import math

from jaxtyping import Bool, Shaped
from torch import Tensor

from vsae.batches import check_finite


def auc(scores: Shaped[Tensor, " rows"], labels: Bool[Tensor, " rows"]) -> float:
    r"""Probability that a positive row scores above a negative one, ties counting half.

    .. math:: \mathrm{AUC} = \frac{\sum_{i:\,y_i = 1} R_i - n_1 (n_1 + 1)/2}{n_1 n_0}

    with midranks :math:`R_i`. Chance is 1/2. nan unless both classes are there.

    Args:
        scores: The higher, the more likely positive; any monotone scale.
        labels: Which rows are positive.

    Raises:
        NonFiniteDataError: ``data.nonfinite``.

    Example:
        >>> import torch
        >>> auc(torch.tensor([0.1, 0.4, 0.4, 0.8]), torch.tensor([False, False, True, True]))
        0.875

    Source:
        Mann & Whitney (1947); Hanley & McNeil (1982).
    """
    check_finite(scores[:, None])
    positive, rows = int(labels.sum()), len(labels)
    if positive in (0, rows):
        return math.nan
    _, place, count = scores.unique(return_inverse=True, return_counts=True)
    rank = count.double().cumsum(0) - (count.double() - 1) / 2
    wins = float(rank[place][labels].sum()) - positive * (positive + 1) / 2
    return wins / (positive * (rows - positive))
