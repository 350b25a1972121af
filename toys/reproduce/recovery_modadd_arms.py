"""The arms of ``modadd``: flat SAEs, ours, and V-SAEs with the true blocks or rings, or shuffled.

Structure needs latents that have an identity before the prior ties them. A first ℓ1 run gives it:
its latents are put into the slots of the true structure by the matching of greatest cosine. The
same arms also start with atoms at the slots themselves, the truth: do they stay there? These are
held there while the encoder learns for as many updates as the ℓ1 run has.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn

from priors.replicas import stack, unstack
from toys.reproduce.plane_priors import (
    blocks,
    isotropic,
    rings,
    shuffled_blocks,
    shuffled_rings,
)
from toys.reproduce.quickstart_arms import POSTERIOR_SCALE, started
from toys.reproduce.quickstart_structure import Belief
from toys.reproduce.recovery_field import field_run, weights_of
from toys.reproduce.recovery_modadd_data import Activations, Slots, activations
from toys.reproduce.recovery_modadd_settings import ModAddSettings
from vsae.autoencoder import Autoencoder
from vsae.presets import (
    batch_topk_autoencoder,
    l1_autoencoder,
    topk_autoencoder,
    variational_autoencoder,
)
from vsae.recipes.sparse_coding import SparseCodingRecipe

SHUFFLE = 16_000_000  # a random stream
DATA, FOUND, TRUE = "random", "ℓ1 run", "true rings"  # where a model starts


@dataclass(frozen=True, kw_only=True)
class Where:
    """What an arm is trained on.

    Args:
        network: Of ``toys.modadd``.
        stream: Of it.
        sizes: Everything else.
        seeds: Of weights and the order of rows, one model each.
    """

    network: str
    stream: str
    sizes: ModAddSettings
    seeds: tuple[int, ...]

    @property
    def found(self) -> Activations:
        """The activations."""
        return activations(self.network, self.stream, self.sizes.train)

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
        return self.sizes.ratio

    @property
    def shuffles(self) -> int:
        """The random stream of shuffled structure."""
        return SHUFFLE


@dataclass(frozen=True, eq=False)
class Trained:
    """A model, and how it came about.

    Args:
        start: Where its atoms started.
        strength: Its knob.
        seed: Of it.
        pair: Trained.
        seen: Rows, all its phases and what it went on from together.
    """

    start: str
    strength: float
    seed: int
    pair: Autoencoder
    seen: int


@dataclass(frozen=True, eq=False)
class Begun:
    """What dense arms go on from.

    Args:
        starts: By start a pair per seed, latents in their slots.
        seconds: CPU time of all.
    """

    starts: dict[str, list[Autoencoder]]
    seconds: float


Train = Callable[[Where], Iterator[Trained]]


def l1_pair(where: Where, strength: float, seed: int = 0) -> Autoencoder:
    """Untrained."""
    width, latents, normalizer = (
        where.found.train.shape[1],
        where.sizes.latents,
        where.found.normalizer,
    )
    with weights_of(seed):
        return l1_autoencoder(width, latents, l1=strength, normalizer=normalizer)


def trained(where: Where, pair: Autoencoder, steps: int, batch: int, seeds: list[int] | int):
    """The pair, or its replicas, after training; the last fifth in a straight line to 0."""
    data, lr = where.found.train, where.sizes.lr
    for _ in field_run(pair, data, steps=steps, batch=batch, lr=lr, seed=seeds):
        pass
    return pair


@lru_cache(maxsize=2)
def begun(where: Where) -> Begun:
    """The ℓ1 pairs of each seed from random weights, and with atoms held at the truth."""
    sizes, slots, seeds, clock = where.sizes, where.slots, list(where.seeds), time.process_time()
    first = [l1_pair(where, sizes.l1s[-1], seed) for seed in seeds]
    true = [at_truth(l1_pair(where, sizes.l1s[-1], seed), slots) for seed in seeds]
    for pair in true:
        pair.model.decoder.W_dec.requires_grad_(False)
    first, true = (
        unstack(trained(where, stack(pairs), sizes.first_steps, sizes.dense_batch, seeds))
        for pairs in (first, true)
    )
    starts = {FOUND: [in_slots(where, pair, slots) for pair in first], TRUE: true}
    return Begun(starts, time.process_time() - clock)


@torch.no_grad()
def in_slots(where: Where, pair: Autoencoder, slots: Slots) -> Autoencoder:
    """The same model with its latents in another order."""
    order = slots.order(pair.W_dec)
    new = l1_pair(where, 1.0)
    new.model.decoder.load_state_dict(pair.model.decoder.state_dict())
    new.model.decoder.W_dec.copy_(pair.W_dec[order])
    encoder = new.guide.posterior.encoder
    encoder.W_enc.copy_(pair.W_enc[:, order])
    encoder.b_enc.copy_(pair.b_enc[order])
    return new


@torch.no_grad()
def at_truth(pair: Autoencoder, slots: Slots) -> Autoencoder:
    """The pair with its atoms at the slots, its encoder their transpose."""
    pair.model.decoder.W_dec.copy_(slots.atoms)
    pair.guide.posterior.encoder.align(pair.model.decoder)
    return pair


def dense(
    where: Where, strengths: tuple[float, ...], build: Callable[[float, int], Autoencoder]
) -> Iterator[Trained]:
    """Every start, seed and strength, all at once as replicas."""
    made = [
        (start, strength, seed, started(build(strength, seed), pair))
        for start, pairs in begun(where).starts.items()
        for seed, pair in zip(where.seeds, pairs, strict=True)
        for strength in strengths
    ]
    together, sizes = stack([pair for *_, pair in made]), where.sizes
    seeds = [seed for _, _, seed, _ in made]
    done = unstack(trained(where, together, sizes.dense_steps, sizes.dense_batch, seeds))
    seen = (sizes.first_steps + sizes.dense_steps) * sizes.dense_batch
    for (start, strength, seed, _), pair in zip(made, done, strict=True):
        yield Trained(start, strength, seed, pair, seen)


def l1(where: Where) -> Iterator[Trained]:
    """The ℓ1 SAE, from both starts as V-SAEs are."""
    return dense(where, where.sizes.l1s, lambda strength, seed: l1_pair(where, strength, seed))


def variational(prior: Callable[[Where, Belief, int], nn.Module]) -> Train:
    """A V-SAE with rectified codes."""

    def train(where: Where) -> Iterator[Trained]:
        beliefs = believed(where)

        def build(noise: float, seed: int) -> Autoencoder:
            with weights_of(seed):
                return variational_autoencoder(
                    where.found.train.shape[1],
                    prior(where, beliefs[seed], seed),
                    noise=noise,
                    link=nn.ReLU(),
                    scale=POSTERIOR_SCALE * beliefs[seed].scale,
                    normalizer=where.found.normalizer,
                )

        return dense(where, where.sizes.noises, build)

    return train


def believed(where: Where) -> dict[int, Belief]:
    """By seed: so many latents per plane fire, of the size of the ℓ1 run's codes."""
    rate = where.sizes.per_plane * where.found.planes / where.sizes.latents
    beliefs = {}
    for seed, pair in zip(where.seeds, begun(where).starts[FOUND], strict=True):
        codes = pair.encode(where.found.train).detach()
        size = float(codes[codes > 0].square().mean().sqrt())
        beliefs[seed] = Belief.matching(min(rate, 0.5), size)
    return beliefs


