"""Structure between gates on the words: none, learned couplings, WordNet's tree; and shuffled."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from priors.graph import Graph
from priors.ising_gates import IsingGatesPrior
from priors.tree_gates import TreeGatesPrior
from toys.reproduce.recovery_scores import encoded
from toys.reproduce.recovery_structure import EXCLUSION, LEAK, RATE, SHUFFLE, START, Gates
from toys.reproduce.recovery_words_data import Words
from vsae import metrics
from vsae.autoencoder import Autoencoder
from vsae.batches import stream
from vsae.cofiring_gates import CoFiringGatesPrior
from vsae.recipes.recovery import RecoveryRecipe

STANDS = 0.3  # the F1 from which a latent of the ℓ1 phase stands for a concept
STRENGTH = 0.7  # of log-lifts: amplitudes of one size hold couplings back
EVERY = 5  # updates between two estimates of couplings: the phase is short


def none(words: Words, recipe: RecoveryRecipe, seed: int) -> Gates:
    """Independent gates."""
    return None


def learned(words: Words, recipe: RecoveryRecipe, seed: int) -> Gates:
    """Couplings from co-firing."""
    return lambda pair: cofiring(len(pair.W_dec), recipe, None)


def shuffled(words: Words, recipe: RecoveryRecipe, seed: int) -> Gates:
    """As many couplings, estimated alike, given to other latents."""

    def gates(pair: Autoencoder) -> nn.Module:
        latents = len(pair.W_dec)
        order = torch.randperm(latents, generator=stream(seed, SHUFFLE))
        return cofiring(latents, recipe, order)

    return gates


def tree(words: Words, recipe: RecoveryRecipe, seed: int) -> Gates:
    """WordNet's tree, for the latents that the ℓ1 phase has left for its concepts."""
    return lambda pair: on_tree(wordnet_parents(words, pair))


def tree_shuffled(words: Words, recipe: RecoveryRecipe, seed: int) -> Gates:
    """The same latents on the same levels, with as many children each: parents dealt anew.

    A dealing may give a latent its true parent again: :func:`edges` says how often.
    """

    def gates(pair: Autoencoder) -> nn.Module:
        return on_tree(shuffled_parents(wordnet_parents(words, pair), seed))

    return gates


STRUCTURES: dict[str, Callable[[Words, RecoveryRecipe, int], Gates]] = {
    "none": none,
    "learned": learned,
    "shuffled": shuffled,
    "tree": tree,
    "tree-shuffled": tree_shuffled,
}
"""By name, in the order of tables; each of the words, the recipe and a seed."""


def cofiring(latents: int, recipe: RecoveryRecipe, relabelling: Tensor | None) -> nn.Module:
    """Couplings that are counted from a fifth of the slab phase on."""
    start = int(START * (recipe.slab_rows // recipe.batch_size))
    alone = IsingGatesPrior(Graph.blocks((1,) * latents), rate=RATE)
    return CoFiringGatesPrior(
        alone, start=start, every=EVERY, strength=STRENGTH, relabelling=relabelling
    )


def on_tree(parents: Int[Tensor, " K"]) -> nn.Module:
    """Parents gate children and siblings exclude each other, as on Data A."""
    return TreeGatesPrior(parents, rate=RATE, leak=LEAK, exclusion=EXCLUSION)


def wordnet_parents(words: Words, pair: Autoencoder) -> Int[Tensor, " K"]:
    """The parent of each latent, from the words whose concepts are known."""
    codes = encoded(pair, words.vectors[words.known.words]).values
    similar = metrics.f1_similarities(codes, words.known.on.double())
    return latents_tree(similar, words.parents)


def shuffled_parents(parents: Int[Tensor, " K"], seed: int) -> Int[Tensor, " K"]:
    """Those of the shuffled tree."""
    return metrics.shuffled_parents(parents, stream(seed, SHUFFLE))


def edges(parents: Int[Tensor, " K"], seed: int) -> dict[str, float | int | None]:
    """Latents that a tree ties to a parent; the share of edges that the shuffle changed.

    Of no edges there is no share: with or without a tree, gates are then independent.
    """
    tied = parents >= 0
    moved = (shuffled_parents(parents, seed) != parents)[tied]
    share = float(moved.double().mean()) if len(moved) else None
    return {"tied": int(tied.sum()), "changed": share}


def latents_tree(
    similar: Float[Tensor, "K C"], parents: Int[Tensor, " C"], *, least: float = STANDS
) -> Int[Tensor, " K"]:
    """The tree of concepts, given to the latents that stand for them; -1 for all other latents.

    A latent stands for the concept that it is most like, if it is the one most like it and the
    likeness is at least ``least``. Its parent stands for the nearest such concept above.

    Example:
        >>> latents_tree(torch.tensor([[0.9, 0.2], [0.1, 0.6], [0.1, 0.5]]), torch.tensor([-1, 0]))
        tensor([-1,  0, -1])
    """
    likeness, concept = similar.max(1)
    own = torch.zeros_like(similar).scatter(1, concept[:, None], likeness[:, None])
    value, latent = own.max(0)
    stands = torch.where(value >= least, latent, -1).tolist()
    found = torch.full((len(similar),), -1)
    for node, at in enumerate(stands):
        above = int(parents[node])
        while above >= 0 and stands[above] < 0:
            above = int(parents[above])
        if at >= 0 and above >= 0:
            found[at] = stands[above]
    return found
