"""The arms of ``modadd``: flat SAEs, ours, and V-SAEs with the true blocks or rings, or shuffled.

Structure needs latents that have an identity before the prior ties them. A first ℓ1 run gives it:
its latents are put into the slots of the true structure by the matching of greatest cosine. The
same arms also start with atoms at the slots themselves, the truth: do they stay there?
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from priors import BlockDiagonalPrior, IsotropicPrior
from priors.replicas import stack, unstack
from toys.reproduce.quickstart_arms import POSTERIOR_SCALE, started
from toys.reproduce.quickstart_structure import Belief, laplacian_prior
from toys.reproduce.recovery_modadd_data import Activations, Slots, activations
from toys.reproduce.recovery_modadd_settings import ModAddSettings
from toys.reproduce.recovery_synthetic import WEIGHTS
from vsae.autoencoder import Autoencoder
from vsae.batches import stream
from vsae.presets import (
    batch_topk_autoencoder,
    l1_autoencoder,
    topk_autoencoder,
    variational_autoencoder,
)
from vsae.recipes.sparse_coding import SparseCodingRecipe
from vsae.schedules import LinearDecay
from vsae.training import fit

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


@dataclass(frozen=True, eq=False)
class Trained:
    """A model, and how it came about.

    Args:
        start: Where its atoms started.
        strength: Its knob.
        seed: Of it.
        pair: Trained.
    """

    start: str
    strength: float
    seed: int
    pair: Autoencoder


Train = Callable[[Where], Iterator[Trained]]


def weights_of(seed: int, build: Callable[[], Autoencoder]) -> Autoencoder:
    """An untrained pair whose random weights are those of a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(seed, WEIGHTS).initial_seed())
        return build()


def l1_pair(where: Where, strength: float) -> Autoencoder:
    """Untrained."""
    found = where.found
    width = found.train.shape[1]
    return l1_autoencoder(width, where.sizes.latents, l1=strength, normalizer=found.normalizer)


def trained(where: Where, pair: Autoencoder, steps: int, batch: int, seeds: list[int] | int):
    """The pair, or its replicas, after training; the last fifth in a straight line to 0."""
    decay = LinearDecay(start=steps * 4 // 5, end=steps)
    data, lr = where.found.train, where.sizes.lr
    for _ in fit(pair, data, steps=steps, batch_size=batch, lr=lr, lr_schedule=decay, seed=seeds):
        pass
    return pair


@lru_cache(maxsize=2)
def begun(where: Where) -> dict[str, list[Autoencoder]]:
    """By start, the ℓ1 pair of each seed that dense arms go on from, latents in their slots."""
    sizes, slots = where.sizes, where.slots
    last = sizes.l1s[-1]
    pairs = [weights_of(seed, lambda: l1_pair(where, last)) for seed in where.seeds]
    seeds = list(where.seeds)
    together = trained(where, stack(pairs), sizes.dense_steps, sizes.dense_batch, seeds)
    first = [in_slots(where, pair, slots) for pair in unstack(together)]
    true = [at_truth(l1_pair(where, last), slots) for _ in where.seeds]
    return {FOUND: first, TRUE: true}


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
    where: Where, strengths: tuple[float, ...], build: Callable[[float], Autoencoder]
) -> Iterator[Trained]:
    """Every start, seed and strength, all at once as replicas."""
    made = [
        (start, strength, seed, started(build(strength), pair))
        for start, pairs in begun(where).items()
        for seed, pair in zip(where.seeds, pairs, strict=True)
        for strength in strengths
    ]
    together, sizes = stack([pair for *_, pair in made]), where.sizes
    seeds = [seed for _, _, seed, _ in made]
    done = unstack(trained(where, together, sizes.dense_steps, sizes.dense_batch, seeds))
    for (start, strength, seed, _), pair in zip(made, done, strict=True):
        yield Trained(start, strength, seed, pair)


def l1(where: Where) -> Iterator[Trained]:
    """The ℓ1 SAE, from both starts as V-SAEs are."""
    return dense(where, where.sizes.l1s, lambda strength: l1_pair(where, strength))


