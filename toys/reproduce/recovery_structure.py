"""Structure between gates: none, the true trees, learned from co-firing, or that shuffled."""

import math
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from priors.graph import Graph
from priors.ising_gates import IsingGatesPrior
from priors.tree_gates import TreeGatesPrior
from toys.reproduce.recovery_data import Problem, ancestors, exclusions
from toys.reproduce.recovery_scores import encoded
from vsae import metrics
from vsae.autoencoder import Autoencoder
from vsae.batches import stream
from vsae.cofiring_gates import CoFiringGatesPrior, lift_graph
from vsae.recipes.recovery import RecoveryRecipe

SHUFFLE = 15_000_000  # a random stream
NEAR = 0.5  # the cosine from which an atom of the ℓ1 phase stands for a feature
LEAK, EXCLUSION = 0.01, 3.0  # of the true trees
RATE = 0.01  # of all gates, until they are fitted
START = 0.2  # the share of the slab phase before counting begins
SIGNIFICANT = 5.0  # standard deviations, of couplings that are read off after training

Gates = Callable[[Autoencoder], nn.Module] | None


def none(found: Problem, recipe: RecoveryRecipe) -> Gates:
    """Independent gates."""
    return None


def true_trees(found: Problem, recipe: RecoveryRecipe) -> Gates:
    """Parents gate children and siblings exclude, for the latents that ℓ1 has already found."""

    def gates(pair: Autoencoder) -> nn.Module:
        parents = parents_of_latents(pair.W_dec, found.toy.dictionary, found.parents)
        return TreeGatesPrior(parents, rate=RATE, leak=LEAK, exclusion=EXCLUSION)

    return gates


def learned(found: Problem, recipe: RecoveryRecipe) -> Gates:
    """Couplings from co-firing."""
    return lambda pair: cofiring(len(pair.W_dec), recipe, None)


def shuffled(found: Problem, recipe: RecoveryRecipe) -> Gates:
    """The control: as many couplings, estimated alike, given to other latents."""

    def gates(pair: Autoencoder) -> nn.Module:
        generator = stream(found.draw.generator, SHUFFLE)
        order = torch.randperm(len(pair.W_dec), generator=generator)
        return cofiring(len(pair.W_dec), recipe, order)

    return gates


STRUCTURES: dict[str, Callable[[Problem, RecoveryRecipe], Gates]] = {
    "none": none,
    "true": true_trees,
    "learned": learned,
    "shuffled": shuffled,
}
"""By name, in the order of tables."""


def cofiring(latents: int, recipe: RecoveryRecipe, relabelling: Tensor | None) -> nn.Module:
    """Couplings that are counted from a fifth of the slab phase on."""
    start = int(START * (recipe.slab_rows // recipe.batch_size))
    alone = IsingGatesPrior(Graph.blocks((1,) * latents), rate=RATE)
    return CoFiringGatesPrior(alone, start=start, relabelling=relabelling)


def parents_of_latents(
    atoms: Float[Tensor, "K d"], features: Float[Tensor, "F d"], parents: Tensor
) -> Tensor:
    """The parent of each latent, where it and its parent stand for features so related; else -1."""
    latent = metrics.match(atoms, features, threshold=NEAR).latents
    found = torch.full((len(atoms),), -1)
    for child in (parents >= 0).nonzero().flatten().tolist():
        if latent[child] >= 0 and latent[parents[child]] >= 0:
            found[latent[child]] = latent[parents[child]]
    return found


def structure_scores(found: Problem, pair: Autoencoder) -> dict:
    """Couplings against the trees: edges of features that fire together, and that exclude.

    Couplings are those of the prior where it learned them, else read off held-out codes.
    """
    codes = encoded(pair, found.test).values
    graph = couplings_of(pair, codes)
    matching = metrics.match(pair.W_dec, found.toy.dictionary)
    truth = {"together": ancestors(found.parents), "exclusive": exclusions(found.parents)}
    inferred = metrics.infer_parents(codes).parents
    family = metrics.parent_recovery(pair.W_dec, inferred, found.toy.dictionary, found.parents)
    matched = len(matching.matched)
    return edges_found(graph, truth, matching) | {
        "parents": family.__dict__,
        "matched": matched,
        "couplings": graph.num_edges,
    }


def couplings_of(pair: Autoencoder, codes: Float[Tensor, "rows K"]) -> Graph:
    """Those of the prior where it learned them, else read off codes."""
    gates = pair.model.prior.prior.gates
    return gates.gates.couplings if isinstance(gates, CoFiringGatesPrior) else coupled(codes)


def edges_found(
    graph: Graph, truth: Mapping[str, Tensor], matching: metrics.Matching
) -> dict[str, dict]:
    """Positive couplings against what fires together, negative ones against what excludes."""
    weights = matching.of_latents(torch.from_numpy(graph.adjacency().toarray()))
    signed = {"together": weights.clamp(min=0), "exclusive": (-weights).clamp(min=0)}
    return {
        kind: metrics.edge_recovery(signed[kind], matching.of_features(true)).__dict__
        for kind, true in truth.items()
    }


def coupled(codes: Float[Tensor, "rows K"]) -> Graph:
    """Significant log-lifts of co-firing, of codes after training."""
    fires = (codes != 0).double()
    rows = torch.tensor(float(len(codes)))
    return lift_graph(fires.mT @ fires, rows, strength=1.0, significance=SIGNIFICANT)


def above_chance(edges: dict) -> bool:
    """Whether edges are found again beyond what renaming the nodes would give, by 5 deviations."""
    z = edges["z"]
    return z is not None and not math.isnan(z) and z > SIGNIFICANT
