"""Nesterov's momentum around any step that improves a code."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Code = Float[Tensor, "*rows K"]


def accelerated(step: Callable[[Tensor], Tensor], start: Code, iterations: int) -> Code:
    r"""The code after some steps, each from a point ahead of the last two.

    .. math:: z_n = \text{step}(y_n), \quad t_{n+1} = \tfrac12 \big(1 + \sqrt{1 + 4 t_n^2}\big),
        \quad y_{n+1} = z_n + \frac{t_n - 1}{t_{n+1}} (z_n - z_{n-1}), \quad t_1 = 1

    Args:
        step: A proximal or projected gradient step, of the shape of its argument.
        start: :math:`y_1 = z_0`, in the units of the codes.
        iterations: How many steps.

    Example:
        >>> found = accelerated(lambda y: y - 0.5 * (y - 3.0), torch.zeros(1), 60)
        >>> round(found.item(), 3)
        3.0

    Source:
        Beck & Teboulle (2009), *A fast iterative shrinkage-thresholding algorithm*, SIAM J. Imaging
        Sciences 2:183.
    """
    z = ahead = start
    momentum = 1.0
    for _ in range(iterations):
        new = step(ahead)
        after = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        ahead = torch.lerp(z, new, 1 + (momentum - 1) / after)
        z, momentum = new, after
    return z
