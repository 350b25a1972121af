"""Guides by iteration: their training steps beside raw loops and BatchTopK, and distilled codes."""

from collections.abc import Callable

import torch
from contest import alternate
from raw_iterations import RawSparseCoding, RawSpikeSlab
from results import Result, slowdown, speedup
from step_rows import fitted

from vsae import (
    Autoencoder,
    LinearEncoder,
    MLPEncoder,
    SpikeSlabPosterior,
    batch_topk_autoencoder,
    distil,
)
from vsae.recipes import RecoveryRecipe
from vsae.run import Run

LATENTS, WIDTH, BATCH, ACTIVE, ENCODED = 512, 96, 256, 7, 4096
RECIPE = RecoveryRecipe(l1_rows=20_000, slab_rows=60_000)
SETTING = f"K = {LATENTS}, d = {WIDTH}, B = {BATCH}"


def activations(rows: int = 16_384) -> torch.Tensor:
    """As many features as latents in superposition, about seven a row; centred, E‖x‖² = d."""
    atoms = torch.nn.functional.normalize(torch.randn(LATENTS, WIDTH), dim=-1)
    fires = torch.rand(rows, LATENTS) < ACTIVE / LATENTS
    x = (fires * (1 + 0.1 * torch.randn(rows, LATENTS))) @ atoms
    x = x - x.mean(0)
    return x / x.square().mean().sqrt()


def steps(run: Run) -> Callable[[], object]:
    """One step of a run, each time it is called."""
    iterator = iter(run)
    return lambda: next(iterator)


def after_l1(data: torch.Tensor) -> Autoencoder:
    """The pair that the slab phase starts from."""
    run = RECIPE.l1_phase(data, latents=LATENTS)
    run.run(progress=False)
    return run.autoencoder


def iteration_row() -> list[Result]:
    """Steps of the recipe's phases."""
    data = activations()
    pair = after_l1(data)
    slab = RECIPE.slab_phase(pair, data)
    size = slab.autoencoder.model.prior().slab.mean.mean().item()
    times = alternate(
        {
            "FISTA": steps(RECIPE.l1_phase(data, latents=LATENTS)),
            "raw FISTA": RawSparseCoding(
                data, LATENTS, batch=BATCH, penalty=RECIPE.l1[0], iterations=RECIPE.l1_iterations
            ).step,
            "mean field": steps(slab),
            "raw mean field": RawSpikeSlab(
                data,
                LATENTS,
                batch=BATCH,
                rate=ACTIVE / LATENTS,
                size=size,
                noise=RECIPE.noise[0],
                iterations=RECIPE.iterations,
                damping=RECIPE.damping,
            ).step,
            "BatchTopK": fitted(batch_topk_autoencoder(WIDTH, LATENTS, k=ACTIVE), data, BATCH),
        },
        rounds=15,
        calls=2,
        warmup=2,
    )
    fista = f"ℓ1 step, {RECIPE.l1_iterations} iterations of FISTA, {SETTING}"
    field = f"spike-and-slab step, {RECIPE.iterations} iterations of the mean field, {SETTING}"
    topk = f"BatchTopK step, k = {ACTIVE}"
    return [
        slowdown(f"{fista} : a raw torch loop", times, "FISTA", "raw FISTA", at_most=2),
        slowdown(f"{field} : a raw torch loop", times, "mean field", "raw mean field", at_most=3.5),
        slowdown(f"{fista} : {topk}", times, "FISTA", "BatchTopK", at_most=3.75),
        slowdown(f"{field} : {topk}", times, "mean field", "BatchTopK", at_most=11),
    ]


def distilled_row() -> list[Result]:
    """Codes of the slab phase: by iteration, and by encoders of the kind that learns them."""
    data = activations()
    pair, x = RECIPE.slab_phase(after_l1(data), data).autoencoder.eval(), data[:ENCODED]
    students = {
        "linear": SpikeSlabPosterior(LinearEncoder(WIDTH, 3 * LATENTS)),
        "MLP": SpikeSlabPosterior(MLPEncoder(WIDTH, LATENTS, 3 * LATENTS)),
    }
    pairs = {"iteration": pair} | {
        name: distil(pair, student, data, steps=5, progress=False).autoencoder.eval()
        for name, student in students.items()
    }
    times = alternate(
        {name: lambda one=one: one.encode(x) for name, one in pairs.items()}, rounds=8
    )
    setting = f"K = {LATENTS}, d = {WIDTH}, {ENCODED} rows"
    claim = f"codes of a distilled guide, {{}}, {setting}, faster than by iteration"
    return [
        speedup(claim.format("linear"), times, "linear", "iteration", at_least=3.5),
        speedup(claim.format(f"MLP of {LATENTS} units"), times, "MLP", "iteration", at_least=3),
    ]
