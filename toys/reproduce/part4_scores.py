"""What a crosscoder is worth on held-out rows: fidelity, sparsity, layers, smoothness."""

import math
from collections.abc import Sequence
from dataclasses import asdict

import torch
from jaxtyping import Float
from torch import Tensor

from priors.graph import Graph
from priors.penalties import laplacian_quadratic
from toys.layer_losses import layered_losses
from toys.reproduce.part4_streams import Rows, Streams
from vsae import metrics
from vsae.layered_autoencoder import LayeredAutoencoder

MASKED = 4_096  # rows on which layers are masked


def cut(codes: Float[Tensor, "N K"], k: int) -> Float[Tensor, "N K"]:
    """Each row's ``k`` greatest entries, the others zero.

    Example:
        >>> cut(torch.tensor([[3.0, 1.0, 2.0], [0.0, 0.0, 5.0]]), 2).tolist()
        [[3.0, 0.0, 2.0], [0.0, 0.0, 5.0]]
    """
    kept = codes.topk(min(k, codes.shape[1]), dim=-1)
    return torch.zeros_like(codes).scatter_(-1, kept.indices, kept.values)


@torch.no_grad()
def fidelity(
    pair: LayeredAutoencoder, rows: Rows, codes: Float[Tensor, "N K"]
) -> dict[str, float | list[float]]:
    """How well codes restore the held-out rows; normalised units unless it says raw."""
    raw, restored = (part.flatten(1) for part in (rows.test, pair.restored(rows.test, codes)))
    x, mean = rows.units(raw), rows.units(restored)
    return {
        "r2": float(metrics.explained_variance(x, mean)),
        "r2_raw": float(metrics.explained_variance(raw, restored)),
        "r2_neurons": float(metrics.neuron_explained_variance(x, mean).mean()),
        "r2_layers": metrics.layer_explained_variance(raw, restored, rows.layers).tolist(),
        "neuron_mse": float(metrics.mse(x, mean)),
        "batch_mse": float(metrics.batch_mse(x, mean)),
    }


def sparsity(codes: Float[Tensor, "N K"]) -> dict[str, float | None]:
    """How many latents fire, how often, how strongly; ``document_dead`` is document B's."""
    found = asdict(metrics.activity_summary(codes))
    found["document_dead"] = float(metrics.document_dead_percent(codes))
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


@torch.no_grad()
def at_targets(
    pair: LayeredAutoencoder, rows: Rows, codes: Float[Tensor, "N K"], targets: Sequence[int]
) -> dict[str, dict[str, float]]:
    """L0 and explained variance of the codes cut to each target, by its name."""
    found, x = {}, rows.units(rows.test.flatten(1))
    for target in targets:
        short = cut(codes, target)
        mean = rows.units(pair.restored(rows.test, short).flatten(1))
        r2 = float(metrics.explained_variance(x, mean))
        found[str(target)] = {"l0": float(metrics.l0(short)), "r2": r2}
    return found


@torch.no_grad()
def layer_use(
    pair: LayeredAutoencoder, rows: Rows, codes: Float[Tensor, "N K"]
) -> dict[str, float | None]:
    """Effective number of layers of latents that fire: by weights, by masking, by atoms."""
    live, x = (codes != 0).any(0), rows.units(rows.test.flatten(1))
    shares = {
        "drive": metrics.layer_contributions(x, pair.W_enc, rows.layers),
        "masking": metrics.layer_masking(pair.encode, rows.test[:MASKED], rows.layers).shares,
        "atoms": metrics.layer_norm_shares(pair.W_dec, rows.layers),
    }
    found = {}
    for name, share in shares.items():
        number = metrics.effective_layers(share[live])
        known = number[number.isfinite()]
        found[f"layers_{name}"] = float(known.mean()) if len(known) else None
    return found


def roughness(codes: Float[Tensor, "N K"], graph: Graph) -> float | None:
    """Σ zᵀLz / Σ‖z‖² of the degree-normalised graph, from 0 to 2: 1 without couplings."""
    square = float(codes.double().square().sum())
    if square == 0:
        return None
    return float(laplacian_quadratic(codes.double(), graph.normalized()).sum()) / square


def worth(pair: LayeredAutoencoder, found: Streams) -> dict[str, float | list[float]]:
    """Cross-entropy recovered with each layer alone, and all, replaced; the mean recovers none."""
    losses = layered_losses(found.data, lambda rows: pair(rows).detach())
    each = [
        metrics.loss_recovered(run.ce_clean, run.ce_replaced, run.ce_mean)
        for run in (*losses.each, losses.together)
    ]
    return {"ce_recovered": each[-1], "ce_layers": each[:-1]}
