"""Structure of gates where it is known: pairs, blocks and trees, given to latents early or late."""

import copy
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from priors.graph import Graph
from priors.ising_gates import IsingGatesPrior
from priors.tree_gates import TreeGatesPrior
from toys.reproduce.jobs import Found, Job
from toys.reproduce.recovery_data import Draw, Problem, ancestors, exclusions, problem
from toys.reproduce.recovery_plan import draw, latents_of
from toys.reproduce.recovery_scores import encoded, plain, scores
from toys.reproduce.recovery_settings import Settings
from toys.reproduce.recovery_structure import (
    EXCLUSION,
    LEAK,
    NEAR,
    RATE,
    SHUFFLE,
    SIGNIFICANT,
    Gates,
    couplings_of,
    edges_found,
    learned,
    none,
    parents_of_latents,
    shuffled,
)
from toys.reproduce.recovery_synthetic import described
from vsae import metrics
from vsae.autoencoder import Autoencoder
from vsae.batches import stream
from vsae.cofiring_gates import lift_graph
from vsae.errors import NonFiniteLossError
from vsae.recipes.recovery import RecoveryRecipe
from vsae.run import Run

GATES = "gates"  # the arm of all rows
STRENGTH = 0.7  # of log-lifts that are true, and do not feed on themselves
LATER = 0.5  # rows after gates are given late, as a share of the slab phase
FROM_L1, FROM_SLAB = "from ℓ1", "from the slab"  # whose latents are told


def true(found: Problem, recipe: RecoveryRecipe) -> Gates:
    """The features' own pairs, blocks or trees, for the latents that stand for them."""

    def gates(pair: Autoencoder) -> nn.Module:
        if found.parents is not None:
            return on_tree(parents_of_latents(pair.W_dec, found.toy.dictionary, found.parents))
        latents = torch.arange(len(pair.W_dec))
        return on_pairs(found, pair, latents)

    return gates


def true_shuffled(found: Problem, recipe: RecoveryRecipe) -> Gates:
    """The control: the same structure of other latents."""

    def gates(pair: Autoencoder) -> nn.Module:
        generator = stream(found.draw.generator, SHUFFLE)
        if found.parents is not None:
            parents = parents_of_latents(pair.W_dec, found.toy.dictionary, found.parents)
            return on_tree(metrics.shuffled_parents(parents, generator))
        return on_pairs(found, pair, torch.randperm(len(pair.W_dec), generator=generator))

    return gates


def on_tree(parents: Tensor) -> nn.Module:
    """Parents gate children and siblings exclude each other, as on Data A."""
    return TreeGatesPrior(parents, rate=RATE, leak=LEAK, exclusion=EXCLUSION)


def on_pairs(found: Problem, pair: Autoencoder, names: Tensor) -> nn.Module:
    """Couplings of the log-lifts of true firings, for latents under other names."""
    fires = (found.codes > 0).double()
    rows = torch.tensor(float(len(fires)))
    graph = lift_graph(fires.mT @ fires, rows, strength=STRENGTH, significance=SIGNIFICANT)
    latent = metrics.match(pair.W_dec, found.toy.dictionary, threshold=NEAR).latents
    edges = latent[graph.edges]
    known = (edges >= 0).all(0)
    told = Graph(names[edges[:, known]], graph.weights[known], len(names), signed=True)
    return IsingGatesPrior(told, rate=RATE)


GIVEN: dict[str, Callable[[Problem, RecoveryRecipe], Gates]] = {
    "none": none,
    "true": true,
    "true, shuffled": true_shuffled,
}
"""What can be told at any time, by name."""

EARLY = GIVEN | {"learned": learned, "learned, shuffled": shuffled}
"""And what is learned while the slab trains."""


@dataclass(frozen=True, kw_only=True)
class AbstractGatesJob(Job):
    """One draw under every structure, *from the latents of one phase*.

    Args:
        draw: Which rows.
        latents: ``K``.
        recipe: Ours; without moves where structure is given to what they would change.
    """

    draw: Draw
    latents: int
    recipe: RecoveryRecipe

    @property
    @abstractmethod
    def start(self) -> str:
        """Whose latents are told."""

    @abstractmethod
    def pairs(self, found: Problem) -> Iterator[tuple[str, Autoencoder]]:
        """The trained pairs by structure."""

    def compute(self) -> Found:
        found, begun = problem(self.draw), time.process_time()
        row = described(self.draw, GATES) | {"start": self.start, "models": []}
        try:
            for structure, pair in self.pairs(found):
                codes = encoded(pair, found.test).values
                model = scores(found, pair) | structure_found(found, pair, codes)
                row["models"].append({"structure": structure} | model)
        except NonFiniteLossError as error:
            row["failed"] = str(error)
        return Found(plain(row | {"seconds": time.process_time() - begun}))


