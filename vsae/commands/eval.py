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
    p.add_argument("data", help=".npy or .safetensors (rows, d), or a source: stories260K")
    p.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return p


def main(argv: list[str]) -> int:
    """Print explained variance, L0, dead latents and the ELBO of a saved model."""
    options = parser().parse_args(argv)

    from vsae import load
    from vsae.activations import read_activations

    autoencoder = load(options.folder)
    data = read_activations(options.data).to(autoencoder.W_dec.dtype)
    found = measure(autoencoder, data)
    if options.json:
        print(json.dumps({"ok": True, "folder": str(options.folder), "metrics": found}))
    else:
        print("\n".join(f"{name:>20}  {value:.4g}" for name, value in found.items()))
    return 0


def measure(autoencoder, data) -> dict[str, float]:
    """Metrics of the posterior-mean code over all rows, and the ELBO (nats/row, raw units).

    The ELBO takes one noise draw per row, from a fixed seed.
    """
    import torch

    from vsae import metrics, noise_from

    with torch.no_grad():
        codes = torch.cat([autoencoder.encode(part) for part in data.split(4096)])
        mean = torch.cat([autoencoder.decode(part) for part in codes.split(4096)])
        with noise_from([torch.Generator(data.device).manual_seed(0)]):
            elbo = sum(autoencoder.elbo(part).double() * len(part) for part in data.split(4096))
    return {
        "mse": metrics.mse(data, mean).item(),
        "explained_variance": metrics.explained_variance(data, mean).item(),
        "l0": metrics.l0(codes).item(),
        "dead_fraction": metrics.dead_fraction(codes).item(),
        "elbo_nats_per_row": elbo.item() / len(data),
        "rows": len(data),
    }
