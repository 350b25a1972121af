"""The arms of the factorial: which penalty or prior, deterministic or variational, which graph."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from priors.coactivation import coactivation_graph
from priors.flat import FlatPrior
from priors.graph import Graph
from priors.isotropic import IsotropicPrior
from priors.laplace import LaplacePrior
from priors.laplacian import GraphLaplacianPrior
from priors.lifted import lifted_graph
from priors.log_determinant import Omitted
from priors.product import ProductPrior
from toys.label_graphs import LabelGraph
from toys.reproduce.part4_streams import Rows, Streams
from vsae.layered_autoencoder import LayeredAutoencoder
from vsae.presets import point_crosscoder, topk_crosscoder, variational_crosscoder

RIDGE = 0.1
"""γ of every graph prior; λ is 1 - γ, so that precisions have a diagonal of 1, as without edges."""
LOC = -1.0
"""Prior mean of the variational arms, below the threshold of their rectifier, and of two more."""
NOISE = 0.5
"""σ of the variational arms, in normalised units."""

MakePrior = Callable[[int, Graph | None, float], nn.Module]
MakePair = Callable[[Rows, nn.Module, int], LayeredAutoencoder]
MakeGraph = Callable[[Streams, Tensor, Tensor, Tensor, int], Graph]


def gaussian(latents: int, graph: Graph | None, loc: float = 0.0) -> nn.Module:
    """γI + λL of the degree-normalised graph; without a graph the identity, its diagonal."""
    if graph is None:
        return IsotropicPrior(latents, loc=loc)
    found = graph.normalized()
    return GraphLaplacianPrior(found, ridge=RIDGE, strength=1 - RIDGE, loc=loc, logdet=Omitted())


def mixed(latents: int, graph: Graph | None, ratio: float) -> nn.Module:
    """-log p = ½ ω zᵀΛz + ‖z‖₁, ω being ``ratio`` and Λ as of :func:`gaussian`."""
    laplace = LaplacePrior(latents)
    if graph is None:
        return ProductPrior(IsotropicPrior(latents, scale=ratio**-0.5), laplace)
    smooth = GraphLaplacianPrior(
        graph.normalized(), ridge=ratio * RIDGE, strength=ratio * (1 - RIDGE), logdet=Omitted()
    )
    return ProductPrior(smooth, laplace)


def deterministic(rows: Rows, prior: nn.Module, k: int) -> LayeredAutoencoder:
    """A ReLU code that pays the prior's -log density."""
    return point_crosscoder(rows.layers, prior, normalizer=rows.units)


def variational(rows: Rows, prior: nn.Module, k: int) -> LayeredAutoencoder:
    """A rectified Gaussian code that pays the KL."""
    return variational_crosscoder(
        rows.layers, prior, noise=NOISE, link=nn.ReLU(), normalizer=rows.units
    )


def topk(rows: Rows, prior: nn.Module, k: int) -> LayeredAutoencoder:
    """The k greatest, and no penalty."""
    return topk_crosscoder(rows.layers, prior.dim, k=k, normalizer=rows.units)


def lifted(labels: LabelGraph, codes: Tensor, rows: Tensor, neighbours: int) -> Graph:
    """A graph over labels as one over latents, through the codes of rows that have a label."""
    of_rows = labels.labels[rows]
    known = of_rows >= 0
    return lifted_graph(labels.graph, codes[known], neighbours, nodes=of_rows[known])


def from_sentences(found: Streams, codes: Tensor, rows: Tensor, atoms: Tensor, k: int) -> Graph:
    """Latents active in sentences that GloVe has near each other."""
    return lifted(found.sentences, codes, rows, k)


def from_words(found: Streams, codes: Tensor, rows: Tensor, atoms: Tensor, k: int) -> Graph:
    """Latents active on words that GloVe has near each other."""
    return lifted(found.words, codes, rows, k)


def from_categories(found: Streams, codes: Tensor, rows: Tensor, atoms: Tensor, k: int) -> Graph:
    """Latents active on nouns of neighbouring categories."""
    return lifted(found.categories, codes, rows, k)


