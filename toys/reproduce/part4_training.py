"""Training at a wanted L0, with couplings that join and follow the codes; and what came of it."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vsae.batches import Batches
from vsae.elbo import ClosedFormELBO
from vsae.errors import NonFiniteLossError
from vsae.layered_autoencoder import LayeredAutoencoder
from vsae.run import Run, StepRecord
from vsae.target_l0 import TargetL0
from vsae.training import fit

POINTS = 50  # of a curve
LIMITS = (1e-8, 1e8)  # of β


@dataclass(frozen=True, kw_only=True)
class Training:
    """How every arm is trained, so that compute is matched.

    Args:
        latents: ``K``.
        steps: Updates.
        batch: Rows per update.
        lr: Adam's learning rate, to the end: at lower ones codes no longer answer β.
        rate: By how much β may change in an update, in log.
        joins: When couplings are made of the codes, as shares of the updates.
        graph_rows: Training rows whose codes they are made of.
        neighbours: Of each latent.
    """

    latents: int = 512
    steps: int = 800
    batch: int = 512
    lr: float = 3e-3
    rate: float = 0.012
    joins: tuple[float, ...] = (0.3, 0.5, 0.7)
    graph_rows: int = 32_768
    neighbours: int = 16

    @property
    def refreshes(self) -> set[int]:
        """Updates after which couplings are made."""
        return {int(share * self.steps) for share in self.joins}

    def beta(self, target: int | float, start: float) -> TargetL0:
        """β that finds itself, from where it is to begin."""
        return TargetL0(float(target), start=start, rate=self.rate, limits=LIMITS)


Refresh = Callable[[LayeredAutoencoder], nn.Module | None]
"""The prior with couplings from what the pair has learned; ``None`` to leave it."""

MakeBatches = Callable[[Tensor, int, Sequence[int]], Batches]


def trained(
    pair: LayeredAutoencoder,
    data: Tensor,
    training: Training,
    *,
    beta: float | TargetL0,
    seed: int,
    refresh: Refresh = lambda pair: None,
    elbo: ClosedFormELBO | None = None,
    batches: MakeBatches = Batches,
) -> dict:
    """Train to the end; the curve, β, CPU time, and whether something was not finite."""
    run = fit(
        pair,
        data,
        steps=training.steps,
        batch_size=training.batch,
        lr=training.lr,
        beta=beta,
        elbo=elbo,
        seed=seed,
        batches=batches,
    )
    return followed(run, pair, training, refresh)


def followed(run: Run, pair: LayeredAutoencoder, training: Training, refresh: Refresh) -> dict:
    """A run's records, a few of them kept, couplings refreshed on the way."""
    begun, curve, failed, graphs = time.process_time(), [], None, 0.0
    every = max(1, training.steps // POINTS)
    last: StepRecord | None = None
    try:
        for record in run:
            last = record
            if record.step % every == 0 or record.step == training.steps - 1:
                curve.append(point(record, pair))
            if record.step + 1 in training.refreshes:
                before = time.process_time()
                prior = refresh(pair)
                if prior is not None:
                    pair.model.model.prior = prior
                graphs += time.process_time() - before
    except NonFiniteLossError as error:
        failed = str(error)
    pair.eval()
    return {
        "seconds": time.process_time() - begun,
        "graph_seconds": graphs,
        "beta": math.nan if last is None else float(last.beta),
        "curve": curve,
        "failed": failed,
    }


def point(record: StepRecord, pair: LayeredAutoencoder) -> dict[str, float | int]:
    """A record in few numbers: squared error per row in normalised units, penalty, L0, β."""
    found, variance = record.to_dict(), float(pair.model.noise().square())
    constant = 0.5 * pair.d_model * math.log(2 * math.pi * variance)
    kept = {"step": record.step, "error": 2 * variance * (found["elbo/x"] - constant)}
    kept |= {"penalty": found.get("elbo/z", 0.0), "beta": float(record.beta)}
    names = {"l0": "codes/l0", "smoothness": "elbo/smoothness", "edges": "codes/edges"}
    return kept | {n: float(found[name]) for n, name in names.items() if name in found}


@torch.no_grad()
def encoded(pair: LayeredAutoencoder, x: Tensor, rows: int = 8_192) -> Tensor:
    """Codes at the posterior mean, some rows at a time."""
    return torch.cat([pair.encode(part) for part in x.split(rows)])
