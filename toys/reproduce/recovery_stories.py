"""Jobs on a real network: the field's arms, the ℓ1 phase, and slabs of three amplitude laws."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from toys.reproduce.flat_arms import DEAD_AFTER
from toys.reproduce.jobs import Found, Job
from toys.reproduce.recovery_field import WEIGHTS, field_run, weights_of
from toys.reproduce.recovery_laws import (
    FITTED,
    Slab,
    evidence,
    moments,
    posterior_of,
    slab_pair,
    slab_run,
)
from toys.reproduce.recovery_refit import refitted
from toys.reproduce.recovery_scores import encoded, plain
from toys.reproduce.recovery_text import Reading, Text, text
from vsae import metrics
from vsae.autoencoder import Autoencoder
from vsae.batches import stream
from vsae.errors import NonFiniteLossError
from vsae.presets import batch_topk_autoencoder, matryoshka_autoencoder, with_auxk
from vsae.recipes.recovery import ATOMS, RecoveryRecipe, dictionary_of_rows
from vsae.run import Run

DATA, RANDOM = "data points", "random"  # where atoms start
HELD = 4_096  # held-out rows on which laws of amplitudes are compared
CONTROLS = 1_000  # added to a seed, for data points that no run starts from
L1, SLAB = "ours-l1", "ours-slab"

Preset = Callable[..., Autoencoder]
FIELD: dict[str, Preset] = {
    "batch_topk": batch_topk_autoencoder,
    "matryoshka": matryoshka_autoencoder,
}
"""The field's arms by name, each with AuxK."""


