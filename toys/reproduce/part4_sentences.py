"""Crosscoders over sentences, codes smooth over a graph of the rows, as document B trained them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from priors.flat import FlatPrior
from priors.graph import Graph
from priors.laplace import LaplacePrior
from priors.penalties import sample_graph_smoothness
from toys.reproduce.jobs import Found, Job
from toys.reproduce.part4_neighbours import Neighbourhoods
from toys.reproduce.part4_scores import at_targets, fidelity, sparsity
from toys.reproduce.part4_streams import Streams, streams
from toys.reproduce.part4_tokens import RANKED, RENAMED, untrained
from toys.reproduce.part4_training import MakeBatches, Training, encoded, trained
from vsae.batches import Batches, stream
from vsae.edge_batches import EdgeBatches
from vsae.layered_autoencoder import LayeredAutoencoder
from vsae.presets import point_crosscoder
from vsae.sample_graph_elbo import SampleGraphELBO
from vsae.target_l0 import TargetL0


def random_batches(graph: Graph) -> MakeBatches:
    """Rows in random order."""
    return Batches


def edge_batches(graph: Graph) -> MakeBatches:
    """Both ends of random edges."""
    return partial(EdgeBatches, graph)


@dataclass(frozen=True)
class RowArm:
    """What is trained.

    Args:
        label: As tables have it.
        prior: Of the number of latents.
        smooth: λ over β: the smoothness's share of what the controller moves.
        shuffled: Whether the graph's rows are renamed at random.
        batches: What makes batches of the graph.
    """

    label: str
    prior: Callable[[int], nn.Module]
    smooth: Callable[[float], float]
    shuffled: bool = False
    batches: Callable[[Graph], MakeBatches] = random_batches


def _none(ratio: float) -> float:
    return 0.0


def _all(ratio: float) -> float:
    return 1.0


def _some(ratio: float) -> float:
    return ratio


ROW_ARMS = {
    "l1": RowArm("ℓ1", LaplacePrior, _none),
    "smooth": RowArm("smooth", FlatPrior, _all),
    "shuffled": RowArm("smooth, shuffled", FlatPrior, _all, True),
    "mixed": RowArm("smooth + ℓ1", LaplacePrior, _some),
    "mixed-shuffled": RowArm("smooth + ℓ1, shuffled", LaplacePrior, _some, True),
    "l1-edges": RowArm("ℓ1, edge batches", LaplacePrior, _none, False, edge_batches),
    "smooth-edges": RowArm("smooth, edge batches", FlatPrior, _all, False, edge_batches),
    "shuffled-edges": RowArm("smooth, shuffled, edge batches", FlatPrior, _all, True, edge_batches),
    "mixed-edges": RowArm("smooth + ℓ1, edge batches", LaplacePrior, _some, False, edge_batches),
    "mixed-shuffled-edges": RowArm(
        "smooth + ℓ1, shuffled, edge batches", LaplacePrior, _some, True, edge_batches
    ),
}
"""By name; ``-edges`` with batches of edges."""


class Scaled:
    """A schedule that is another times a number.

    Args:
        schedule: ``step -> β``.
        factor: The number.
    """

    def __init__(self, schedule: TargetL0, factor: float) -> None:
        self.schedule, self.factor = schedule, factor

    def __call__(self, step: int) -> float:
        return self.factor * float(self.schedule(step))


@dataclass(frozen=True, kw_only=True)
class SentenceControlJob(Job):
    """What neighbourhoods are worth without any crosscoder, of rows that are sentences.

    Args:
        stories: Stories read.
        latents: Numbers of a random projection.
        target: Numbers that principal components and a cut projection have.
        permutations: Of the null.
    """

    stories: int
    latents: int
    target: int
    permutations: int

    def compute(self) -> Found:
        found = streams(self.stories)
        rows, near = found.means, Neighbourhoods.of(found.points, stream(0, RANKED))
        points = untrained(rows, self.latents, (self.target,))
        scored = {
            name: near.score(values, stream(0, RANKED), permutations=self.permutations)
            for name, values in points.items()
        }
        row = {"arm": "controls", "label": "controls", "seconds": 0.0, "failed": None}
        return Found(row | {"controls": scored, "queries": len(found.held)})


@dataclass(frozen=True, kw_only=True)
class SentenceJob(Job):
    """One arm.

    Args:
        stories: Stories read.
        arm: A name in ``ROW_ARMS``.
        target: L0 that β and λ aim at.
        seed: Of everything.
        training: How.
        ratio: λ / β of the arms with ℓ1, too.
        permutations: Of the null of neighbourhoods.
    """

    stories: int
    arm: str
    target: int
    seed: int
    training: Training
    ratio: float
    permutations: int

    def compute(self) -> Found:
        found, arm = streams(self.stories), ROW_ARMS[self.arm]
        graph = found.sentences.graph
        if arm.shuffled:
            graph = graph.shuffled(stream(self.seed, RENAMED))
        pair, beta = self.pair(arm, found), self.training.beta(self.target, 1.0)
        row = {"arm": self.arm, "label": arm.label, "target": self.target, "seed": self.seed}
        row |= trained(
            pair,
            found.means.train,
            self.training,
            beta=beta,
            seed=self.seed,
            elbo=SampleGraphELBO(graph, strength=Scaled(beta, arm.smooth(self.ratio))),
            batches=arm.batches(graph),
        )
        row |= self.met(row["curve"], graph)
        return Found(row if row["failed"] else row | self.measured(pair, found))

    def pair(self, arm: RowArm, found: Streams) -> LayeredAutoencoder:
        """Untrained."""
        rows = found.means
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            prior = arm.prior(self.training.latents)
            return point_crosscoder(rows.layers, prior, normalizer=rows.units)

    def met(self, curve: list[dict], graph: Graph) -> dict[str, float]:
        """Edges that a batch had on average, and that one of random rows is expected to have."""
        rows, batch = graph.num_nodes, self.training.batch
        expected = graph.num_edges * batch * (batch - 1) / (rows * (rows - 1))
        found = sum(point["edges"] for point in curve) / max(1, len(curve))
        return {"edges": found, "edges_expected": expected}

    def measured(self, pair: LayeredAutoencoder, found: Streams) -> dict:
        """Of held-out sentences."""
        rows = found.means
        codes = encoded(pair, rows.test)
        row = sparsity(codes) | fidelity(pair, rows, codes)
        row |= {"cut": at_targets(pair, rows, codes, (self.target,))}
        row |= row_roughness(codes, Graph.knn(found.points, 16), self.seed)
        near = Neighbourhoods.of(found.points, stream(0, RANKED))
        generator = stream(self.seed, RANKED)
        row["neighbours"] = near.score(codes, generator, permutations=self.permutations)
        return row


def row_roughness(codes: Tensor, graph: Graph, seed: int) -> dict[str, float | None]:
    """tr(ZᵀLZ) / ‖Z‖² over the degree-normalised graph of held-out rows, and over it shuffled."""
    square, wide = float(codes.double().square().sum()), codes.double()
    graphs = {"rough": graph, "rough_shuffled": graph.shuffled(stream(seed, RENAMED))}
    return {
        name: float(sample_graph_smoothness(wide, g.normalized())) / square if square else None
        for name, g in graphs.items()
    }
