"""One training step of each peer's own TopK trainer, with its own optimiser and defaults.

Float32, the same data, width, k and batch for all; no latent is dead, so AuxK does nothing. A peer
is imported when it is entered, and one that is not installed is a line of the table that says so.
"""

import contextlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from contest import Step, Times
from raw_topk import LR, Rows
from results import Result, Skipped, speedup
from torch import Tensor

STEPS = 2**30  # of a run whose end is never reached


class SAELens:
    """``SAETrainer.step`` of a ``TopKTrainingSAE``: Adam, clipping, firing statistics.

    Args:
        data: ``(N, d)``.
        latents: Width of the dictionary.
        k: Active latents per row.
        batch: Rows per step.
    """

    package = "sae-lens"

    def __init__(self, data: Tensor, latents: int, k: int, *, batch: int) -> None:
        from sae_lens import SAETrainer, TopKTrainingSAE, TopKTrainingSAEConfig
        from sae_lens.config import SAETrainerConfig

        sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=data.shape[1], d_sae=latents, k=k))
        run = SAETrainerConfig(
            total_training_samples=STEPS, train_batch_size_samples=batch, lr=LR, lr_end=LR
        )
        self.rows = Rows(data, batch)
        self.trainer = SAETrainer(run, sae, data_provider=self.rows)

    def step(self) -> Tensor:
        output = self.trainer.step(next(self.rows))
        self.trainer.n_training_steps += 1
        return output.loss.detach()


class DictionaryLearning:
    """``TopKTrainer.update``: Adam, projection, clipping, renormalisation, firing counts.

    Args:
        data: ``(N, d)``.
        latents: Width of the dictionary.
        k: Active latents per row.
        batch: Rows per step.
    """

    package = "dictionary-learning"

    def __init__(self, data: Tensor, latents: int, k: int, *, batch: int) -> None:
        from dictionary_learning.trainers import TopKTrainer

        self.trainer = TopKTrainer(
            steps=STEPS,
            activation_dim=data.shape[1],
            dict_size=latents,
            k=k,
            layer=0,
            lm_name="",
            lr=LR,
            device="cpu",
        )
        self.rows, self.turn = Rows(data, batch), 0

    def step(self) -> float:
        loss = self.trainer.update(self.turn, next(self.rows))
        self.turn += 1
        return loss


class Sparsify:
    """What ``Trainer.fit`` does with one batch of activations, in its order.

    Its loop runs a language model and cannot be stepped from outside, so the calls are made here:
    unit norms, ``SparseCoder``, backward, projection, optimiser, schedule, firing counts. The
    optimiser is the trainer's default, schedule-free sign descent.

    Args:
        data: ``(N, d)``.
        latents: Width of the dictionary.
        k: Active latents per row.
        batch: Rows per step.
    """

    package = "eai-sparsify"

    def __init__(self, data: Tensor, latents: int, k: int, *, batch: int) -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # it says which decoder it has
            from sparsify import SparseCoder, SparseCoderConfig

        config = SparseCoderConfig(num_latents=latents, k=k)
        self.coder = SparseCoder(data.shape[1], config, dtype=torch.float32)
        self.coder.b_dec.data = data.mean(0)
        self.optimizer, self.schedule = self.descent()
        self.idle = torch.zeros(latents, dtype=torch.long)
        self.fired = torch.zeros(latents, dtype=torch.bool)
        self.rows = Rows(data, batch)

    def descent(self) -> tuple[torch.optim.Optimizer, Callable[[], object] | None]:
        from schedulefree import ScheduleFreeWrapper
        from sparsify.sign_sgd import SignSGD

        optimizer = ScheduleFreeWrapper(SignSGD(self.coder.parameters(), lr=LR), momentum=0.95)
        optimizer.train()
        return optimizer, None

    def step(self) -> float:
        x = next(self.rows)
        self.coder.set_decoder_norm_to_unit_norm()
        out = self.coder(x, x, total_variance=(x - x.mean(0)).pow(2).sum())
        self.fired[out.latent_indices.flatten()] = True
        fvu = float(out.fvu.detach())
        (out.fvu + out.multi_topk_fvu / 8).backward()
        self.coder.remove_gradient_parallel_to_decoder_directions()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.schedule is not None:
            self.schedule()
        self.idle += len(x)
        self.idle[self.fired] = 0
        self.fired.zero_()
        return fvu


class SparsifyAdam(Sparsify):
    """The same with the trainer's other choice, Adam under a linear schedule with warm-up."""

    def descent(self) -> tuple[torch.optim.Optimizer, Callable[[], object] | None]:
        from transformers import get_linear_schedule_with_warmup

        optimizer = torch.optim.Adam(self.coder.parameters(), lr=LR)
        return optimizer, get_linear_schedule_with_warmup(optimizer, 1000, STEPS).step


PEERS = {
    "SAELens": SAELens,
    "dictionary_learning": DictionaryLearning,
    "sparsify": Sparsify,
    "sparsify, Adam": SparsifyAdam,
}


@dataclass
class Entered:
    """Peers that are installed, and why the others are not there."""

    steps: dict[str, Step] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def beaten(
        self, claim: str, times: Times, ours: str, peer: str, *, at_least: float | None = None
    ) -> Result | Skipped:
        """How many times faster ``ours`` is than ``peer``."""
        claim = f"{claim}, faster than {peer}"
        if peer in self.missing:
            return Skipped(claim, self.missing[peer])
        return speedup(claim, times, ours, peer, at_least=at_least)


def enter(
    data: Tensor,
    latents: int,
    k: int,
    *,
    batch: int,
    peers: Mapping[str, Callable[..., object]] = PEERS,
) -> Entered:
    """Every peer that can be imported, ready to step."""
    entered = Entered()
    for name, peer in peers.items():
        try:
            entered.steps[name] = peer(data, latents, k, batch=batch).step
        except ImportError as error:
            entered.missing[name] = f"{peer.package} is not installed ({error})"
    return entered
