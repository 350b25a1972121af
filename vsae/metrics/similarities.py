"""How like each latent is to each feature: by direction, or by the rows on which it fires."""

import torch
from jaxtyping import Float
from torch import Tensor

from vsae.metrics.firing import firings
from vsae.metrics.hierarchy import check_shapes
from vsae.metrics.matching import absolute_cosines


def cosine_similarities(atoms: Tensor, features: Tensor) -> Float[Tensor, "K F"]:
    """``|cos|`` of each atom with each feature.

    Args:
        atoms: ``(K, d)``.
        features: ``(F, d)``.

    Raises:
        ShapeError: ``recovery.shape``.

    Example:
        >>> cosine_similarities(torch.tensor([[0.0, -2.0]]), torch.eye(2)).tolist()
        [[0.0, 1.0]]
    """
    return absolute_cosines(atoms, features).cpu()


def f1_similarities(codes: Tensor, truth: Tensor) -> Float[Tensor, "K F"]:
    r"""F1 of each latent as a detector of each feature, :math:`2 |A \cap B| / (|A| + |B|)`.

    A fires where the code is not 0, B is on where the truth is above 0; 0 if neither ever is. A
    match chosen by this measure flatters whatever is then measured on the same rows: choose it on
    others. Chance: a latent firing on random rows at rate r has F1 ≈ 2rq / (r + q) for rate q.

    Args:
        codes: ``(rows, K)``.
        truth: ``(rows, F)``; labels of words: 1 for every node above the word.

    Raises:
        ShapeError: ``hierarchy.shape``.
        DataError: ``data.empty``, ``data.nonfinite``.

    Example:
        >>> f1_similarities(torch.tensor([[1.0], [1.0]]), torch.tensor([[1.0], [0.0]])).item()
        0.666...
    """
    check_shapes([("truth", truth, (len(codes), None))])
    fires, on = firings(codes), firings(truth.clamp(min=0), "truth")
    both = torch.from_numpy((fires.T @ on).toarray())
    total = torch.from_numpy(fires.sum(0)[:, None] + on.sum(0))
    return torch.where(total > 0, 2 * both / total, 0.0)
