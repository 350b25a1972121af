"""The arms of the toys: how they are built and trained, one model per seed.

Structure needs latents that have an identity before a prior ties them. An ℓ1 run gives it: its
latents are named after the features that they match best. Every dense arm goes on from there, ℓ1
too; codes in slots are trained from random weights for as many updates in all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from priors import GraphLaplacianPrior, IsotropicPrior, LaplacePrior, Omitted, ProductPrior
from priors.graph import Graph
from toys.reproduce.part4_layered_data import World, order, world
from toys.reproduce.part4_layered_settings import LayeredSettings
from toys.reproduce.part4_truth_training import (
    Preset,
    Trained,
    alone,
    renamed,
    size_of,
    started,
    together,
)
from toys.reproduce.quickstart_arms import POSTERIOR_SCALE
from toys.reproduce.quickstart_structure import Belief, laplacian_prior
from toys.reproduce.recovery_field import weights_of
from vsae.autoencoder import Autoencoder
from vsae.presets import (
    batch_topk_crosscoder,
    l1_crosscoder,
    point_crosscoder,
    topk_crosscoder,
    variational_crosscoder,
)


@dataclass(frozen=True, kw_only=True)
class Where:
    """What an arm is trained on.

    Args:
        case: Of the cases.
        sizes: Everything else.
        seeds: A toy and a model each.
    """

    case: str
    sizes: LayeredSettings
    seeds: tuple[int, ...]

    @property
    def data(self) -> Tensor:
        """Of all seeds."""
        return torch.stack([own.train.flatten(1) for own in self.worlds])

    @property
    def worlds(self) -> list[World]:
        """By seed."""
        return [world(self.case, seed, self.sizes) for seed in self.seeds]


Train = Callable[[Where], list[Trained]]


def l1_pair(own: World, sizes: LayeredSettings, seed: int) -> Autoencoder:
    """Untrained; the controller finds what ℓ1 costs."""
    with weights_of(seed):
        return l1_crosscoder(own.toy.layers, sizes.latents, l1=1.0, normalizer=own.normalizer)


@lru_cache(maxsize=2)
def begun(where: Where) -> tuple[Trained, ...]:
    """The ℓ1 runs, latent f of each the one that is most like feature f."""
    worlds, sizes, seeds = where.worlds, where.sizes, where.seeds
    pairs = [l1_pair(own, sizes, seed) for own, seed in zip(worlds, seeds, strict=True)]
    done = together(
        pairs,
        where.data,
        sizes.training,
        steps=sizes.training.first_steps,
        seeds=seeds,
        betas=[1.0] * len(pairs),
    )
    found = []
    for own, one in zip(worlds, done, strict=True):
        names = order(own.raw(one.pair.W_dec), own.toy.dictionary)
        new = renamed(l1_pair(own, sizes, one.seed), one.pair, names)
        found.append(Trained(one.seed, new, one.beta))
    return tuple(found)


Build = Callable[[World, float, LayeredSettings], Autoencoder]
"""From a world, the root mean square of the ℓ1 run's active codes, and sizes."""


def dense(build: Build, *, goes_on: bool = False) -> Train:
    """Every seed's model, from its ℓ1 run; β goes on from there if the penalty is the same."""

    def train(where: Where) -> list[Trained]:
        first, pairs, sizes = begun(where), [], where.sizes
        for own, one in zip(where.worlds, first, strict=True):
            with weights_of(one.seed):
                new = build(own, size_of(one.pair, own.train), sizes)
            pairs.append(started(new, one.pair))
        return together(
            pairs,
            where.data,
            sizes.training,
            steps=sizes.training.steps,
            seeds=where.seeds,
            betas=[one.beta if goes_on else 1.0 for one in first],
        )

    return train


def point(prior: Callable[[World, float, LayeredSettings], nn.Module]) -> Build:
    """The deterministic crosscoder under a prior."""

    def build(own: World, size: float, sizes: LayeredSettings) -> Autoencoder:
        found = prior(own, size, sizes)
        return point_crosscoder(own.toy.layers, found, normalizer=own.normalizer)

    return build