def variational(prior: Callable[[Where, Belief], nn.Module]) -> Train:
    """A V-SAE with rectified codes."""

    def train(where: Where) -> Iterator[Trained]:
        belief = believed(where)

        def build(noise: float) -> Autoencoder:
            return variational_autoencoder(
                where.found.train.shape[1],
                prior(where, belief),
                noise=noise,
                link=nn.ReLU(),
                scale=POSTERIOR_SCALE * belief.scale,
                normalizer=where.found.normalizer,
            )

        return dense(where, where.sizes.noises, build)

    return train


def believed(where: Where) -> Belief:
    """So many latents per plane fire, of the size of the first runs' codes."""
    pairs, rows = begun(where)[FOUND], where.found.train
    codes = torch.cat([pair.encode(rows).detach() for pair in pairs])
    size = float(codes[codes > 0].square().mean().sqrt())
    rate = where.sizes.per_plane * where.found.planes / where.sizes.latents
    return Belief.matching(min(rate, 0.5), size)


def isotropic(where: Where, belief: Belief) -> nn.Module:
    """Independent latents."""
    return IsotropicPrior(where.sizes.latents, scale=belief.scale, loc=belief.mean)


def blocks(where: Where, belief: Belief) -> nn.Module:
    """A learned precision inside the slots of each plane."""
    labels = where.slots.labels
    return BlockDiagonalPrior.from_labels(labels, scale=belief.scale, loc=belief.mean)


def shuffled_blocks(where: Where, belief: Belief) -> nn.Module:
    """The same blocks of other latents."""
    labels = where.slots.labels
    dealt = labels[torch.randperm(len(labels), generator=stream(0, SHUFFLE))]
    return BlockDiagonalPrior.from_labels(dealt, scale=belief.scale, loc=belief.mean)


def rings(where: Where, belief: Belief) -> nn.Module:
    """The Laplacian of neighbours on each ring."""
    return laplacian_prior(where.slots.ring, belief, ratio=where.sizes.ratio)


def shuffled_rings(where: Where, belief: Belief) -> nn.Module:
    """The same graph of other latents."""
    graph = where.slots.ring.shuffled(stream(0, SHUFFLE))
    return laplacian_prior(graph, belief, ratio=where.sizes.ratio)


def with_k(preset: Callable[..., Autoencoder]) -> Train:
    """A preset whose knob is k, from random weights."""

    def train(where: Where) -> Iterator[Trained]:
        sizes, found = where.sizes, where.found
        width, normalizer = found.train.shape[1], found.normalizer
        for seed in where.seeds:
            pair = weights_of(
                seed, lambda: preset(width, sizes.latents, k=sizes.k, normalizer=normalizer)
            )
            pair = trained(where, pair, sizes.field_steps, sizes.batch, seed)
            yield Trained(DATA, float(sizes.k), seed, pair)

    return train


def coding(where: Where) -> Iterator[Trained]:
    """Ours: the recipe for activations of networks."""
    sizes: ModAddSettings = where.sizes
    rows = sizes.coding_steps * sizes.batch
    recipe = SparseCodingRecipe(k=sizes.k, l1_rows=rows, relaxed_rows=rows, batch_size=sizes.batch)
    for seed in where.seeds:
        pair = recipe.train(where.found.train, latents=sizes.latents, seed=seed, progress=False)
        yield Trained(DATA, float(sizes.k), seed, pair)


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


def controls(found: Activations, latents: int, seed: int) -> dict[str, Tensor]:
    """Atoms that nothing was learned for, and principal components, each with its opposite."""
    draw = stream(seed, SHUFFLE)
    rows, width = found.normalizer(found.train), found.train.shape[1]
    axes = torch.linalg.svd(rows.double(), full_matrices=False).Vh[: 2 * found.planes]
    picked = torch.randperm(len(rows), generator=draw)[:latents]
    return {
        "random directions": torch.randn(latents, width, generator=draw, dtype=torch.float64),
        "random data points": rows[picked],
        "principal components, both signs": torch.cat([axes, -axes]),
    }
