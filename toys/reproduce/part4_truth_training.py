"""How crosscoders are trained where the truth is known: all seeds at once, to one L0."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from priors.replicas import stack, unstack
from toys.reproduce.recovery_field import field_run
from vsae import TargetL0
from vsae.autoencoder import Autoencoder


@dataclass(frozen=True, kw_only=True)
class Training:
    """What all arms share.

    Args:
        target: L0.
        batch: Rows per update.
        first_steps: Updates of the ℓ1 run that every dense arm goes on from.
        steps: Updates of every dense arm after it; those with codes in slots have both.
        lr: Adam's learning rate, in a straight line to 0 over the last fifth.
        rate: Of the controller of L0.
    """

    target: float
    batch: int
    first_steps: int
    steps: int
    lr: float = 0.01
    rate: float = 0.03


@dataclass(frozen=True, eq=False)
class Trained:
    """A model.

    Args:
        seed: Of it.
        pair: Trained.
        beta: Where the controller of L0 has ended, ``None`` if there is none.
    """

    seed: int
    pair: Autoencoder
    beta: float | None


def together(
    pairs: Sequence[Autoencoder],
    data: Tensor,
    own: Training,
    *,
    steps: int,
    seeds: Sequence[int],
    betas: Sequence[float],
    targets: Sequence[float] | None = None,
) -> list[Trained]:
    """Models trained at once as replicas, each to the target.

    Args:
        pairs: Untrained.
        data: ``(N, width)`` for all, or ``(R, N, width)``.
        own: How.
        steps: Updates.
        seeds: Of the order of rows and of noise.
        betas: Where the controllers start.
        targets: L0 of each; that of all if ``None``.
    """
    stacked = stack(list(pairs))
    control = TargetL0(targets or [own.target] * len(pairs), rate=own.rate)
    control.log_beta.copy_(torch.tensor(betas).view(-1, 1).log())
    run = field_run(
        stacked,
        data,
        steps=steps,
        batch=own.batch,
        lr=own.lr,
        seed=list(seeds),
        beta=control,
    )
    for _ in run:
        pass
    found = control.log_beta.exp().flatten().tolist()
    return [Trained(*one) for one in zip(seeds, unstack(stacked), found, strict=True)]


def alone(pair: Autoencoder, data: Tensor, own: Training, seed: int) -> Trained:
    """A model that has its L0 by construction and is not stacked, for as many updates in all."""
    steps = own.first_steps + own.steps
    for _ in field_run(pair, data, steps=steps, batch=own.batch, lr=own.lr, seed=seed):
        pass
    return Trained(seed, pair, None)


@torch.no_grad()
def renamed(new: Autoencoder, old: Autoencoder, names: Tensor) -> Autoencoder:
    """``new``, made the same model as ``old``, its latent i the old one's ``names[i]``."""
    new.model.decoder.W_dec.copy_(old.W_dec[names])
    new.model.decoder.b_dec.copy_(old.b_dec)
    encoder = new.guide.posterior.encoder
    encoder.W_enc.copy_(old.W_enc[:, names].mT)
    encoder.b_enc.copy_(old.b_enc[names])
    return new


@torch.no_grad()
def started(pair: Autoencoder, first: Autoencoder) -> Autoencoder:
    """``pair`` with the atoms and the encoder of another; a posterior's scales start constant."""
    latents = len(first.W_dec)
    pair.model.decoder.W_dec.copy_(first.W_dec)
    pair.model.decoder.b_dec.copy_(first.b_dec)
    encoder = pair.guide.posterior.encoder
    if len(encoder.b_enc) == latents:  # a row per latent
        encoder.W_enc.copy_(first.W_enc.mT)
    else:
        encoder.W_enc[:, :latents] = first.W_enc
        encoder.W_enc[:, latents:] = 0.0
    encoder.b_enc[:latents] = first.b_enc
    return pair


@torch.no_grad()
def size_of(pair: Autoencoder, x: Tensor) -> float:
    """The root mean square of active codes; 1 if there are none."""
    codes = pair.encode(x)
    active = codes[codes > 0]
    return float(active.square().mean().sqrt()) if len(active) else 1.0


def numbers(row: dict[str, float | None]) -> dict[str, float | None]:
    """What JSON can hold: ``None`` for what is undefined."""
    return {k: None if v is None or v != v else v for k, v in row.items()}


Preset = Callable[..., Autoencoder]
"""One of ``vsae.presets``."""
