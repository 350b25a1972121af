"""Features over layers: each appears, persists or turns, and vanishes, in places that are known."""

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from priors.errors import ConfigError
from toys.copula import CopulaCase, LatentCorrelation
from toys.correlation import Independent
from toys.magnitudes import PositiveNormal
from toys.spans import EveryLayer, RandomSpans, Spans, TwoModels
from toys.toy import CodeLaw, check_toy
from toys.turning import Fresh, Rotating, Turning


@runtime_checkable
class FlatToy(Protocol):
    """A toy of one layer: a law of codes, and directions."""

    @property
    def law(self) -> CodeLaw:
        """The law of the codes."""
        ...

    @property
    def dictionary(self) -> Tensor:
        """``(F, d)``, unit rows."""
        ...


@runtime_checkable
class FlatCase(Protocol):
    """What a flat toy is drawn from."""

    def build(self, generator: Generator) -> FlatToy:
        """Draws it."""
        ...


class LayeredBatch(NamedTuple):
    """Activations ``x (rows, n, d)`` of all layers and the true codes ``(rows, F)``."""

    x: Float[Tensor, "rows n d"]
    codes: Float[Tensor, "rows F"]


@dataclass(frozen=True, kw_only=True, eq=False)
class LayeredToy:
    r"""A toy of several layers after its directions were drawn.

    .. math:: x^l = \sum_f z_f\, d_{fl} + ε^l, \qquad ε^l ∼ N(0, σ²I)

    One code z for all layers: a feature that is present in several is active in all of them alike.
    The noise is independent between layers; that of a residual stream is not.

    Args:
        flat: The toy whose law of codes this is, and whose dictionary is the first layer's; its
            graph and correlations are those of the codes here. Its own noise and bias are not used.
        directions: ``(F, n, d)``, unit where the feature is present, zero elsewhere.
        noise: σ, in activation units.
    """

    flat: FlatToy
    directions: Float[Tensor, "F n d"]
    noise: float

    @property
    def presence(self) -> Bool[Tensor, "F n"]:
        """In which layers each feature is."""
        return self.directions.any(-1)

    @property
    def layers(self) -> tuple[int, ...]:
        """The width of each layer."""
        return (self.directions.shape[2],) * self.directions.shape[1]

    @property
    def dictionary(self) -> Float[Tensor, "F width"]:
        """The layers of each feature concatenated; its norm is the root of their number."""
        return self.directions.flatten(1)

    def sample(self, rows: int, generator: Generator) -> LayeredBatch:
        """``rows`` independent rows; the codes are drawn first, then the noise.

        Raises:
            ConfigError: ``toy.rows`` if ``rows < 1``.
        """
        if rows < 1:
            raise ConfigError(f"no rows: got {rows}, expected at least 1.", code="toy.rows")
        codes = self.flat.law.sample(rows, generator)
        noise = torch.randn(rows, *self.directions.shape[1:], generator=generator)
        clean = (codes @ self.dictionary).view_as(noise)
        return LayeredBatch(clean + self.noise * noise, codes)


@dataclass(frozen=True, kw_only=True)
class LayeredCase:
    """A flat case over several layers: when its features fire is its own law, where they are not.

    Args:
        flat: Law of the codes and of the first layer's directions.
        layers: How many; of model diffing, two.
        spans: In which layers features are present.
        turning: What their directions do.
        noise: Standard deviation of the noise, in activation units.

    Raises:
        ConfigError: ``toy.noise``, ``toy.layers`` unless there is a layer; from :meth:`build`,
            ``toy.span`` and those of the parts.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> toy = LAYERED_CASES["turning"].build(generator)
        >>> toy.sample(7, generator).x.shape, toy.presence.sum(0).tolist()
        (torch.Size([7, 5, 24]), [10, 13, 12, 18, 13])

    Source:
        After Lindsey et al. (2024), *Sparse crosscoders for cross-layer features and model
        diffing* (what such features are); the laws are this library's.
    """

    flat: FlatCase
    layers: int = 5
    spans: Spans = field(default_factory=EveryLayer)
    turning: Turning = field(default_factory=Rotating)
    noise: float = 0.05

    def __post_init__(self) -> None:
        check_toy(1, self.noise)
        if self.layers < 1:
            raise ConfigError(f"no layers: got {self.layers}, expected >= 1.", code="toy.layers")

    def build(self, generator: Generator) -> LayeredToy:
        """Draws the flat toy, then the spans, then the directions of all layers."""
        flat = self.flat.build(generator)
        present = self.spans.draw(len(flat.dictionary), self.layers, generator)
        directions = self.turning.draw(flat.dictionary, self.layers, generator)
        return LayeredToy(flat=flat, directions=directions * present[..., None], noise=self.noise)


_FLAT = CopulaCase(
    dependence=LatentCorrelation(structure=Independent(size=32)),
    rate=0.05,
    magnitude=PositiveNormal(loc=1.0, scale=0.25),
    d_model=24,
)

LAYERED_CASES: dict[str, LayeredCase] = {
    "persistent": LayeredCase(flat=_FLAT, turning=Rotating(degrees=0.0)),
    "turning": LayeredCase(flat=_FLAT, spans=RandomSpans(), turning=Rotating(degrees=15.0)),
    "fresh": LayeredCase(flat=_FLAT, spans=RandomSpans(), turning=Fresh()),
    "two-models": LayeredCase(
        flat=_FLAT, layers=2, spans=TwoModels(first=0.25, second=0.25), turning=Rotating()
    ),
}
"""32 features in 24 dimensions, each on a twentieth of the rows: chosen here, for one thread."""