def with_k(preset: Callable[..., Autoencoder]) -> Train:
    """A preset whose knob is k, from random weights."""

    def train(where: Where) -> Iterator[Trained]:
        sizes, found = where.sizes, where.found
        width, normalizer = found.train.shape[1], found.normalizer
        for seed in where.seeds:
            with weights_of(seed):
                pair = preset(width, sizes.latents, k=sizes.k, normalizer=normalizer)
            pair = trained(where, pair, sizes.field_steps, sizes.batch, seed)
            yield Trained(DATA, float(sizes.k), seed, pair, sizes.field_steps * sizes.batch)

    return train


def coding(where: Where) -> Iterator[Trained]:
    """Ours: the recipe for activations of networks."""
    sizes: ModAddSettings = where.sizes
    rows = sizes.coding_steps * sizes.batch
    recipe = SparseCodingRecipe(k=sizes.k, l1_rows=rows, relaxed_rows=rows, batch_size=sizes.batch)
    for seed in where.seeds:
        pair = recipe.train(where.found.train, latents=sizes.latents, seed=seed, progress=False)
        yield Trained(DATA, float(sizes.k), seed, pair, 2 * rows)


ARMS: dict[str, tuple[str, Train]] = {
    "l1": ("ℓ1 SAE, λ", l1),
    "topk": ("TopK, k", with_k(topk_autoencoder)),
    "batch_topk": ("BatchTopK, k", with_k(batch_topk_autoencoder)),
    "ours-coding": ("ours, sparse coding, k", coding),
    "isotropic": ("V-SAE, isotropic, σ", variational(isotropic)),
    "blocks": ("V-SAE, true blocks, σ", variational(blocks)),
    "blocks-shuffled": ("V-SAE, blocks shuffled, σ", variational(shuffled_blocks)),
    "rings": ("V-SAE, true rings, σ", variational(rings)),
    "rings-shuffled": ("V-SAE, rings shuffled, σ", variational(shuffled_rings)),
}
"""By name, in the order of tables: what it is and its knob, and how it is trained."""

FROM_RANDOM = ("topk", "batch_topk", "ours-coding")  # arms that go on from nothing