@dataclass(frozen=True, kw_only=True)
class StoriesFieldJob(Job):
    """An architecture of the field with AuxK.

    Args:
        reading: Which rows.
        arm: A name in ``FIELD``.
        k: Active latents per row.
        start: Where atoms and encoder start.
        latents: ``K``.
        lr: Adam's learning rate, in a straight line to 0 over the last fifth.
        seen: Rows seen in training.
        batch: Rows per update.
        seed: Of atoms and the order of rows.
        length: Times the rows that are seen.
    """

    reading: Reading
    arm: str
    k: int
    start: str
    latents: int
    lr: float
    seen: int
    batch: int
    seed: int
    length: float = 1.0

    def compute(self) -> Found:
        found = text(self.reading)
        row = described(self, self.arm, self.start, float(self.k))
        row |= {"lr": self.lr, "length": self.length}
        pair, steps = self.build(found), max(1, int(self.length * self.seen) // self.batch)
        run = field_run(
            pair, found.train, steps=steps, batch=self.batch, lr=self.lr, seed=self.seed
        )
        try:
            seconds = timed(run)
        except NonFiniteLossError as error:
            return Found(row | {"failed": str(error), "seconds": 0.0})
        codes = encoded(pair, found.test).values
        row |= worth(found, pair, codes) | {"seconds": seconds, "seen": steps * self.batch}
        return Found(plain(row), {"atoms": pair.W_dec})

    def build(self, found: Text) -> Autoencoder:
        """The untrained pair."""
        with weights_of(self.seed):
            width, normalizer = found.train.shape[1], found.normalizer
            pair = FIELD[self.arm](width, self.latents, k=self.k, normalizer=normalizer)
        if self.start == DATA:
            begin_at(pair, data_points(found, self.latents, self.seed))
        return with_auxk(pair, after=DEAD_AFTER)


@dataclass(frozen=True, kw_only=True)
class StoriesRecipeJob(Job):
    """The recipe's ℓ1 phase, and what may follow it: slabs, each on its own copy.

    Args:
        reading: Which rows.
        recipe: Its settings; only those of the ℓ1 phase count.
        start: Where atoms start.
        latents: ``K``.
        ks: Active latents per row, at most, when amplitudes are solved again.
        slabs: What follows.
        seed: Of atoms and the order of rows.
    """

    reading: Reading
    recipe: RecoveryRecipe
    start: str
    latents: int
    ks: tuple[int, ...]
    slabs: tuple[Slab, ...] = ()
    seed: int

    def compute(self) -> Found:
        found = text(self.reading)
        row = described(self, L1, self.start, self.recipe.l1[1])
        recipe = replace(self.recipe, slab_rows=0)
        run = next(recipe.phases(found.train, latents=self.latents, seed=self.seed))
        pair = run.autoencoder
        if self.start == RANDOM:
            begin_at(pair, self._random(pair.W_dec))
        try:
            seconds = timed(run)
        except NonFiniteLossError as error:
            return Found(row | {"failed": str(error), "seconds": 0.0})
        codes = encoded(pair, found.test).values
        row |= worth(found, pair, codes, self.ks)
        row |= {"seconds": seconds, "seen": run.steps * recipe.batch_size}
        atoms = {"atoms": pair.W_dec}
        begin = moments(pair, found.train) if self.slabs else None
        row["slabs"] = [self._slab(found, pair, begin, slab, atoms) for slab in self.slabs]
        row["seconds"] += sum(slab["seconds"] for slab in row["slabs"])
        return Found(plain(row), atoms)

    def _random(self, like: Tensor) -> Tensor:
        drawn = torch.randn(like.shape, generator=stream(self.seed, WEIGHTS), dtype=like.dtype)
        return nn.functional.normalize(drawn, dim=-1)

    def _slab(self, found: Text, l1: Autoencoder, begin, slab: Slab, atoms: dict) -> dict:
        pair = slab_pair(l1, begin, slab)
        row = described(self, SLAB, self.start, slab.noise) | {"law": slab.law}
        try:
            seconds = timed(slab_run(pair, found.train, slab, self.seed + 1))
        except NonFiniteLossError as error:
            return row | {"failed": str(error), "seconds": 0.0}
        test = found.test[:HELD]
        fitted, held = (posterior_of(pair, x) for x in (found.train[:FITTED], test))
        row |= {"dead": 100 * float(metrics.dead_fraction(held.codes))}
        row |= {"l0": float(metrics.l0(held.codes))}
        row |= {"ev": float(metrics.explained_variance(test, pair.decode(held.codes).detach()))}
        name = f"{slab.law}, {slab.noise}"
        atoms[name] = pair.W_dec
        more = {"seconds": seconds, "tensor": name}
        return row | more | evidence(pair, fitted, held)


def described(job, arm: str, start: str, strength: float) -> dict:
    """What is known of a job on the stories before training."""
    row = {"layer": job.reading.layer, "seed": job.seed, "arm": arm, "start": start}
    row |= {"strength": strength, "failed": None, "tensor": "atoms", "law": None}
    return row | {"latents": job.latents, "length": 1.0}


def timed(run: Run) -> float:
    """Bring a run to its end; the seconds of this process."""
    begun = time.process_time()
    for _ in run:
        pass
    return time.process_time() - begun


@torch.no_grad()
def begin_at(pair: Autoencoder, atoms: Float[Tensor, "K d"]) -> None:
    """Put a pair's atoms, and its encoder's rows if it has an encoder, to these."""
    decoder, encoder = pair.model.decoder, pair.guide.posterior.encoder
    decoder.W_dec.copy_(atoms)
    if encoder is not decoder:
        encoder.W_enc.copy_(atoms)


def data_points(found: Text, latents: int, seed: int) -> Tensor:
    """Unit atoms at random training rows: those that ours start from, of the same seed."""
    rows = found.normalizer(found.train)
    return dictionary_of_rows(rows, latents, stream(seed, ATOMS)).W_dec.detach()


@torch.no_grad()
def worth(found: Text, pair: Autoencoder, codes: Tensor, ks: Sequence[int] | None = ()) -> dict:
    """Sparsity and fidelity of held-out codes as they are, and with amplitudes solved again.

    Args:
        found: The rows.
        pair: Whose decoder restores them.
        codes: Of the held-out rows.
        ks: At most so many active latents, a point each; all of them if there are none; nothing
            is solved again if ``None``.
    """
    x = found.normalizer(found.test) - pair.b_dec  # as the codes' atoms see it
    points = [point(found, pair, codes, "as it is", None)]
    for k in () if ks is None else ks or (None,):
        solved = refitted(x, codes, pair.W_dec, k)
        points.append(point(found, pair, solved, "refitted", k))
    return {"dead": 100 * float(metrics.dead_fraction(codes)), "points": points}


def point(found: Text, pair: Autoencoder, codes: Tensor, how: str, k: int | None) -> dict:
    """One point of a frontier."""
    kept = {"how": how, "k": k, "l0": float(metrics.l0(codes))}
    return kept | found.worth(pair.decode(codes))
