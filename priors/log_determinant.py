"""What ``log det(γI + λL)`` is computed by: an interface, and its absence."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from priors.graph import Graph


class AbstractLogDeterminant(nn.Module):
    """``log det(γI + λL)`` as a function of ``(γ, λ)``, in float64 whatever the model's dtype.

    An instance without a graph is a choice and its settings; :meth:`of` gives the one that
    computes. Its float64 buffers follow ``.to(device)`` and ignore ``.to(dtype)``.
    """

    # No ABC: its metaclass would clash with PyroModule's.

    exact = True  # an ELBO normalised by an inexact one says so
    differentiable = True  # in γ and λ, so that they may be learned

    def __init__(self) -> None:
        super().__init__()
        self._graph: Graph | None = None

    def of(self, graph: Graph) -> "AbstractLogDeterminant":
        """The same choice for a graph; itself if it is already, so that priors may share it."""
        raise NotImplementedError(f"{type(self).__name__} defines no of()")

    def forward(
        self, ridge: Float[Tensor, "*batch"], strength: Float[Tensor, "*batch"]
    ) -> Float64[Tensor, "*batch"]:
        """``log det(γI + λL)``."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward()")

    def forget(self) -> None:
        """Drop what was computed for particular ``γ`` and ``λ``, if anything."""

    def _apply(self, fn, recurse=True):
        # `fn` moves and casts; as integers the same bits move and are not cast.
        for name, buffer in self._buffers.items():
            if buffer is not None and buffer.dtype == torch.float64:
                self._buffers[name] = fn(buffer.view(torch.int64)).view(torch.float64)
        return self


class Omitted(AbstractLogDeterminant):
    """No normaliser: densities and KLs up to a constant, for training with fixed ``γ`` and ``λ``.

    Example:
        >>> from priors import Graph, GraphLaplacianPrior
        >>> GraphLaplacianPrior(Graph.ring(5), logdet=Omitted())().precision.logdet().item()
        0.0
    """

    exact = False
    differentiable = False

    def of(self, graph: Graph) -> "Omitted":
        return self

    def forward(self, ridge: Tensor, strength: Tensor) -> Tensor:
        return torch.zeros_like(ridge, dtype=torch.float64)
