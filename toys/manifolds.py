"""Toy manifolds: activations on a few of several rings, each in a plane of its own."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from priors.errors import ConfigError
from toys.directions import SpreadDirections
from toys.toy import check_toy


class ManifoldBatch(NamedTuple):
    """Activations ``x (rows, d)``, which rings are ``active (rows, M)``, and where: ``angles``."""

    x: Float[Tensor, "rows d"]
    active: Bool[Tensor, "rows M"]
    angles: Float[Tensor, "rows M"]


@dataclass(frozen=True, kw_only=True, eq=False)
class RingsToy:
    r"""Rings after their planes were drawn.

    .. math:: x = \sum_m a_m \big(h c_m + r(\cos θ_m\, u_m + \sin θ_m\, v_m)\big) + ε

    Args:
        centres: ``(M, d)``, unit directions :math:`c_m`.
        planes: ``(M, 2, d)``, orthonormal :math:`u_m, v_m`, orthogonal to :math:`c_m`.
        height: :math:`h`, in activation units.
        radius: :math:`r`, likewise.
        rate: How often each ring is active.
        noise: Standard deviation of :math:`ε`.
    """

    centres: Float[Tensor, "M d"]
    planes: Float[Tensor, "M 2 d"]
    height: float
    radius: float
    rate: float
    noise: float

    def points(self, ring: int, angles: Float[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """Where a ring is at these angles, without noise."""
        circle = torch.stack([angles.cos(), angles.sin()], -1).to(self.planes.dtype)
        return self.height * self.centres[ring] + self.radius * circle @ self.planes[ring]

    def sample(self, rows: int, generator: Generator) -> ManifoldBatch:
        """``rows`` independent rows; angles are drawn of all rings, also of those not active."""
        shape = (rows, len(self.centres))
        active = torch.rand(shape, generator=generator, dtype=torch.float64) < self.rate
        angles = 2 * torch.pi * torch.rand(shape, generator=generator, dtype=torch.float64)
        noise = torch.randn(rows, self.centres.shape[1], generator=generator)
        on = active.to(self.planes.dtype)
        circle = self.radius * on[..., None] * torch.stack([angles.cos(), angles.sin()], -1).to(on)
        x = self.height * on @ self.centres + torch.einsum("bmc,mcd->bd", circle, self.planes)
        return ManifoldBatch(x + self.noise * noise, active, angles)

    def arcs(self, batch: ManifoldBatch, count: int) -> Bool[Tensor, "rows MA"]:
        """Whether each of ``count`` equal arcs of each ring is where the row is; ring by ring."""
        place = (batch.angles * (count / (2 * torch.pi))).long().clamp(max=count - 1)
        inside = torch.nn.functional.one_hot(place, count).bool()
        return (inside & batch.active[..., None]).flatten(1)


@dataclass(frozen=True, kw_only=True)
class RingsCase:
    """Rings in planes that nearly do not overlap.

    Args:
        rings: Their number ``M``.
        d_model: Dimension ``d``.
        height: Of each ring's centre, in activation units.
        radius: Of each ring.
        rate: How often each is active, independently.
        noise: Standard deviation of the noise.

    Raises:
        ConfigError: ``toy.d_model``, ``toy.noise``; ``toy.size`` without a ring, or in fewer than
            three dimensions; ``toy.scale`` for a height or radius that is not positive;
            ``toy.rate``.

    Example:
        >>> toy = RingsCase(rings=3, d_model=8).build(torch.Generator().manual_seed(0))
        >>> toy.sample(5, torch.Generator().manual_seed(1)).x.shape
        torch.Size([5, 8])

    Source:
        Engels et al. (2024), *Not All Language Model Features Are Linear* (rings of days and
        months); the toy is this library's.
    """

    rings: int
    d_model: int
    height: float = 1.0
    radius: float = 1.0
    rate: float = 0.1
    noise: float = 0.05

    def __post_init__(self) -> None:
        check_toy(self.d_model, self.noise)
        if self.rings < 1 or self.d_model < 3:
            raise ConfigError(
                f"{self.rings} rings in {self.d_model} dimensions: expected one at least, in three "
                "at least.",
                code="toy.size",
            )
        if not (0 < self.height < float("inf") and 0 < self.radius < float("inf")):
            raise ConfigError(
                f"height and radius must be positive: got {self.height} and {self.radius}.",
                code="toy.scale",
            )
        if not 0 < self.rate <= 1:
            raise ConfigError(f"a rate is in (0, 1]: got {self.rate}.", code="toy.rate")

    def build(self, generator: Generator) -> RingsToy:
        """Draws centres that keep apart, and a plane beside each."""
        centres = SpreadDirections().draw(self.rings, self.d_model, generator)
        drawn = torch.randn(self.rings, 2, self.d_model, generator=generator, dtype=torch.float64)
        frames = torch.linalg.qr(torch.cat([centres.double()[:, None], drawn], 1).mT).Q.mT
        return RingsToy(
            centres=centres,
            planes=frames[:, 1:].to(centres.dtype),
            height=self.height,
            radius=self.radius,
            rate=self.rate,
            noise=self.noise,
        )
