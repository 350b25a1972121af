"""Codes that fire along the paths of a forest, with sizes drawn independently."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from toys.forest import Forest
from toys.magnitudes import MagnitudeLaw
from toys.toy import CodeLaw


@dataclass(frozen=True, kw_only=True)
class TreeLaw(CodeLaw):
    r"""Codes :math:`z_i = s_i\, m_i\, f_i`: ``f`` fires as the forest says, ``m`` are independent.

    Sizes are never zero, so that a code is non-zero exactly where its feature fires: a child that
    is non-zero has a parent that is. The sizes :math:`\mathrm{ReLU}(μ + σN)` of published toys are
    those of :class:`toys.magnitudes.PositiveNormal`, with :math:`p_i` times :math:`Φ(μ/σ)`.

    Args:
        forest: Which features fire.
        magnitude: The law ``m`` of an active feature's size.
        scale: ``(F,)`` per-feature factor ``s``.
    """

    forest: Forest
    magnitude: MagnitudeLaw
    scale: Float[Tensor, " F"]

    def sample(self, rows: int, generator: Generator) -> Float[Tensor, "rows F"]:
        shape = (rows, self.forest.size)
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
        normal = torch.randn(shape, generator=generator, dtype=torch.float64)
        fires = self._own(uniform)
        levels = torch.tensor(self.forest.levels)
        parents = torch.tensor(self.forest.parents)
        for level in range(1, self.forest.depth):
            nodes = (levels == level).nonzero().squeeze(1)
            fires[:, nodes] &= fires[:, parents[nodes]]
        size = self.magnitude.from_normal(normal) * self.scale.double()
        return (size * fires).to(torch.get_default_dtype())

    def _own(self, uniform: Tensor) -> Tensor:
        """Whether each node would fire if its parent did: exclusive siblings share a number."""
        forest = self.forest
        source, low = list(range(forest.size)), [0.0] * forest.size
        for parent in {p for p in (-1, *forest.parents) if forest.excludes(p)}:
            siblings, total = forest.children(parent), 0.0
            for node in siblings:
                source[node], low[node] = siblings[0], total
                total += forest.probability[node]
        start = torch.tensor(low, dtype=torch.float64)
        shared = uniform[:, source]
        width = torch.tensor(forest.probability, dtype=torch.float64)
        return (shared >= start) & (shared < start + width)

    def mean(self) -> Float[Tensor, " F"]:
        """The expected code, float64."""
        return self.forest.rate() * self.scale.double() * self.magnitude.moments()[0]

    def second_moment(self) -> Float[Tensor, "F F"]:
        r"""The expected :math:`z_i z_j`, float64."""
        mean, square = self.magnitude.moments()
        both, scale = self.forest.together() * mean**2, self.scale.double()
        both.diagonal().copy_(self.forest.rate() * square)
        return both * scale * scale[:, None]

    def covariance(self) -> Float[Tensor, "F F"]:
        """The covariance of the codes, float64."""
        mean = self.mean()
        return self.second_moment() - mean * mean[:, None]
