"""Which latents belong together, read off a first ℓ1 run; and priors that believe it."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.special import ndtri
from torch import Tensor, nn

from priors import (
    BlockDiagonalPrior,
    CholeskyPrior,
    Graph,
    GraphLaplacianPrior,
    IsotropicPrior,
)
from vsae.batches import stream

ISOTROPIC, GRAPH, SHUFFLED = "isotropic", "graph-Laplacian", "shuffled graph"
SHUFFLE = 7_000_000  # the random stream of the shuffled graph


@dataclass(frozen=True, eq=False)
class Structure:
    """What the first run shows of its latents.

    Args:
        correlation: Pearson correlation of codes over training rows; 0 for latents that never fire.
        graph: Each latent tied to those most correlated with it, weight = correlation, positive
            ones only.
        shuffled: The same graph, latents renamed at random: the control.
        labels: The block of each latent, from 0: Ward clusters of the codes.
    """

    correlation: Float[Tensor, "K K"]
    graph: Graph
    shuffled: Graph
    labels: Int[Tensor, " K"]


def structure(
    codes: Float[Tensor, "rows K"], *, neighbours: int, blocks: int, seed: int
) -> Structure:
    r"""Graph and blocks of co-activation.

    A latent is the point made of its standardised codes on all rows, so that cosine similarity is
    correlation and the squared distance of unit points is ``2(1 − correlation)``, on which the
    clusters are built by Ward's rule.

    Args:
        codes: Of the first run, on training rows.
        neighbours: Per latent.
        blocks: Clusters at most.
        seed: Of the shuffled graph.
    """
    points = nn.functional.normalize((codes - codes.mean(0)).double(), dim=0).mT.contiguous()
    graph = Graph.knn(points, neighbours)
    correlation = points @ points.mT
    distance = (2 - 2 * correlation).clamp(min=0).sqrt().numpy()
    condensed = distance[np.triu_indices(len(distance), 1)]
    labels = fcluster(linkage(condensed, "ward"), blocks, "maxclust") - 1
    return Structure(
        correlation=correlation,
        graph=graph,
        shuffled=graph.shuffled(stream(seed, SHUFFLE)),
        labels=torch.from_numpy(labels.astype(np.int64)),
    )


@dataclass(frozen=True)
class Belief:
    """What every V-SAE arm believes of one latent before seeing data.

    Args:
        mean: Of the pre-activation, negative.
        scale: Its standard deviation; where latents are coupled, the root mean marginal variance.
    """

    mean: float
    scale: float

    @classmethod
    def matching(cls, density: float, size: float) -> "Belief":
        r"""The Gaussian that is positive with probability ``density`` and then of root mean square
        ``size``.

        .. math:: m = -t s, \quad \Phi(-t) = \mathrm{density}, \quad
            s^2\,(1 + t^2 - t\,\varphi(t) / \Phi(-t)) = \mathrm{size}^2

        Example:
            >>> Belief.matching(0.5, 2.0).scale
            2.0
        """
        t = -float(ndtri(density))
        hazard = math.exp(-(t**2) / 2) / math.sqrt(2 * math.pi) / density
        scale = size / math.sqrt(1 + t**2 - t * hazard)
        return cls(-t * scale, scale)


def priors(found: Structure, belief: Belief, *, ratio: float) -> dict[str, nn.Module]:
    """A fresh prior for every V-SAE arm, by name, equal in mean and average marginal variance.

    Args:
        found: Graph and blocks.
        belief: Mean and scale; those of the learned priors are where they begin.
        ratio: Strength over ridge of the graph priors.
    """
    latents, mean, scale = len(found.labels), belief.mean, belief.scale
    return {
        ISOTROPIC: IsotropicPrior(latents, scale=scale, loc=mean),
        "learned Cholesky": CholeskyPrior(latents, scale=scale, loc=mean),
        "block-diagonal": BlockDiagonalPrior.from_labels(found.labels, scale=scale, loc=mean),
        GRAPH: laplacian_prior(found.graph, belief, ratio=ratio),
        SHUFFLED: laplacian_prior(found.shuffled, belief, ratio=ratio),
    }


def laplacian_prior(graph: Graph, belief: Belief, *, ratio: float) -> GraphLaplacianPrior:
    r"""``γ(I + ratio · L)`` with γ such that the mean marginal variance is ``belief.scale²``.

    The mean marginal variance is the mean of :math:`1 / (γ(1 + \mathrm{ratio}\, ν_k))` over the
    eigenvalues of the Laplacian; renaming latents does not change it.
    """
    values = torch.linalg.eigvalsh(torch.from_numpy(graph.laplacian().toarray())).clamp(min=0)
    ridge = float((1 / (1 + ratio * values)).mean()) / belief.scale**2
    return GraphLaplacianPrior(graph, ridge=ridge, strength=ratio * ridge, loc=belief.mean)


def prior_correlation(prior: nn.Module) -> Float[Tensor, "K K"]:
    """Correlation matrix of a Gaussian prior, dense: for a picture of a few hundred latents."""
    covariance = prior_covariance(prior)
    scale = covariance.diagonal().sqrt()
    return covariance / scale / scale[:, None]


@torch.no_grad()
def prior_covariance(prior: nn.Module) -> Float[Tensor, "K K"]:
    """The covariance: ``unwhiten`` is linear in its noise, so the identity gives its matrix."""
    precision = prior().precision
    factor = precision.unwhiten(torch.eye(precision.noise_size))
    return factor.mT @ factor