class EarlyGatesJob(AbstractGatesJob):
    """Structure from the slab's first step on, given to the latents that ℓ1 found, or learned."""

    @property
    def start(self) -> str:
        return FROM_L1

    def pairs(self, found: Problem) -> Iterator[tuple[str, Autoencoder]]:
        seed, still = self.draw.generator, replace(self.recipe, moves=0)
        first = brought(still.l1_phase(found.train, latents=self.latents, seed=seed))
        for name, structure in EARLY.items():
            told = replace(still, gates=structure(found, still))
            slab = told.slab_phase(copy.deepcopy(first), found.train, seed=seed)
            yield name, brought(told.final_phase(brought(slab), found.train, seed=seed))


class LateGatesJob(AbstractGatesJob):
    """Structure given to the latents that the slab found, with moves; then training goes on."""

    @property
    def start(self) -> str:
        return FROM_SLAB

    def pairs(self, found: Problem) -> Iterator[tuple[str, Autoencoder]]:
        seed, recipe = self.draw.generator, self.recipe
        first = brought(recipe.l1_phase(found.train, latents=self.latents, seed=seed))
        slab = brought(recipe.slab_phase(first, found.train, seed=seed))
        longer = replace(recipe, final_rows=int(LATER * recipe.slab_rows))
        for name, structure in GIVEN.items():
            pair = copy.deepcopy(slab)
            tell(pair, structure(found, recipe))
            yield name, brought(longer.final_phase(pair, found.train, seed=seed))


def brought(run: Run) -> Autoencoder:
    """To its end."""
    run.run(progress=False)
    return run.autoencoder


def tell(pair: Autoencoder, gates: Gates) -> None:
    """Other gates at the same rates, in place; those it has for nothing."""
    if gates is not None:
        prior = pair.model.prior.prior
        told = gates(pair)
        told.match(prior().probability)
        prior.gates = told


def structure_found(found: Problem, pair: Autoencoder, codes: Tensor) -> dict:
    """Edges and blocks, of couplings that were learned, else of what fires together."""
    graph, truth = couplings_of(pair, codes), related(found)
    matching = metrics.match(pair.W_dec, found.toy.dictionary)
    weights = matching.of_latents(torch.from_numpy(graph.adjacency().toarray()))
    blocks = None
    if len(matching.matched):
        together = matching.of_features(truth["together"])
        blocks = metrics.adjusted_rand_index(components(weights > 0), components(together))
    return {"edges": edges_found(graph, truth, matching), "blocks": blocks}


def related(found: Problem) -> Mapping[str, Tensor]:
    """Pairs of features that fire together, and that exclude each other, more than by chance."""
    if found.parents is not None:
        return {"together": ancestors(found.parents), "exclusive": exclusions(found.parents)}
    alone = ~torch.eye(len(found.toy.dictionary), dtype=torch.bool)
    correlation = found.toy.correlation
    return {"together": (correlation > 0) & alone, "exclusive": (correlation < 0) & alone}


def components(edges: Tensor) -> Tensor:
    """The connected component of every node.

    Example:
        >>> components(torch.tensor([[0, 1, 0], [1, 0, 0], [0, 0, 0]])).tolist()
        [0, 0, 1]
    """
    return torch.from_numpy(connected_components(csr_matrix(edges.numpy()))[1]).long()


def gates_jobs(chosen: Settings) -> Iterator[AbstractGatesJob]:
    """Every case of known structure, both ways."""
    for case in chosen.gated:
        for seed in chosen.seeds:
            for kind in (EarlyGatesJob, LateGatesJob):
                yield kind(
                    draw=draw(case, seed, chosen),
                    latents=latents_of(case, chosen),
                    recipe=chosen.small_recipe,
                )
