"""The arms of part 1: one family of autoencoder each, built for a toy whose structure is known."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from torch import Generator, Tensor, nn

from priors import (
    BlockDiagonalPrior,
    CholeskyPrior,
    EquicorrelatedPrior,
    Graph,
    GraphLaplacianPrior,
    IsotropicPrior,
)
from toys.toy import Toy
from vsae.autoencoder import Autoencoder
from vsae.presets import l1_autoencoder, variational_autoencoder

HIDDEN = 64  # units of the two-layer ReLU encoder
NOISE = 0.1  # σ, the toys' own noise
LOC = -1.0  # prior mean of a rectified latent: it fires with probability Φ(-1) = 0.16 a priori
CORRELATION = 0.8  # document A's "global-correlation prior"
THRESHOLD = (
    0.1  # τ of a linear code: with unit atoms, a smaller code moves x by less than the noise
)

MakePrior = Callable[[Toy, int, Generator], nn.Module]


@dataclass(frozen=True, kw_only=True)
class AbstractArm(ABC):
    """A family of autoencoders with one knob; *the following method makes one*.

    Args:
        label: As figures and tables print it.
        strength: The knob's default: λ of an ℓ1 SAE, β of a V-SAE.
        sweep: Its values in a frontier.
        threshold: τ above which a code counts as active.
        per_case: Whether models of different cases have tensors of different shapes.
        data: The families of cases it is run on.
    """

    label: str
    strength: float
    sweep: tuple[float, ...]
    threshold: float = 0.0
    per_case: bool = False
    data: tuple[str, ...] = ("gaussian", "copula")

    @abstractmethod
    def build(self, toy: Toy, latents: int, strength: float, generator: Generator) -> Autoencoder:
        """An untrained pair with ``latents`` latents; torch's global state draws its weights."""

    @abstractmethod
    def beta(self, strength: float) -> float:
        """β, the weight of the latents' KL, at that value of the knob."""


@dataclass(frozen=True, kw_only=True)
class L1Arm(AbstractArm):
    """The ℓ1 SAE; the knob is λ in ``‖x - x̂‖² + λ‖z‖₁``."""

    def build(self, toy: Toy, latents: int, strength: float, generator: Generator) -> Autoencoder:
        return l1_autoencoder(toy.dictionary.shape[1], latents, l1=strength, hidden=HIDDEN)

    def beta(self, strength: float) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class VariationalArm(AbstractArm):
    """A V-SAE; the knob is β, so that the loss is ``MSE + α·KL`` with ``α = 2σ²β``.

    Args:
        prior: Makes its prior from the toy's truth.
        rectified: Whether codes are ``relu(z)``; document A's own are linear.
    """

    prior: MakePrior
    rectified: bool = True

    def build(self, toy: Toy, latents: int, strength: float, generator: Generator) -> Autoencoder:
        prior = self.prior(toy, latents, generator)
        link = nn.ReLU() if self.rectified else nn.Identity()
        d_model = toy.dictionary.shape[1]
        return variational_autoencoder(d_model, prior, noise=NOISE, hidden=HIDDEN, link=link)

    def beta(self, strength: float) -> float:
        return strength


def isotropic(toy: Toy, latents: int, generator: Generator) -> nn.Module:
    """``N(-1, I)``."""
    return IsotropicPrior(latents, loc=LOC)


def equicorrelated(toy: Toy, latents: int, generator: Generator) -> nn.Module:
    """Every pair of latents at 0.8, whatever the case: the document's global-correlation prior."""
    return EquicorrelatedPrior(latents, correlation=CORRELATION, loc=LOC)


def cholesky(toy: Toy, latents: int, generator: Generator) -> nn.Module:
    """Precision learned in full, from ``I``."""
    return CholeskyPrior(latents, loc=LOC)


def block_diagonal(toy: Toy, latents: int, generator: Generator) -> nn.Module:
    """Precision learned within the true groups of features; spare latents are alone."""
    return BlockDiagonalPrior.from_labels(lifted(toy.graph, latents).components.tolist(), loc=LOC)


def graph_laplacian(toy: Toy, latents: int, generator: Generator) -> nn.Module:
    """``γI + λL`` of the true signed graph, γ and λ as close to the truth as they can be."""
    graph = lifted(toy.graph, latents)
    ridge, strength = closest(graph, toy.correlation)
    return GraphLaplacianPrior(graph, ridge=ridge, strength=strength, loc=LOC)


def shuffled_laplacian(toy: Toy, latents: int, generator: Generator) -> nn.Module:
    """The control: the same graph, γ and λ, hence spectrum, with latents renamed at random."""
    graph = lifted(toy.graph, latents)
    ridge, strength = closest(graph, toy.correlation)
    shuffled = graph.shuffled(generator)
    return GraphLaplacianPrior(shuffled, ridge=ridge, strength=strength, loc=LOC)