def variational(prior: Callable[[World, Belief, LayeredSettings], nn.Module]) -> Build:
    """The rectified Gaussian under a prior that has a latent fire as often as the target does."""

    def build(own: World, size: float, sizes: LayeredSettings) -> Autoencoder:
        belief = Belief.matching(sizes.training.target / sizes.latents, size)
        return variational_crosscoder(
            own.toy.layers,
            prior(own, belief, sizes),
            noise=sizes.noise,
            link=nn.ReLU(),
            scale=POSTERIOR_SCALE * belief.scale,
            normalizer=own.normalizer,
        )

    return build


def laplace(own: World, size: float, sizes: LayeredSettings) -> nn.Module:
    """ℓ1."""
    return LaplacePrior(sizes.latents)


def smooth(graph: Callable[[World], Graph]) -> Callable[[World, float, LayeredSettings], nn.Module]:
    """A graph alone, in units in which a code of the typical size costs about 1."""

    def prior(own: World, size: float, sizes: LayeredSettings) -> nn.Module:
        ridge = 1 / (1 + sizes.coupling) / size
        strength = sizes.coupling * ridge
        return GraphLaplacianPrior(graph(own), ridge=ridge, strength=strength)

    return prior


def smooth_and_l1(
    graph: Callable[[World], Graph],
) -> Callable[[World, float, LayeredSettings], nn.Module]:
    """ℓ1 and a graph at a fixed ratio; the controller scales both."""

    def prior(own: World, size: float, sizes: LayeredSettings) -> nn.Module:
        strength = sizes.ratio / size
        gaussian = GraphLaplacianPrior(
            graph(own), ridge=0.1 * strength, strength=strength, logdet=Omitted()
        )
        return ProductPrior(gaussian, LaplacePrior(sizes.latents))

    return prior


def isotropic(own: World, belief: Belief, sizes: LayeredSettings) -> nn.Module:
    """Independent latents."""
    return IsotropicPrior(sizes.latents, scale=belief.scale, loc=belief.mean)


def coupled(
    graph: Callable[[World], Graph],
) -> Callable[[World, Belief, LayeredSettings], nn.Module]:
    """A graph, of the same mean and mean variance as the isotropic prior."""

    def prior(own: World, belief: Belief, sizes: LayeredSettings) -> nn.Module:
        return laplacian_prior(graph(own), belief, ratio=sizes.coupling)

    return prior


def true(own: World) -> Graph:
    """The graph of features that fire together."""
    return own.truth


def dealt(own: World) -> Graph:
    """The same graph of other latents."""
    return own.shuffled


def in_slots(preset: Preset) -> Train:
    """A preset whose knob is k, from random weights, one model after another."""

    def train(where: Where) -> list[Trained]:
        sizes, found = where.sizes, []
        for own, seed in zip(where.worlds, where.seeds, strict=True):
            k, units = round(sizes.training.target), own.normalizer
            with weights_of(seed):
                pair = preset(own.toy.layers, sizes.latents, k=k, normalizer=units)
            found.append(alone(pair, own.train, sizes.training, seed))
        return found

    return train


ARMS: dict[str, tuple[str, Train]] = {
    "l1": ("ℓ1", dense(point(laplace), goes_on=True)),
    "topk": ("TopK", in_slots(topk_crosscoder)),
    "batch_topk": ("BatchTopK", in_slots(batch_topk_crosscoder)),
    "l1-graph": ("ℓ1 + true graph", dense(point(smooth_and_l1(true)), goes_on=True)),
    "l1-shuffled": ("ℓ1 + graph shuffled", dense(point(smooth_and_l1(dealt)), goes_on=True)),
    "graph": ("true graph, no ℓ1", dense(point(smooth(true)))),
    "shuffled": ("graph shuffled, no ℓ1", dense(point(smooth(dealt)))),
    "v-isotropic": ("variational, isotropic", dense(variational(isotropic))),
    "v-graph": ("variational, true graph", dense(variational(coupled(true)))),
    "v-shuffled": ("variational, graph shuffled", dense(variational(coupled(dealt)))),
}
"""By name, in the order of tables: what it is, and how it is trained."""
