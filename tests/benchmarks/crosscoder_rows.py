"""A step of the TopK crosscoder: beside its encoder's product, and beside the flat SAE's."""

import dataclasses

import torch
from contest import alternate
from results import Result, slowdown
from sparse_rows import LATENTS, ROWS, activations, product_alone, topk
from sparse_rows import WIDTH as FLAT
from step_rows import fitted

from vsae import topk_crosscoder
from vsae.select import in_chunks

K, LAYERS = 32, 4


def crosscoder_row() -> list[Result]:
    """The flat SAE's width cut in layers: what the gauge costs; then layers of that width each."""
    data = activations()
    layers = (FLAT // LAYERS,) * LAYERS
    steps = {
        "crosscoder": fitted(topk_crosscoder(layers, LATENTS, k=K), data, ROWS),
        "flat": fitted(topk(), data, ROWS),
        "product": product_alone(data),
    }
    results = _results(alternate(steps, rounds=7), layers)
    wide = torch.cat([data.roll(i, 0) for i in range(LAYERS)], 1)
    layers = (FLAT,) * LAYERS
    weight, bias, x = torch.randn(LATENTS, sum(layers)), torch.zeros(LATENTS), wide[:ROWS]
    steps = {
        "crosscoder": fitted(topk_crosscoder(layers, LATENTS, k=K), wide, ROWS),
        "product": lambda: in_chunks(x, weight, bias, 1, lambda scores, k: (scores[:, :k],) * 2),
    }
    return results + _results(alternate(steps, rounds=3), layers)


def _results(times, layers: tuple[int, ...]) -> list[Result]:
    claim = (
        f"TopK crosscoder step through fit, {len(layers)} layers of {layers[0]}, K = {LATENTS}, "
        f"B = {ROWS}, k = {K}"
    )
    share = slowdown(
        f"{claim}: share of it that is the encoder's product", times, "product", "crosscoder"
    )
    found = [dataclasses.replace(share, at_least=0.6)]
    if "flat" in times.of:
        found.append(
            slowdown(
                f"{claim} : flat TopK step of as many columns",
                times,
                "crosscoder",
                "flat",
            )
        )
    return found
