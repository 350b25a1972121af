"""How many of the true features are among the atoms."""

import math

from scipy.special import betainc
from torch import Tensor

from vsae.metrics.matching import absolute_cosines, check_threshold


def recovered_share(atoms: Tensor, features: Tensor, *, threshold: float = 0.9) -> float:
    r"""Share of features that some atom points along: :math:`\max_k |\cos(d_k, t_f)| >` threshold.

    The cosine is absolute, as in :func:`vsae.metrics.mean_correlation_coefficient`: an atom and its
    negation are the same line. Several features may share an atom where their own cosine allows
    it. Chance is :func:`vsae.metrics.random_share`; that of random rows of the data is greater:
    pass them as atoms.

    Args:
        atoms: Decoder rows ``(K, d)``, of any norm.
        features: True directions ``(F, d)``.
        threshold: Of ``|cos|``; to be exceeded.

    Raises:
        ShapeError: ``recovery.shape``.
        ConfigError: ``recovery.threshold`` unless in [0, 1].
        EmptyDataError: ``data.empty`` without atoms or features.

    Example:
        >>> import torch
        >>> recovered_share(torch.tensor([[-3.0, 1.0], [1.0, 1.0]]), torch.eye(2))
        0.5
    """
    check_threshold(threshold)
    return float((absolute_cosines(atoms, features).amax(0) > threshold).double().mean())


def random_share(count: int, dim: int, *, threshold: float = 0.9) -> float:
    r"""Chance that one of ``count`` random directions lies within ``|cos| > t`` of a given one.

    .. math:: 1 - (1 - p)^{n}, \qquad p = P(|\cos| > t) = I_{1 - t^2}(\tfrac{d - 1}{2}, \tfrac12)

    with the regularised incomplete beta function :math:`I`; directions independent and uniform on
    the sphere. It is the chance level of a share of features recovered, or of atoms reproduced.

    Args:
        count: n, the number of directions.
        dim: d, of the space.
        threshold: t.

    Raises:
        ConfigError: ``recovery.threshold`` unless in [0, 1].

    Example:
        >>> round(random_share(1, 3, threshold=0.5), 12)  # Archimedes: cos is uniform in 3 d
        0.5
    """
    check_threshold(threshold)
    inside = float(betainc((dim - 1) / 2, 0.5, 1 - threshold**2)) if dim > 1 else threshold < 1
    # 1 - (1 - p)ⁿ, where p may be far below the rounding of 1
    return -math.expm1(count * math.log1p(-inside)) if inside < 1 else float(count > 0)
