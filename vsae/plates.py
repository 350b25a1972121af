"""The two plates of every model and guide: rows of a batch, and replicas of a model."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pyro
from torch import Size, Tensor


@contextmanager
def plates(x: Tensor, batch_shape: Size) -> Iterator[None]:
    """``rows`` at dim -1; ``replicas`` at dim -2 too if ``batch_shape`` is that of a stack.

    Args:
        x: Activations ``(B, d)``, or ``(R, B, d)``: one batch per replica.
        batch_shape: Of a prior, ``()`` or ``(R, 1)``, or of a posterior, ``(B,)`` or ``(R, B)``.
    """
    with ExitStack() as stack:
        if len(batch_shape) > 1:
            stack.enter_context(pyro.plate("replicas", batch_shape[-2], dim=-2, device="cpu"))
        stack.enter_context(pyro.plate("rows", x.shape[-2], dim=-1, device="cpu"))
        yield
