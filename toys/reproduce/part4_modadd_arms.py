"""The arms of networks that add: ℓ1, and variational with the true planes as blocks or rings.

As of the toys, latents get an identity before a prior ties them: those of an ℓ1 run are put into
the slots of the true planes. The same arms also start with their atoms on the planes, where these
are held while the encoder learns: do they stay?
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn

from priors import LaplacePrior
from toys.reproduce.part4_modadd_data import Slots, Streams, streams
from toys.reproduce.part4_modadd_settings import ModAddSettings
from toys.reproduce.part4_truth_training import (
    Preset,
    Trained,
    alone,
    renamed,
    size_of,
    started,
    together,
)
from toys.reproduce.plane_priors import (
    blocks,
    isotropic,
    rings,
    shuffled_blocks,
    shuffled_rings,
)
from toys.reproduce.quickstart_arms import POSTERIOR_SCALE
from toys.reproduce.quickstart_structure import Belief
from toys.reproduce.recovery_field import weights_of
from vsae.autoencoder import Autoencoder
from vsae.presets import (
    batch_topk_crosscoder,
    l1_crosscoder,
    point_crosscoder,
    topk_crosscoder,
    variational_crosscoder,
)

SHUFFLE = 22_000_000  # a random stream
RANDOM, FOUND, TRUE = "random", "ℓ1 run", "true planes"  # where a model starts


@dataclass(frozen=True, kw_only=True)
class Where:
    """What an arm is trained on.

    Args:
        network: Of two or three blocks.
        sizes: Everything else.
        seeds: Of weights and the order of rows, a model each.
    """

    network: str
    sizes: ModAddSettings
    seeds: tuple[int, ...]

    @property
    def found(self) -> Streams:
        """The streams."""
        return streams(self.network, self.sizes.rows)

    @property
    def slots(self) -> Slots:
        """The true structure of the latents."""
        return Slots(self.found, self.sizes.latents)

    @property
    def latents(self) -> int:
        """How many."""
        return self.sizes.latents

    @property
    def ratio(self) -> float:
        """Of the coupling on a ring."""
        return self.sizes.coupling

    @property
    def shuffles(self) -> int:
        """The random stream of shuffled structure."""
        return SHUFFLE


Starts = dict[str, list[Trained]]
Train = Callable[[Where], Starts]


def l1_pair(where: Where, seed: int) -> Autoencoder:
    """Untrained."""
    found = where.found
    with weights_of(seed):
        return l1_crosscoder(found.layers, where.sizes.latents, l1=1.0, normalizer=found.normalizer)


@lru_cache(maxsize=2)
def begun(where: Where) -> Starts:
    """The ℓ1 runs from random weights, and those with atoms held at the truth."""
    slots, seeds = where.slots, where.seeds
    first = [l1_pair(where, seed) for seed in seeds]
    true = [at_truth(l1_pair(where, seed), slots) for seed in seeds]
    for pair in true:
        pair.model.decoder.W_dec.requires_grad_(False)
    steps = where.sizes.training.first_steps
    first, true = (_trained(where, pairs, [1.0] * len(seeds), steps) for pairs in (first, true))
    renamed_first = [
        Trained(one.seed, in_slots_of(where, one.pair, slots), one.beta) for one in first
    ]
    return {FOUND: renamed_first, TRUE: true}


def in_slots_of(where: Where, pair: Autoencoder, slots: Slots) -> Autoencoder:
    """The same model with its latents in the slots they are most like."""
    return renamed(l1_pair(where, 0), pair, slots.order(pair.W_dec))


@torch.no_grad()
def at_truth(pair: Autoencoder, slots: Slots) -> Autoencoder:
    """The pair with its atoms at the slots, its encoder their transpose."""
    decoder, encoder = pair.model.decoder, pair.guide.posterior.encoder
    decoder.W_dec.copy_(slots.atoms)
    decoder.project()
    atoms = decoder.W_dec
    encoder.W_enc.copy_(atoms / atoms.square().sum(-1, keepdim=True))
    return pair


def _trained(
    where: Where, pairs: list[Autoencoder], betas: list[float], steps: int
) -> list[Trained]:
    own = where.sizes.training
    seeds = where.seeds * (len(pairs) // len(where.seeds))
    return together(pairs, where.found.train.flatten(1), own, steps=steps, seeds=seeds, betas=betas)


Build = Callable[[Where, float, int], Autoencoder]
"""From the root mean square of an ℓ1 run's active codes, and a seed."""


def dense(build: Build, *, goes_on: bool = False) -> Train:
    """Every start and seed at once; β goes on from there if the penalty is the same."""

    def train(where: Where) -> Starts:
        starts, rows = begun(where), where.found.train
        first = [one for found in starts.values() for one in found]
        sizes = [size_of(one.pair, rows) for one in starts[FOUND]] * len(starts)
        pairs = []
        for one, size in zip(first, sizes, strict=True):
            with weights_of(one.seed):
                pairs.append(started(build(where, size, one.seed), one.pair))
        betas = [one.beta if goes_on else 1.0 for one in first]
        done = _trained(where, pairs, betas, where.sizes.training.steps)
        each = len(where.seeds)
        return {start: done[at * each : (at + 1) * each] for at, start in enumerate(starts)}

    return train


def l1(where: Where, size: float, seed: int) -> Autoencoder:
    """ℓ1 as before."""
    found = where.found
    prior = LaplacePrior(where.sizes.latents)
    return point_crosscoder(found.layers, prior, normalizer=found.normalizer)


Prior = Callable[[Where, Belief, int], nn.Module]


def variational(prior: Prior) -> Build:
    """The rectified Gaussian under a prior that has a latent fire as often as the target does."""

    def build(where: Where, size: float, seed: int) -> Autoencoder:
        belief = Belief.matching(where.sizes.training.target / where.sizes.latents, size)
        return variational_crosscoder(
            where.found.layers,
            prior(where, belief, seed),
            noise=where.sizes.noise,
            link=nn.ReLU(),
            scale=POSTERIOR_SCALE * belief.scale,
            normalizer=where.found.normalizer,
        )

    return build


def with_k(preset: Preset) -> Train:
    """A preset whose knob is k, from random weights, one model after another."""

    def train(where: Where) -> Starts:
        sizes, found, done = where.sizes, where.found, []
        for seed in where.seeds:
            k = round(sizes.training.target)
            with weights_of(seed):
                pair = preset(found.layers, sizes.latents, k=k, normalizer=found.normalizer)
            done.append(alone(pair, found.train, sizes.training, seed))
        return {RANDOM: done}

    return train


ARMS: dict[str, tuple[str, Train]] = {
    "l1": ("ℓ1", dense(l1, goes_on=True)),
    "topk": ("TopK", with_k(topk_crosscoder)),
    "batch_topk": ("BatchTopK", with_k(batch_topk_crosscoder)),
    "isotropic": ("variational, isotropic", dense(variational(isotropic))),
    "blocks": ("variational, true blocks", dense(variational(blocks))),
    "blocks-shuffled": ("variational, blocks shuffled", dense(variational(shuffled_blocks))),
    "rings": ("variational, true rings", dense(variational(rings))),
    "rings-shuffled": ("variational, rings shuffled", dense(variational(shuffled_rings))),
}
"""By name, in the order of tables: what it is, and how it is trained."""
