"""A feature's direction from layer to layer: it turns by a known angle, or is new in each."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn.functional import normalize

from priors.errors import ConfigError
from toys.directions import Directions, SpreadDirections
from toys.toy import per_feature


class Turning(ABC):
    """A law of directions across layers; *the following method makes one*."""

    @abstractmethod
    def draw(
        self, base: Float[Tensor, "F d"], layers: int, generator: Generator
    ) -> Float[Tensor, "F n d"]:
        """Unit directions of every layer from those of the first."""


@dataclass(frozen=True, kw_only=True)
class Rotating(Turning):
    r"""Each direction turns in a plane of its own, by the same angle from each layer to the next.

    .. math:: d_{fl} = \cos(l θ_f)\, d_{f0} + \sin(l θ_f)\, e_f, \qquad
        \langle d_{fl}, d_{fm}\rangle = \cos((l - m) θ_f)

    with :math:`e_f` uniform among the unit vectors orthogonal to :math:`d_{f0}`.

    Args:
        degrees: θ, one for all features or one each; 0 is a feature that persists unchanged.

    Raises:
        ConfigError: ``toy.angle`` for an angle outside [0, 180]; on drawing, ``toy.size``, and
            ``toy.d_model`` in one dimension.

    Example:
        >>> base = torch.eye(3, dtype=torch.float64)[:1]
        >>> turned = Rotating(degrees=30.0).draw(base, 3, torch.Generator())[0]
        >>> torch.rad2deg((turned @ turned.mT).acos())[0, 1:]
        tensor([30.0000, 60.0000], dtype=torch.float64)
    """

    degrees: float | tuple[float, ...] = 10.0

    def __post_init__(self) -> None:
        angles = self.degrees if isinstance(self.degrees, tuple) else (self.degrees,)
        if not all(0 <= angle <= 180 for angle in angles):
            raise ConfigError(
                f"a direction turns by an angle in [0, 180] degrees: got {self.degrees}.",
                code="toy.angle",
            )

    def draw(
        self, base: Float[Tensor, "F d"], layers: int, generator: Generator
    ) -> Float[Tensor, "F n d"]:
        if base.shape[1] < 2:
            raise ConfigError("nothing turns in 1 dimension: expected >= 2.", code="toy.d_model")
        degrees = per_feature(self.degrees, len(base), "degrees")
        angle = torch.tensor([math.radians(angle) for angle in degrees], dtype=torch.float64)
        start = normalize(base.double(), dim=-1)
        other = torch.randn(base.shape, generator=generator, dtype=torch.float64)
        for _ in range(2):  # twice is enough, however little of it is across
            other = normalize(other - (other * start).sum(-1, keepdim=True) * start, dim=-1)
        reached = (angle[:, None] * torch.arange(layers))[..., None]
        turned = reached.cos() * start[:, None] + reached.sin() * other[:, None]
        return turned.to(base.dtype)


@dataclass(frozen=True, kw_only=True)
class Fresh(Turning):
    """New directions in every layer, which have nothing to do with those before.

    Args:
        directions: Their law in each layer after the first.

    Example:
        >>> Fresh().draw(torch.eye(3), 2, torch.Generator()).shape
        torch.Size([3, 2, 3])
    """

    directions: Directions = field(default_factory=SpreadDirections)

    def draw(
        self, base: Float[Tensor, "F d"], layers: int, generator: Generator
    ) -> Float[Tensor, "F n d"]:
        later = [self.directions.draw(*base.shape, generator) for _ in range(layers - 1)]
        return torch.stack([base, *(rows.to(base) for rows in later)], 1)
