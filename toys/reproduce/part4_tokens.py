"""A crosscoder over tokens under one of the arms, trained to an L0 and measured."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from priors.graph import Graph
from toys.reproduce.jobs import Found, Job
from toys.reproduce.part4_arms import EVERY, Arm, from_sentences, start
from toys.reproduce.part4_neighbours import Neighbourhoods, principal_components
from toys.reproduce.part4_scores import (
    at_targets,
    cut,
    fidelity,
    layer_use,
    roughness,
    sparsity,
    worth,
)
from toys.reproduce.part4_streams import Rows, Streams, streams
from toys.reproduce.part4_training import Training, encoded, trained
from vsae.batches import stream
from vsae.layered_autoencoder import LayeredAutoencoder

WEIGHTS, ROWS, RENAMED, RANKED, PROJECTED = 1_001, 1_002, 1_003, 1_004, 1_005  # random streams


@dataclass(frozen=True, kw_only=True)
class TokenJob(Job):
    """One arm.

    Args:
        stories: Stories read.
        arm: A name in ``EVERY``.
        target: L0 that β aims at; ``k`` of TopK.
        seed: Of everything.
        training: How.
        targets: Values of L0 that codes are cut to.
        ratio: ω of the arm with two penalties.
        network: Whether the network is run on the reconstruction.
        ranked: Whether neighbourhoods are scored.
        permutations: Of their null.
    """

    stories: int
    arm: str
    target: int
    seed: int
    training: Training
    targets: tuple[int, ...]
    ratio: float = 0.1
    network: bool = False
    ranked: bool = True
    permutations: int = 50

    def compute(self) -> Found:
        found, arm = streams(self.stories), EVERY[self.arm]
        pair = start(arm, found.tokens, self.training.latents, self.target, self.ratio, self.seed)
        row = {"arm": self.arm, "label": arm.label, "target": self.target, "seed": self.seed}
        row |= {"ratio": self.ratio}
        row |= trained(
            pair,
            found.tokens.train,
            self.training,
            beta=self.training.beta(self.target, arm.start) if arm.start else 1.0,
            seed=self.seed,
            refresh=lambda pair: self.coupled(pair, arm, found),
        )
        return Found(row if row["failed"] else row | self.measured(pair, found))

    def coupled(self, pair: LayeredAutoencoder, arm: Arm, found: Streams) -> nn.Module | None:
        """The prior with couplings of the codes of the moment."""
        if arm.graph is None:
            return None
        graph = self.graph(pair, arm.graph, found)
        return arm.prior(
            self.training.latents, self.renamed(graph) if arm.shuffled else graph, self.ratio
        )

    def graph(self, pair: LayeredAutoencoder, make, found: Streams) -> Graph:
        """Over latents, from codes of some training rows, cut to the wanted L0."""
        rows = found.some(self.training.graph_rows, stream(self.seed, ROWS))
        codes = cut(encoded(pair, found.tokens.train[rows]), self.target)
        atoms = pair.W_dec.detach()
        return make(found, codes, rows, atoms, self.training.neighbours)

    def renamed(self, graph: Graph) -> Graph:
        """The control: other latents tied, by one random order of latents for the whole run."""
        return renamed(graph, stream(self.seed, RENAMED))

    def measured(self, pair: LayeredAutoencoder, found: Streams) -> dict:
        """Everything, of held-out rows."""
        rows = found.tokens
        codes = encoded(pair, rows.test)
        graph = self.graph(pair, from_sentences, found)
        row = sparsity(codes) | fidelity(pair, rows, codes)
        row |= {"cut": at_targets(pair, rows, codes, self.targets)}
        row |= layer_use(pair, rows, codes)
        row |= {"rough": roughness(codes, graph), "edges": graph.num_edges}
        row["rough_shuffled"] = roughness(codes, self.renamed(graph))
        if self.ranked:
            row["neighbours"] = ranking(found, codes, self.seed, self.permutations)
        return row | (worth(pair, found) if self.network else {})


def renamed(graph: Graph, generator: Generator) -> Graph:
    """The graph shuffled among the latents that have neighbours.

    ``Graph.shuffled`` would also exchange them for dead latents, which have none and pay less: the
    control would be another arm. Degrees, weights and spectrum are kept all the same.

    Example:
        >>> graph = Graph.tree([-1, 0, 1, -1])  # 0 - 1 - 2, and 3 alone
        >>> renamed(graph, torch.Generator()).degree.tolist()[3]
        0.0
    """
    order = torch.rand(graph.num_nodes, generator=generator)
    tied = (graph.degree > 0).nonzero().flatten()
    new = torch.arange(graph.num_nodes)
    new[tied] = tied[order[tied].argsort()]
    return Graph(new[graph.edges], graph.weights, graph.num_nodes)


def ranking(found: Streams, codes: Tensor, seed: int, permutations: int) -> dict:
    """Of held-out sentences by their mean codes over tokens."""
    near = Neighbourhoods.of(found.points, stream(0, RANKED))
    generator = stream(seed, RANKED)
    return near.score(found.held.mean(codes), generator, permutations=permutations)


def untrained(rows: Rows, latents: int, targets: Sequence[int]) -> dict[str, Tensor]:
    """Held-out rows as they are, projected at random, along principal components."""
    train, test = (rows.units(x.flatten(1)) for x in (rows.train, rows.test))
    generator = stream(0, PROJECTED)
    projected = test @ torch.randn(test.shape[1], latents, generator=generator)
    points = {"raw activations": test, "random projection": projected}
    for target in targets:
        points[f"PCA, {target}"] = principal_components(train, test, target)
        points[f"random projection, {target} greatest"] = cut(projected.relu(), target)
    return points


@dataclass(frozen=True, kw_only=True)
class ControlJob(Job):
    """What neighbourhoods are worth without any crosscoder.

    Args:
        stories: Stories read.
        latents: Numbers of a random projection.
        targets: Numbers that principal components and cut projections have.
        permutations: Of the null.
    """

    stories: int
    latents: int
    targets: tuple[int, ...]
    permutations: int = 50

    def compute(self) -> Found:
        found = streams(self.stories)
        points = untrained(found.tokens, self.latents, self.targets)
        scored = {
            name: ranking(found, values, 0, self.permutations) for name, values in points.items()
        }
        row = {"arm": "controls", "label": "controls", "seconds": 0.0, "failed": None}
        return Found(row | {"controls": scored, "queries": len(found.held)})
