"""A toy whose truth is known: dictionary, dependence and graph drawn once, rows at will."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from priors.errors import ConfigError
from priors.graph import Graph


class ToyBatch(NamedTuple):
    """Activations ``x (rows, d)`` and the true codes ``(rows, F)`` that made them."""

    x: Float[Tensor, "rows d"]
    codes: Float[Tensor, "rows F"]


class CodeLaw(ABC):
    """The joint law of a toy's codes; *the following method makes one*."""

    @abstractmethod
    def sample(self, rows: int, generator: Generator) -> Float[Tensor, "*instances rows F"]:
        """Independent rows of codes; with a leading axis where a law has several instances."""


@dataclass(frozen=True, kw_only=True)
class Realised:
    """What a sample of codes actually shows, to be compared with what was asked for.

    An entry is ``nan`` where it is undefined: a feature that always fires has no support
    correlation, a pair that fires together on fewer than two rows no magnitude correlation.

    Args:
        rate: ``(F,)`` share of rows on which each feature is non-zero.
        support: ``(F, F)`` Pearson (φ) correlation of the indicators ``code ≠ 0``.
        value: ``(F, F)`` Pearson correlation of the codes, zeros included.
        magnitude: ``(F, F)`` Pearson correlation of the codes over rows where *both* fire.
    """

    rate: Float[Tensor, " F"]
    support: Float[Tensor, "F F"]
    value: Float[Tensor, "F F"]
    magnitude: Float[Tensor, "F F"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Toy:
    r"""A toy after its dictionary was drawn: :math:`x = z D + ε,\; ε ∼ N(0, σ²I)`.

    Training and held-out rows come from the same instance, hence from the same dictionary.

    Args:
        law: The law of the codes ``z``.
        dictionary: ``(F, d)``, unit rows.
        noise: ``σ``, in activation units.
        correlation: ``(F, F)`` as requested: of the Gaussian variable where there is one, of the
            supports otherwise.
        precision: ``(F, F)`` inverse covariance of the Gaussian variable, ``None`` without one.
        support: ``(F, F)`` expected φ correlation of the supports, ``None`` if codes are dense.
        graph: The true dependence; see :func:`precision_graph` and the case that built it.
    """

    law: CodeLaw
    dictionary: Float[Tensor, "F d"]
    noise: float
    correlation: Float[Tensor, "F F"]
    precision: Float[Tensor, "F F"] | None
    support: Float[Tensor, "F F"] | None
    graph: Graph

    def sample(self, rows: int, generator: Generator) -> ToyBatch:
        """``rows`` independent rows; the codes are drawn first, then the noise.

        Raises:
            ConfigError: ``toy.rows`` if ``rows < 1``.
        """
        if rows < 1:
            raise ConfigError(f"no rows: got {rows}, expected at least 1.", code="toy.rows")
        codes = self.law.sample(rows, generator)
        noise = torch.randn(rows, self.dictionary.shape[1], generator=generator)
        return ToyBatch(codes @ self.dictionary + self.noise * noise, codes)

    def realised(self, codes: Float[Tensor, "rows F"]) -> Realised:
        """See :func:`realised`."""
        return realised(codes)


def realised(codes: Float[Tensor, "rows F"]) -> Realised:
    r"""Firing rates and the three correlations of a sample of codes, with float64 sums.

    Example:
        >>> r = realised(torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]]))
        >>> round(r.rate[0].item(), 4), r.support[0, 1].item(), r.magnitude[0, 1].item()
        (0.6667, 1.0, 1.0)
    """
    values = codes.double()
    fires = (values != 0).double()
    together = fires.mT @ fires
    mean = values.mT @ fires / together  # of feature i, over rows where i and j fire
    square = (values**2).mT @ fires / together - mean**2
    cross = values.mT @ values / together - mean * mean.mT
    # Below rounding of the sums a variance is zero: correlation undefined, not huge.
    tiny = 1e-12 * ((values**2).mT @ fires / together)
    square = torch.where((square <= tiny) | (together < 2), torch.nan, square)
    dtype = codes.dtype
    return Realised(
        rate=fires.mean(0).to(dtype),
        support=_pearson(fires).to(dtype),
        value=_pearson(values).to(dtype),
        magnitude=(cross / (square * square.mT).sqrt()).to(dtype),
    )


def _pearson(columns: Float[Tensor, "rows F"]) -> Float[Tensor, "F F"]:
    centred = columns - columns.mean(0)
    norm = centred.norm(dim=0)
    norm = torch.where(norm <= 1e-12 * columns.norm(dim=0), torch.nan, norm)
    return (centred / norm).mT @ (centred / norm)


def precision_graph(precision: Float[Tensor, "F F"]) -> Graph:
    r"""The graph whose signed Laplacian is the off-diagonal part of a precision.

    Features are joined where their *partial* correlation exceeds 1e-10 in size, with weight
    :math:`w_{ij} = -Λ_{ij}`; the signed Laplacian :math:`|D| - W` of this graph plus a diagonal is
    then exactly ``Λ``. Negative weights are partial anti-correlations.

    Example:
        >>> graph = precision_graph(torch.tensor([[2.0, 0.5], [0.5, 1.0]]))
        >>> graph.edges.tolist(), graph.weights.tolist()
        ([[0], [1]], [-0.5])
    """
    precision = precision.double()
    scale = precision.diagonal().sqrt()
    partial = (precision / scale / scale[:, None]).triu(1).abs()
    return weighted_graph(torch.where(partial > 1e-10, -precision, 0.0))


def weighted_graph(weights: Float[Tensor, "F F"]) -> Graph:
    """The graph of a symmetric matrix's non-zero off-diagonal entries, weighted by them."""
    edges = weights.triu(1).nonzero().mT.contiguous()
    values = weights[edges[0], edges[1]].double()
    return Graph(edges, values, weights.shape[0], signed=bool((values < 0).any()))


def gaussian_truth(covariance: Float[Tensor, "F F"]) -> tuple[Tensor, Graph]:
    """The precision of a float64 covariance, and its graph."""
    precision = torch.linalg.inv(covariance)
    precision = (precision + precision.mT) / 2
    return precision, precision_graph(precision)


def per_feature(value: float | tuple[float, ...], size: int, name: str) -> tuple[float, ...]:
    """One number per feature, from one for all or one each."""
    values = value if isinstance(value, tuple) else (value,) * size
    if len(values) != size:
        raise ConfigError(
            f"{len(values)} values of {name} for {size} features: expected one, or {size}.",
            code="toy.size",
            context={"name": name, "got": len(values), "expected": size},
        )
    return values


def check_toy(d_model: int, noise: float) -> None:
    """The settings every toy has: a dimension and a noise."""
    if d_model < 1:
        raise ConfigError(f"no dimensions: got d_model {d_model}.", code="toy.d_model")
    if not 0 <= noise < float("inf"):
        raise ConfigError(
            f"noise is a standard deviation >= 0: got {noise}, in activation units.",
            code="toy.noise",
        )