def diagonal(toy: Toy, latents: int, generator: Generator) -> nn.Module:
    """Independent latents whose scales are learned: what Cholesky has besides correlations."""
    return BlockDiagonalPrior((1,) * latents, loc=LOC)


def linear_isotropic(toy: Toy, latents: int, generator: Generator) -> nn.Module:
    """The document's ``N(0, I)`` under atoms of any norm, here unit atoms with learned scales."""
    return BlockDiagonalPrior((1,) * latents)


def linear_cholesky(toy: Toy, latents: int, generator: Generator) -> nn.Module:
    """Precision learned in full around 0, the document's words."""
    return CholeskyPrior(latents)


def lifted(graph: Graph, latents: int) -> Graph:
    """The graph of ``F`` features over ``K >= F`` latents: latent ``i < F`` is feature ``i``.

    The spare latents are isolated nodes. Latents are exchangeable before training, so the choice of
    *which* latent stands for a feature costs nothing; whether training then puts the feature there
    is the gauge question that MCC and the shuffled control answer.
    """
    return Graph(graph.edges, graph.weights, latents, signed=graph.signed)


def closest(graph: Graph, correlation: Tensor) -> tuple[float, float]:
    r"""Ridge γ and strength λ whose Gaussian is closest to the true one, spares independent.

    They minimise :math:`\mathrm{KL}(N(0, C \oplus I) \| N(0, (γI + λL)^{-1}))`, that is,
    :math:`\mathrm{tr}(ΛΣ) - \log\det Λ`, convex in ``(γ, λ)``.
    """
    if not graph.num_edges:
        return 1.0, 1.0
    covariance = np.eye(graph.num_nodes)
    features = len(correlation)
    covariance[:features, :features] = correlation.double().numpy()
    values, vectors = np.linalg.eigh(graph.laplacian().toarray())
    values = values.clip(min=0.0)  # a null vector's eigenvalue is rounding of either sign
    variance = np.einsum("ik,ij,jk->k", vectors, covariance, vectors)

    def objective(log_both: np.ndarray) -> tuple[float, np.ndarray]:
        ridge, strength = np.exp(log_both)
        precision = ridge + strength * values
        slope = variance - 1 / precision
        gradient = np.array([ridge * slope.sum(), strength * (slope * values).sum()])
        return float((precision * variance - np.log(precision)).sum()), gradient

    found = minimize(objective, np.zeros(2), jac=True, method="BFGS")
    ridge, strength = np.exp(found.x)
    return float(ridge), float(strength)


LAMBDAS = (0.01, 0.03, 0.06, 0.1, 0.2, 0.4, 0.8)
BETAS = (0.05, 0.15, 0.4, 1.0, 2.5, 6.0)

_PRIORS: dict[str, tuple[str, MakePrior]] = {
    "isotropic": ("V-SAE isotropic", isotropic),
    "diagonal": ("V-SAE diagonal, learned scales", diagonal),
    "equicorrelated": ("V-SAE equicorrelated 0.8", equicorrelated),
    "cholesky": ("V-SAE learned Cholesky", cholesky),
    "block_diagonal": ("V-SAE block-diagonal", block_diagonal),
    "graph": ("V-SAE graph-Laplacian, true graph", graph_laplacian),
    "shuffled": ("V-SAE graph-Laplacian, shuffled graph", shuffled_laplacian),
}
_LINEAR: dict[str, tuple[str, MakePrior]] = {
    "linear_isotropic": ("V-SAE isotropic, linear code", linear_isotropic),
    "linear_cholesky": ("V-SAE learned Cholesky, linear code", linear_cholesky),
}

ARMS: dict[str, AbstractArm] = (
    {"l1": L1Arm(label="ℓ1 SAE", strength=0.1, sweep=LAMBDAS)}
    | {
        name: VariationalArm(
            label=label,
            prior=make,
            strength=1.0,
            sweep=BETAS,
            per_case=name == "block_diagonal",
        )
        for name, (label, make) in _PRIORS.items()
    }
    | {
        name: VariationalArm(
            label=label,
            prior=make,
            strength=1.0,
            sweep=BETAS,
            threshold=THRESHOLD,
            rectified=False,
            data=("gaussian",),
        )
        for name, (label, make) in _LINEAR.items()
    }
)
"""By name. The linear ones are document A's model as written; the others rectify the latents."""


def alpha(beta: float) -> float:
    """α of "MSE + α·KL", where MSE is summed over neurons: ``2σ²β``."""
    return 2 * NOISE**2 * beta


def noise_of(alpha: float) -> float:
    """σ at β = 1 of "MSE + α·KL"."""
    return math.sqrt(alpha / 2)
