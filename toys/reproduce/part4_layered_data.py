"""The toys of ``part4``: a toy per seed, its rows, and which latent is which feature."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from priors.graph import Graph
from toys.layered import LayeredBatch, LayeredToy
from toys.reproduce.part4_layered_settings import CASES, LayeredSettings
from vsae import LayerNormalizer
from vsae.batches import stream
from vsae.metrics.matching import absolute_cosines

TOY = 21_000_000  # random streams
SHUFFLE = 21_000_001


@dataclass(frozen=True, eq=False)
class World:
    """A toy and what is drawn from it.

    Args:
        toy: Its truth.
        train: Rows trained on.
        test: Rows measured on.
        normalizer: Units of the layers.
        truth: The true graph of which latents fire together, latent f being feature f, the spare
            ones alone; every latent's degree 1 or 0.
        shuffled: The same of other latents that are features.
    """

    toy: LayeredToy
    train: Float[Tensor, "N n d"]
    test: LayeredBatch
    normalizer: LayerNormalizer
    truth: Graph
    shuffled: Graph

    def raw(self, atoms: Float[Tensor, "K width"]) -> Float[Tensor, "K width"]:
        """Atoms in the units of directions."""
        return atoms.detach() * self.scales

    def present(self, layer: int) -> Bool[Tensor, " F"]:
        """The features that are in a layer."""
        return self.toy.presence[:, layer]

    @property
    def scales(self) -> Float[Tensor, " width"]:
        """Of every column."""
        widths = torch.tensor(self.normalizer.layers)
        return self.normalizer.scales.repeat_interleave(widths)


@lru_cache(maxsize=8)
def world(case: str, seed: int, sizes: LayeredSettings) -> World:
    """A pure function of its arguments; the last ones are kept."""
    random = stream(seed, TOY)
    toy = CASES[case].build(random)
    train, test = toy.sample(sizes.rows, random).x, toy.sample(sizes.held, random)
    features = toy.flat.graph
    return World(
        toy=toy,
        train=train,
        test=test,
        normalizer=LayerNormalizer.fit(train.flatten(1), toy.layers),
        truth=over_latents(features, sizes.latents),
        shuffled=over_latents(features.shuffled(stream(seed, SHUFFLE)), sizes.latents),
    )


def over_latents(features: Graph, latents: int) -> Graph:
    """A graph over features as one over latents, those that are no feature alone, normalised."""
    spare = [Graph.blocks([1])] * (latents - features.num_nodes)
    return Graph.disjoint([features, *spare]).normalized()


def order(atoms: Float[Tensor, "K width"], truth: Float[Tensor, "F width"]) -> Int[Tensor, " K"]:
    """The latent of each feature, by the matching of greatest total ``|cos|``; then the others."""
    latent, feature = linear_sum_assignment(-absolute_cosines(atoms, truth).numpy())
    own = torch.from_numpy(latent[feature.argsort()])
    rest = torch.ones(len(atoms), dtype=torch.bool)
    rest[own] = False
    return torch.cat([own, rest.nonzero().flatten()])
