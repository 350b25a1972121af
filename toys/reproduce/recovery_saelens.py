"""SAELens's own trainers on our rows, scored as every other arm; only where it is installed."""

import contextlib
import io
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from toys.reproduce.jobs import Found, Job
from toys.reproduce.recovery_arms import ARMS, Arm, k_of
from toys.reproduce.recovery_data import Draw, Problem, problem
from toys.reproduce.recovery_field import weights_of
from toys.reproduce.recovery_saelens_data import library, quiet
from toys.reproduce.recovery_scores import scores
from toys.reproduce.recovery_synthetic import described
from vsae.autoencoder import Autoencoder
from vsae.batches import Batches
from vsae.presets import jumprelu_autoencoder, topk_autoencoder
from vsae.presets.matryoshka import PUBLISHED

SAE = Any  # of a library that need not be there


@dataclass(frozen=True, kw_only=True)
class Peer:
    """An architecture of SAELens, at its own defaults but for k, and for widths it has none for.

    Args:
        label: As tables and figures print it.
        knob: What its strength is.
        build: ``(problem, latents, k)``: its untrained class.
        threshold: Of codes of unit atoms, (K,), at inference; ``None`` for k per row.
        strengths: k as shares of the true L0; 1 where there is no k.
        chosen: Whether one of them is chosen: where there is no k, of one.
    """

    label: str
    knob: str
    build: Callable[[Problem, int, int], SAE]
    threshold: Callable[[SAE], Float[Tensor, " K"]] | None
    strengths: tuple[float, ...] = (0.75, 1.0)
    chosen: bool = False


def standard(found: Problem, latents: int, k: int) -> SAE:
    """ReLU codes, ℓ1 beside the squared error."""
    lens, dtype = library(), dtype_of(found)
    config = lens.StandardTrainingSAEConfig(d_in=found.d_model, d_sae=latents, dtype=dtype)
    return lens.StandardTrainingSAE(config)


def topk(found: Problem, latents: int, k: int) -> SAE:
    """k per row, and their auxiliary loss."""
    lens, dtype = library(), dtype_of(found)
    config = lens.TopKTrainingSAEConfig(d_in=found.d_model, d_sae=latents, dtype=dtype, k=k)
    return lens.TopKTrainingSAE(config)


def batch_topk(found: Problem, latents: int, k: int) -> SAE:
    """k per row of a batch, on average; a threshold at inference."""
    lens, dtype = library(), dtype_of(found)
    config = lens.BatchTopKTrainingSAEConfig(d_in=found.d_model, d_sae=latents, dtype=dtype, k=k)
    return lens.BatchTopKTrainingSAE(config)


