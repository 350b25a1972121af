"""The true dictionary of a toy: unit directions in activation space, one row per feature."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn.functional import normalize

from priors.errors import ConfigError


class Directions(ABC):
    """A law of dictionaries; *the following method makes one*."""

    @abstractmethod
    def draw(self, features: int, d_model: int, generator: Generator) -> Float[Tensor, "F d"]:
        """``F`` unit rows in ``d`` dimensions."""


@dataclass(frozen=True, kw_only=True)
class OrthonormalDirections(Directions):
    """A uniformly random orthonormal set; needs ``F <= d``.

    Example:
        >>> rows = OrthonormalDirections().draw(2, 5, torch.Generator())
        >>> torch.allclose(rows @ rows.T, torch.eye(2), atol=1e-6)
        True
    """

    def draw(self, features: int, d_model: int, generator: Generator) -> Float[Tensor, "F d"]:
        if features > d_model:
            raise ConfigError(
                f"{features} directions cannot be orthogonal in {d_model} dimensions: expected"
                " F <= d. Use SpreadDirections for superposition.",
                code="toy.too_many_features",
                context={"features": features, "d_model": d_model},
            )
        basis = torch.randn(d_model, features, generator=generator, dtype=torch.float64)
        q, r = torch.linalg.qr(basis)
        # Signs of R's diagonal make Q uniform (Haar) rather than an artefact of the routine.
        return (q * r.diagonal().sign()).mT.to(torch.get_default_dtype())


@dataclass(frozen=True, kw_only=True)
class SimplexDirections(Directions):
    r"""The corners of a regular simplex, uniformly rotated; they sum to zero. Needs ``F <= d + 1``.

    .. math:: d_i^\top d_j = -\frac{1}{F - 1}, \qquad i ≠ j

    Raises:
        ConfigError: ``toy.simplex``, on drawing, unless ``2 <= F <= d + 1``.

    Example:
        >>> rows = SimplexDirections().draw(3, 2, torch.Generator())
        >>> torch.allclose(rows @ rows.T, 1.5 * torch.eye(3) - 0.5, atol=1e-6)
        True

    Source:
        Park et al. (2024), *The Geometry of Categorical and Hierarchical Concepts*, 2406.01506.
    """

    def draw(self, features: int, d_model: int, generator: Generator) -> Float[Tensor, "F d"]:
        if not 2 <= features <= d_model + 1:
            raise ConfigError(
                f"no simplex has {features} corners in {d_model} dimensions: expected 2 to "
                f"{d_model + 1}. Use more dimensions, or SpreadDirections.",
                code="toy.simplex",
                context={"features": features, "d_model": d_model},
            )
        frame = torch.randn(d_model, features - 1, generator=generator, dtype=torch.float64)
        q, r = torch.linalg.qr(frame)
        # Corners e_i - mean(e) of R^F, in an orthonormal basis of the plane they span.
        corners = torch.eye(features, dtype=torch.float64) - 1 / features
        within = torch.linalg.eigh(corners).eigenvectors[:, 1:]
        rows = (corners @ within) @ (q * r.diagonal().sign()).mT
        return normalize(rows, dim=-1).to(torch.get_default_dtype())


@dataclass(frozen=True, kw_only=True)
class AngledPair(Directions):
    """Two directions at a given angle, the pair uniformly rotated.

    Args:
        degrees: The angle, in (0, 180).

    Raises:
        ConfigError: ``toy.angle`` for an angle outside (0, 180); ``toy.pair`` on drawing other
            than 2 features.

    Example:
        >>> a, b = AngledPair(degrees=60.0).draw(2, 5, torch.Generator())
        >>> round((a @ b).item(), 6)
        0.5
    """

    degrees: float

    def __post_init__(self) -> None:
        if not 0 < self.degrees < 180:
            raise ConfigError(
                f"two distinct directions need an angle in (0, 180) degrees: got {self.degrees}.",
                code="toy.angle",
            )

    def draw(self, features: int, d_model: int, generator: Generator) -> Float[Tensor, "F d"]:
        if features != 2:
            raise ConfigError(f"an angle is for 2 features: got {features}.", code="toy.pair")
        first, second = OrthonormalDirections().draw(2, d_model, generator)
        angle = math.radians(self.degrees)
        return torch.stack([first, math.cos(angle) * first + math.sin(angle) * second])


@dataclass(frozen=True, kw_only=True)
class RandomDirections(Directions):
    """Independent, uniform on the sphere; any number of them.

    Example:
        >>> RandomDirections().draw(7, 3, torch.Generator()).norm(dim=1).mean().item()
        1.0...
    """

    def draw(self, features: int, d_model: int, generator: Generator) -> Float[Tensor, "F d"]:
        rows = torch.randn(features, d_model, generator=generator, dtype=torch.float64)
        return normalize(rows, dim=-1).to(torch.get_default_dtype())


@dataclass(frozen=True, kw_only=True)
class SpreadDirections(Directions):
    r"""Random directions pushed apart, as in superposition learned by a network.

    From a uniform draw, ``steps`` gradient steps on the sphere lower the frame potential
    :math:`\sum_{i≠j} (d_i^\top d_j)^4`, whose high power acts on the closest pairs. No pair
    of atoms is then nearly parallel, so features are recoverable; directions stay otherwise random.

    Args:
        steps: Number of gradient steps; 0 is :class:`RandomDirections`.
        rate: Step length on the sphere's tangent.

    Raises:
        ConfigError: ``toy.spread`` if ``steps < 0`` or ``rate <= 0``.

    Source:
        Benedetto & Fickus (2003), *Finite normalized tight frames*; the fourth power is ours.
    """

    steps: int = 200
    rate: float = 0.1

    def __post_init__(self) -> None:
        if self.steps < 0 or not self.rate > 0:
            raise ConfigError(
                f"cannot spread: got {self.steps} steps of rate {self.rate}, expected >= 0 and > 0."
                " RandomDirections leaves them where they fall.",
                code="toy.spread",
            )

    def draw(self, features: int, d_model: int, generator: Generator) -> Float[Tensor, "F d"]:
        rows = torch.randn(features, d_model, generator=generator, dtype=torch.float64)
        rows = normalize(rows, dim=-1)
        for _ in range(self.steps):
            overlap = (rows @ rows.mT).fill_diagonal_(0.0)
            rows = normalize(rows - self.rate * 4 * overlap**3 @ rows, dim=-1)
        return rows.to(torch.get_default_dtype())
