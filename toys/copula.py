"""Sparse features whose supports, and separately whose magnitudes, are correlated by copulas."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.special import ndtri

from priors.errors import ConfigError
from toys.correlation import CorrelationStructure, check_correlation
from toys.directions import Directions, SpreadDirections
from toys.magnitudes import MagnitudeLaw, UniformMagnitude
from toys.tetrachoric import phi_matrix, tetrachoric_matrix
from toys.toy import CodeLaw, Toy, check_toy, gaussian_truth, per_feature


class SupportDependence(ABC):
    """How supports depend on each other; *the following method makes a dependence*."""

    structure: CorrelationStructure

    @abstractmethod
    def copula(
        self, requested: Float[Tensor, "F F"], rates: tuple[float, ...]
    ) -> Float[Tensor, "F F"]:
        """The Gaussian copula's correlation for the structure's matrix, float64."""


@dataclass(frozen=True, kw_only=True)
class LatentCorrelation(SupportDependence):
    """The structure is the correlation of the Gaussian copula itself; any ``|r| < 1`` is feasible.

    The supports' φ correlation is then smaller, much smaller for rare features that exclude each
    other; ``Toy.support`` holds it.

    Args:
        structure: The copula's correlation.
    """

    structure: CorrelationStructure

    def copula(
        self, requested: Float[Tensor, "F F"], rates: tuple[float, ...]
    ) -> Float[Tensor, "F F"]:
        return requested


@dataclass(frozen=True, kw_only=True)
class SupportCorrelation(SupportDependence):
    """The structure is the φ correlation of the supports; the copula is solved for.

    Args:
        structure: The φ correlation of ``code > 0``, pair by pair within ``phi_bounds``.
    """

    structure: CorrelationStructure

    def copula(
        self, requested: Float[Tensor, "F F"], rates: tuple[float, ...]
    ) -> Float[Tensor, "F F"]:
        solved = tetrachoric_matrix(requested, rates)
        check_correlation(solved)
        return solved


@dataclass(frozen=True, kw_only=True)
class CopulaLaw(CodeLaw):
    r"""Codes :math:`z_i = s_i\, m(h_i)\, 1[g_i < Φ^{-1}(p_i)]`, with ``g`` and ``h`` independent.

    Args:
        thresholds: ``(F,)``, :math:`Φ^{-1}(p_i)`.
        support_factor: ``(F, F)`` Cholesky factor of the correlation of ``g``.
        magnitude_factor: ``(F, F)`` Cholesky factor of the correlation of ``h``.
        magnitude: The law ``m`` of an active feature's size.
        scale: ``(F,)`` per-feature factor ``s``.
    """

    thresholds: Float[Tensor, " F"]
    support_factor: Float[Tensor, "F F"]
    magnitude_factor: Float[Tensor, "F F"]
    magnitude: MagnitudeLaw
    scale: Float[Tensor, " F"]

    def sample(self, rows: int, generator: Generator) -> Float[Tensor, "rows F"]:
        shape = (2, rows, self.thresholds.shape[0])
        g, h = torch.randn(shape, generator=generator, dtype=torch.float64)
        fires = g @ self.support_factor.mT < self.thresholds
        size = self.magnitude.from_normal(h @ self.magnitude_factor.mT) * self.scale
        return (size * fires).to(torch.get_default_dtype())


@dataclass(frozen=True, kw_only=True)
class CopulaCase:
    r"""Sparse, non-negative features with correlated supports and correlated magnitudes.

    Feature ``i`` fires iff :math:`g_i < Φ^{-1}(p_i)`, :math:`g ∼ N(0, C)`, so that its rate is
    ``p_i`` whatever ``C`` is; its size is a function of an independent :math:`h ∼ N(0, C')`.
    Masking values that were correlated beforehand does not do this: it dilutes their correlation
    by ``p`` and more (``toys.notebook_cases.MaskedCorrelation``).

    Args:
        dependence: Correlation of the supports: prescribed directly (:class:`SupportCorrelation`)
            or through the copula (:class:`LatentCorrelation`).
        rate: Firing probability in (0, 1), one for all features or one each.
        magnitude: Law of an active feature's size, in activation units.
        magnitude_structure: Correlation of the normals behind the sizes; ``None``: independent.
        scale: Factor on the size, one for all features or one each.
        directions: Law of the dictionary.
        d_model: Dimension ``d`` of the activations.
        noise: Standard deviation of the noise, in activation units.

    Raises:
        ConfigError: ``toy.rate``, ``toy.scale``, ``toy.noise``, ``toy.d_model``, ``toy.size`` on
            construction; ``toy.infeasible_correlation`` from :meth:`build`, naming the bound.

    Example:
        >>> from toys.correlation import pairs
        >>> case = CopulaCase(dependence=SupportCorrelation(structure=pairs(2, 0.5)), rate=0.1)
        >>> generator = torch.Generator().manual_seed(0)
        >>> x, codes = case.build(generator).sample(5, generator)
        >>> x.shape, codes.shape
        (torch.Size([5, 12]), torch.Size([5, 4]))

    Source:
        Nelsen (2006), *An Introduction to Copulas*; on binary data, Emrich & Piedmonte (1991).
    """

    dependence: SupportDependence
    rate: float | tuple[float, ...] = 0.1
    magnitude: MagnitudeLaw = field(default_factory=UniformMagnitude)
    magnitude_structure: CorrelationStructure | None = None
    scale: float | tuple[float, ...] = 1.0
    directions: Directions = field(default_factory=SpreadDirections)
    d_model: int = 12
    noise: float = 0.1

    def __post_init__(self) -> None:
        check_toy(self.d_model, self.noise)
        size = self.features
        if not all(0 < rate < 1 for rate in per_feature(self.rate, size, "rate")):
            raise ConfigError(
                f"a firing rate is a probability strictly inside (0, 1): got {self.rate}.",
                code="toy.rate",
            )
        if not all(0 < factor < float("inf") for factor in per_feature(self.scale, size, "scale")):
            raise ConfigError(f"scales must be positive: got {self.scale}.", code="toy.scale")
        if self.magnitude_structure is not None and self.magnitude_structure.size != size:
            raise ConfigError(
                f"magnitudes of {self.magnitude_structure.size} features for supports of {size}:"
                " expected as many.",
                code="toy.size",
            )

    @property
    def features(self) -> int:
        """Number of features ``F``."""
        return self.dependence.structure.size

    def build(self, generator: Generator) -> Toy:
        """Draws dictionary and correlations. ``Toy.precision`` and ``graph`` are the copula's."""
        rates = per_feature(self.rate, self.features, "rate")
        dictionary = self.directions.draw(self.features, self.d_model, generator)
        requested = self.dependence.structure.matrix(generator)
        copula = self.dependence.copula(requested, rates)
        magnitude = torch.eye(self.features, dtype=torch.float64)
        if self.magnitude_structure is not None:
            magnitude = self.magnitude_structure.matrix(generator)
        law = CopulaLaw(
            thresholds=ndtri(torch.tensor(rates, dtype=torch.float64)),
            support_factor=torch.linalg.cholesky(copula),
            magnitude_factor=torch.linalg.cholesky(magnitude),
            magnitude=self.magnitude,
            scale=torch.tensor(
                per_feature(self.scale, self.features, "scale"), dtype=torch.float64
            ),
        )
        precision, graph = gaussian_truth(copula)
        dtype = torch.get_default_dtype()
        return Toy(
            law=law,
            dictionary=dictionary,
            noise=self.noise,
            correlation=requested.to(dtype),
            precision=precision.to(dtype),
            support=phi_matrix(copula, rates).to(dtype),
            graph=graph,
        )