def matryoshka(found: Problem, latents: int, k: int) -> SAE:
    """The same with nested prefixes, those of our own arm."""
    lens, dtype = library(), dtype_of(found)
    config = lens.MatryoshkaBatchTopKTrainingSAEConfig(
        d_in=found.d_model,
        d_sae=latents,
        dtype=dtype,
        k=k,
        matryoshka_widths=[latents * part // 32 for part in PUBLISHED],
    )
    return lens.MatryoshkaBatchTopKTrainingSAE(config)


def jumprelu(found: Problem, latents: int, k: int) -> SAE:
    """A threshold per latent, ℓ0 beside the squared error."""
    lens, dtype = library(), dtype_of(found)
    config = lens.JumpReLUTrainingSAEConfig(d_in=found.d_model, d_sae=latents, dtype=dtype)
    return lens.JumpReLUTrainingSAE(config)


def dtype_of(found: Problem) -> str:
    """Of the rows, as SAELens spells it."""
    return str(found.train.dtype).removeprefix("torch.")


def no_threshold(sae: SAE) -> Tensor:
    """ReLU."""
    return torch.zeros_like(sae.b_enc)


def one_threshold(sae: SAE) -> Tensor:
    """BatchTopK's, which is of codes of unit atoms."""
    return sae.topk_threshold.to(sae.b_enc).expand_as(sae.b_enc)


def own_thresholds(sae: SAE) -> Tensor:
    """JumpReLU's, of codes of atoms as they are."""
    return sae.threshold * sae.W_dec.norm(dim=-1)


_K = "k / true L0"
PEERS: dict[str, Peer] = {
    "saelens-l1": Peer(
        label="SAELens ℓ1",
        knob="–",
        build=standard,
        threshold=no_threshold,
        strengths=(1.0,),
        chosen=True,
    ),
    "saelens-topk": Peer(label="SAELens TopK", knob=_K, build=topk, threshold=None),
    "saelens-batch_topk": Peer(
        label="SAELens BatchTopK", knob=_K, build=batch_topk, threshold=one_threshold
    ),
    "saelens-matryoshka": Peer(
        label="SAELens Matryoshka BatchTopK", knob=_K, build=matryoshka, threshold=one_threshold
    ),
    "saelens-jumprelu": Peer(
        label="SAELens JumpReLU",
        knob="–",
        build=jumprelu,
        threshold=own_thresholds,
        strengths=(1.0,),
        chosen=True,
    ),
}
"""By name, in the order of tables."""

FIELD_ARMS: dict[str, Arm | Peer] = {**ARMS, **PEERS}
"""Our own arms of the field, and theirs."""


@torch.no_grad()
def converted(sae: SAE, threshold: Tensor | None) -> Autoencoder:
    """A trained SAE of theirs as a pair of ours: the same codes, but of unit atoms.

    Args:
        sae: Of any class above, trained on raw activations.
        threshold: As :class:`Peer` has it; ``None`` for k per row.
    """
    (d_model, latents), norms = sae.W_enc.shape, sae.W_dec.norm(dim=-1)
    with torch.random.fork_rng(devices=[]):  # random atoms are drawn, and replaced
        if threshold is None:
            pair = topk_autoencoder(d_model, latents, k=int(sae.cfg.k))
        else:
            pair = jumprelu_autoencoder(d_model, latents, l0=1.0, width=latents)
            pair.guide.posterior.log_threshold.copy_(threshold.log())  # θ = 0 is ReLU
    encoder, decoder = pair.guide.posterior.encoder, pair.model.decoder
    encoder.W_enc.copy_((sae.W_enc * norms).mT)
    encoder.b_enc.copy_(sae.b_enc * norms)
    decoder.W_dec.copy_(sae.W_dec / norms[:, None])
    decoder.b_dec.copy_(sae.b_dec)
    return pair


@dataclass(frozen=True, kw_only=True)
class SAELensJob(Job):
    """An architecture of SAELens, trained by its trainer.

    Args:
        draw: Which rows.
        arm: A name in ``PEERS``.
        strength: k as a share of the true L0.
        latents: ``K``.
        lr: Adam's learning rate, in a straight line to 0 over the last fifth.
        seen: Rows seen in training, in epochs of the distinct ones.
        batch: Rows per update.
        version: Of SAELens.
    """

    draw: Draw
    arm: str
    strength: float
    latents: int
    lr: float
    seen: int
    batch: int
    version: str

    def compute(self) -> Found:
        found, peer = problem(self.draw), PEERS[self.arm]
        row = described(self.draw, self.arm) | {"strength": self.strength, "lr": self.lr}
        with weights_of(self.draw.generator):
            sae = peer.build(found, self.latents, k_of(found, self.strength))
            seconds = self._train(sae, found)
        row |= {"seen": self.seen, "seconds": seconds, "curve": []}
        if not all(bool(p.isfinite().all()) for p in sae.parameters()):
            return Found(row | {"failed": "not finite after training"})
        pair = converted(sae, None if peer.threshold is None else peer.threshold(sae))
        return Found(row | scores(found, pair), {"atoms": pair.W_dec})

    def _train(self, sae: SAE, found: Problem) -> float:
        """Their loop over our batches; CPU seconds."""
        steps = max(1, self.seen // self.batch)
        config = library("sae_lens.config").SAETrainerConfig(
            total_training_samples=steps * self.batch,
            train_batch_size_samples=self.batch,
            lr=self.lr,
            lr_end=self.lr,  # constant, until it decays
            lr_decay_steps=steps - steps * 4 // 5,
        )
        batches = Batches(found.train, self.batch, (self.draw.generator,))
        rows = (batches(step) for step in itertools.count())
        trainer = library("sae_lens.training.sae_trainer").SAETrainer(config, sae, rows)
        begun = time.process_time()
        with quiet(), contextlib.redirect_stderr(io.StringIO()):  # a progress bar of its own
            trainer.fit()
        return time.process_time() - begun
