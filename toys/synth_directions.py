"""Random directions pushed towards orthogonality, as a published benchmark draws them."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn.functional import normalize

from priors.errors import ConfigError
from toys.directions import Directions

CHUNK = 1024  # rows of the Gram matrix held at once: at 16 384 features all of it would be 2 GiB


@dataclass(frozen=True, kw_only=True)
class OrthogonalisedDirections(Directions):
    r"""Random directions after some steps of Adam on the squares of their inner products.

    .. math:: \sum_{i ≠ j} (d_i^\top d_j)^2 + F \sum_i (d_i^\top d_i - 1)^2

    The rows are normalised before the first step and after the last. Where ``F > d`` no set is
    orthogonal, and the first sum has the frame bound :math:`F^2/d - F` as its least value: the
    steps lower the *mean* overlap rather than the largest, as :class:`SpreadDirections` does.

    Args:
        steps: Number of steps; 0 leaves the directions where they fall.
        rate: Adam's step length.

    Raises:
        ConfigError: ``toy.spread`` if ``steps < 0`` or ``rate <= 0``.

    Example:
        >>> rows = OrthogonalisedDirections().draw(8, 8, torch.Generator().manual_seed(0))
        >>> bool((rows @ rows.T - torch.eye(8)).abs().max() < 0.02)
        True

    Source:
        The objective of SynthSAEBench, 2602.14687; Welch (1974) for the bound.
    """

    steps: int = 200
    rate: float = 0.01

    def __post_init__(self) -> None:
        if self.steps < 0 or not 0 < self.rate < math.inf:
            raise ConfigError(
                f"cannot orthogonalise: got {self.steps} steps of rate {self.rate}, expected >= 0 "
                "and > 0.",
                code="toy.spread",
            )

    def draw(self, features: int, d_model: int, generator: Generator) -> Float[Tensor, "F d"]:
        shape, device = (features, d_model), generator.device
        rows = torch.randn(shape, generator=generator, dtype=torch.float64, device=device)
        return self.descend(rows).to(torch.get_default_dtype())

    def descend(self, rows: Float[Tensor, "F d"]) -> Float[Tensor, "F d"]:
        """The directions to which any rows are led."""
        rows = normalize(rows, dim=-1)
        rows.grad = torch.empty_like(rows)
        adam = torch.optim.Adam([rows], lr=self.rate)
        for _ in range(self.steps):
            for start in range(0, len(rows), CHUNK):
                rows.grad[start : start + CHUNK] = _gradient(rows, start)
            adam.step()
        return normalize(rows.detach(), dim=-1)


def _gradient(rows: Tensor, start: int) -> Tensor:
    overlap = rows[start : start + CHUNK] @ rows.mT
    own = overlap.diagonal(start)  # a view: of each row with itself
    own.copy_(len(rows) * (own - 1))
    return 4 * overlap @ rows
