"""Training steps of :func:`vsae.fit`, one model or many at once, beside loops without it."""

import itertools
from collections.abc import Callable

import pyro
import torch
from by_hand import RawLoop, StockSVI
from contest import alternate
from results import Result, slowdown, speedup
from torch import nn

from priors import IsotropicPrior
from priors.replicas import stack
from vsae import Autoencoder, fit
from vsae.presets import variational_autoencoder

ATOMS, WIDTH, ROWS = 8192, 768, 512
SMALL = {"latents": 32, "hidden": 64, "loc": -1.0, "rectified": True}
FEATURES, BATCH, SAMPLES = 12, 256, 8192
STACKS = (30, 120)


def small_pair(seed: int) -> Autoencoder:
    """Part 1's model."""
    torch.manual_seed(seed)
    prior = IsotropicPrior(SMALL["latents"], loc=SMALL["loc"])
    return variational_autoencoder(
        FEATURES, prior, noise=0.1, hidden=SMALL["hidden"], link=nn.ReLU()
    )


def fitted(pair: Autoencoder, data: torch.Tensor, batch: int, seed=0) -> Callable[[], object]:
    """One step of a run of ``fit``, each time it is called."""
    steps = iter(fit(pair, data, steps=2**40, batch_size=batch, seed=seed))
    return lambda: next(steps)


def sae_row() -> list[Result]:
    data = torch.randn(4 * ROWS, WIDTH)
    pair = variational_autoencoder(WIDTH, IsotropicPrior(ATOMS), noise=0.3)
    raw = RawLoop(data, ATOMS, None, noise=0.3, batch=ROWS)
    times = alternate({"fit": fitted(pair, data, ROWS), "raw loop": raw.step}, rounds=12, warmup=2)
    claim = f"dense V-SAE step, K = {ATOMS}, d = {WIDTH}, B = {ROWS} : a raw torch loop, fused Adam"
    return [slowdown(claim, times, "fit", "raw loop", at_most=1.15)]


def small_row() -> list[Result]:
    data = torch.randn(SAMPLES, FEATURES)
    raw = RawLoop(data, **SMALL, batch=BATCH)
    svi = StockSVI(data, **SMALL, batch=BATCH)
    times = alternate(
        {"fit": fitted(small_pair(0), data, BATCH), "raw loop": raw.step, "SVI": svi.step},
        rounds=40,
        calls=20,
        warmup=3,
    )
    pyro.clear_param_store()
    claim = f"small V-SAE step, K = {SMALL['latents']}, B = {BATCH}"
    return [
        slowdown(f"{claim} : a raw torch loop", times, "fit", "raw loop", at_most=1.7),
        speedup(
            f"{claim}, faster than SVI(TraceMeanField_ELBO)", times, "fit", "SVI", at_least=1.8
        ),
    ]


def replica_row() -> list[Result]:
    return list(itertools.chain.from_iterable(map(_stack_of, STACKS)))


def _stack_of(replicas: int) -> list[Result]:
    data = torch.randn(replicas, SAMPLES, FEATURES)
    pair = stack([small_pair(seed) for seed in range(replicas)])
    together = fitted(pair, data, BATCH, seed=range(replicas))
    raw = RawLoop(data[0], **SMALL, batch=BATCH)
    svi = StockSVI(data[0], **SMALL, batch=BATCH)

    def times_all(step: Callable[[], object]) -> Callable[[], None]:
        def models() -> None:  # one after another
            for _ in range(replicas):
                step()

        return models

    contestants = {"fit": together, "raw loop": times_all(raw.step), "SVI": times_all(svi.step)}
    times = alternate(contestants, rounds=max(8, 600 // replicas), warmup=2)
    pyro.clear_param_store()
    per = {name: [t / replicas for t in found] for name, found in times.of.items()}
    times = type(times)(per)
    claim = f"{replicas} small V-SAEs as one stack, model-steps per second, more than"
    return [
        speedup(f"{claim} SVI(TraceMeanField_ELBO)", times, "fit", "SVI", at_least=5),
        speedup(f"{claim} a raw torch loop", times, "fit", "raw loop", at_least=2),
    ]