def from_codes(found: Streams, codes: Tensor, rows: Tensor, atoms: Tensor, k: int) -> Graph:
    """Latents active together."""
    return coactivation_graph(codes, k)


def from_atoms(found: Streams, codes: Tensor, rows: Tensor, atoms: Tensor, k: int) -> Graph:
    """Latents whose atoms point the same way."""
    return Graph.knn(atoms, k)


def from_all(found: Streams, codes: Tensor, rows: Tensor, atoms: Tensor, k: int) -> Graph:
    """Sentences, words and categories together, each of a mean degree of 1."""
    makers: Sequence[MakeGraph] = (from_sentences, from_words, from_categories)
    graphs = [make(found, codes, rows, atoms, k) for make in makers]
    some = [graph for graph in graphs if graph.num_edges]
    return Graph.combine(some, [1 / float(graph.degree.mean()) for graph in some])


@dataclass(frozen=True)
class Arm:
    """What is trained.

    Args:
        label: As tables have it.
        prior: Of the number of latents, a graph (``None`` before there is one) and ω.
        pair: The crosscoder under that prior.
        graph: What the couplings come from; ``None`` for none.
        shuffled: Whether its latents are renamed at random.
        start: β to begin with; 0 where β decides nothing.
    """

    label: str
    prior: MakePrior
    pair: MakePair = deterministic
    graph: MakeGraph | None = None
    shuffled: bool = False
    start: float = 1.0


def _plain(latents: int, graph: Graph | None, ratio: float) -> nn.Module:
    return gaussian(latents, graph)


def _below(latents: int, graph: Graph | None, ratio: float) -> nn.Module:
    return gaussian(latents, graph, LOC)


def _flat(latents: int, graph: Graph | None, ratio: float) -> nn.Module:
    return FlatPrior(latents)


def _laplace(latents: int, graph: Graph | None, ratio: float) -> nn.Module:
    return LaplacePrior(latents)


ARMS = {
    "none": Arm("none", _flat, start=0.0),
    "l1": Arm("ℓ1", _laplace),
    "isotropic": Arm("isotropic", _plain),
    "isotropic-low": Arm("isotropic, low mean", _below),
    "graph": Arm("graph", _plain, graph=from_sentences),
    "graph-low": Arm("graph, low mean", _below, graph=from_sentences),
    "shuffled": Arm("graph, shuffled", _plain, graph=from_sentences, shuffled=True),
    "mixed": Arm("graph + ℓ1", mixed, graph=from_sentences),
    "mixed-shuffled": Arm("graph + ℓ1, shuffled", mixed, graph=from_sentences, shuffled=True),
    "v-isotropic": Arm("KL, isotropic", _below, variational),
    "v-graph": Arm("KL, graph", _below, variational, from_sentences),
    "v-shuffled": Arm("KL, graph, shuffled", _below, variational, from_sentences, True),
    "topk": Arm("TopK", _flat, topk, start=0.0),
}
"""The factorial and its reference, by name."""

OTHERS = {
    "coactivation": Arm("graph: co-activation", _plain, graph=from_codes),
    "cosine": Arm("graph: decoder cosine", _plain, graph=from_atoms),
    "words": Arm("graph: words, lifted", _plain, graph=from_words),
    "categories": Arm("graph: categories, lifted", _plain, graph=from_categories),
    "combined": Arm("graph: sentences, words, categories", _plain, graph=from_all),
    "v-coactivation": Arm("KL, graph: co-activation", _below, variational, from_codes),
    "v-combined": Arm("KL, graph: all three", _below, variational, from_all),
}
"""Other graphs, for one seed."""

EVERY = ARMS | OTHERS


def start(arm: Arm, rows: Rows, latents: int, k: int, ratio: float, seed: int):
    """The untrained model, its couplings still to come."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return arm.pair(rows, arm.prior(latents, None, ratio), k)
