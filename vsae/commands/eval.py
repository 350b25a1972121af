"""``vsae eval``: a saved autoencoder on stored activations."""

import argparse
import json
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """Options of ``vsae eval``."""
    p = argparse.ArgumentParser(
        prog="vsae eval",
        description="Measure a saved autoencoder on stored activations, in raw units.",
        epilog="example: vsae eval runs/first held_out.npy --json",
    )
    p.add_argument("folder", type=Path, help="written by vsae train or vsae.save")
    p.add_argument(
        "data", help=".npy or .safetensors (rows, d) or (rows, layers, d), or a source: stories260K"
    )
    p.add_argument(
        "--threshold",
        type=float,
        default=0.0,
        help="tau above which a code is active; Gaussian codes without relu are never zero",
    )
    p.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return p


def main(argv: list[str]) -> int:
    """Print explained variance, L0, dead latents and the ELBO of a saved model."""
    options = parser().parse_args(argv)

    from vsae import load
    from vsae.activations import read_activations
    from vsae.commands.numbers import shown

    autoencoder = load(options.folder)
    data = read_activations(options.data).to(autoencoder.W_dec.dtype)
    found = measure(autoencoder, data, threshold=options.threshold)
    if options.json:
        print(json.dumps({"ok": True, "folder": str(options.folder), "metrics": found}))
    else:
        print("\n".join(f"{name:>20}  {shown(value)}" for name, value in found.items()))
    return 0


def measure(autoencoder, data, *, threshold: float = 0.0, name: str = "rows") -> dict[str, float]:
    """Metrics of the posterior-mean code over all rows, and the ELBO (nats/row, raw units).

    Batch by batch, and codes in slots stay in slots: codes of all rows at once need not fit. The
    ELBO takes one noise draw per row, from a fixed seed. After a second a bar on stderr says how
    far it is, under ``name``.
    """
    import torch
    from tqdm.auto import tqdm

    from vsae import noise_from
    from vsae.errors import ShapeError

    if autoencoder.rows(data).dim() != 2:
        raise ShapeError(
            f"{type(autoencoder).__name__} takes one row at a time: got {tuple(data.shape)}, "
            f"expected (rows, {autoencoder.d_model}). Activations of several layers are for a "
            "crosscoder; of one of them, data[:, layer].",
            code="data.rank",
        )
    elbo, squared = 0.0, torch.zeros((), dtype=torch.float64)
    fired = torch.zeros(len(autoencoder.W_dec), dtype=torch.int64, device=data.device)
    bar = tqdm(desc=f"measuring {name}", total=len(data), unit="row", delay=1.0, disable=None)
    with torch.no_grad(), noise_from([torch.Generator(data.device).manual_seed(0)]), bar:
        for x in data.split(4096):
            code, rows = autoencoder.code(x), autoencoder.target(x)
            error = rows.double() - autoencoder.restored(x, code).double()
            squared = squared + error.square().sum(0)  # of every neuron, of every layer
            fired += firings(code, threshold)
            elbo += autoencoder.elbo(x).item() * len(x)
            bar.update(len(x))
    variance = autoencoder.target(data).double().var(0, correction=0) * len(data)
    return {
        "mse": squared.mean().item() / len(data),
        "explained_variance": _explained(squared.sum().item(), variance.sum().item()),
        **_by_layer(squared, variance),
        "l0": fired.sum().item() / len(data),
        "dead_fraction": (fired == 0).double().mean().item(),
        "elbo_nats_per_row": elbo / len(data),
        "rows": len(data),
    }


def _by_layer(squared, variance) -> dict[str, float]:
    """Explained variance of each layer, of a crosscoder whose layers are equally wide."""
    if squared.dim() < 2:
        return {}
    sums = zip(squared.sum(1).tolist(), variance.sum(1).tolist(), strict=True)
    return {f"explained_variance_{i}": _explained(*both) for i, both in enumerate(sums)}


def firings(code, threshold: float):
    """How many rows each latent is active in ``(K,)``, of a code that is dense or in slots.

    Example:
        >>> import torch
        >>> from vsae import SparseCode
        >>> code = SparseCode(torch.tensor([[3, 0]]), torch.tensor([[0.5, 0.0]]), latents=4)
        >>> firings(code, 0.0).tolist(), firings(code.dense(), 0.0).tolist()
        ([0, 0, 0, 1], [0, 0, 0, 1])
    """
    from vsae import SparseCode

    if not isinstance(code, SparseCode):
        return (code.abs() > threshold).sum(0)
    active = (code.z.abs() > threshold).flatten().to(code.support)
    return active.new_zeros(code.latents).index_add_(0, code.support.flatten(), active)


def _explained(error: float, variance: float) -> float:
    from vsae.errors import DataError

    if not variance > 0:
        raise DataError("all rows are equal: nothing to explain.", code="metrics.no_variance")
    return 1 - error / variance
