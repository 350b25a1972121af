"""``vsae train``: an autoencoder on stored activations, from the command line."""

import argparse
import json
import sys
from pathlib import Path

PRIORS = ("laplace", "isotropic", "cholesky", "blocks", "graph")


def parser() -> argparse.ArgumentParser:
    """Options of ``vsae train``."""
    p = argparse.ArgumentParser(
        prog="vsae train",
        description="Train an autoencoder on stored activations and save it to a new folder.",
        epilog="example: vsae train acts.npy --out runs/first --prior laplace --latents 512",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.add_argument("data", help=".npy or .safetensors (rows, d), or a source: stories260K")
    p.add_argument("--out", type=Path, required=True, help="a folder that does not exist yet")
    p.add_argument("--prior", choices=PRIORS, default="laplace", help="laplace is the l1 SAE")
    p.add_argument("--latents", type=int, default=512)
    p.add_argument("--l1", type=float, default=0.1, help="coefficient, prior laplace")
    p.add_argument("--noise", type=float, default=0.5, help="sigma; 'MSE + a KL' is sigma^2 = a/2")
    p.add_argument("--block", type=int, default=8, help="latents per block, prior blocks")
    p.add_argument("--graph", type=Path, help="edges .npy: (E, 2), or (E, 3) with weights")
    p.add_argument("--steps", type=int, default=5000)
    p.add_argument("--batch-size", type=int, default=1024)
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--warmup", type=int, default=500, help="steps over which beta rises to 1")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return p


def main(argv: list[str]) -> int:
    """Train, save the model, the records and the settings; print where they are."""
    options = parser().parse_args(argv)

    import torch

    from vsae import fit, save
    from vsae.activations import read_activations
    from vsae.commands.eval import measure
    from vsae.persistence import refuse_occupied
    from vsae.schedules import LinearWarmup

    refuse_occupied(options.out)  # before the work, not after
    data = read_activations(options.data)
    torch.manual_seed(options.seed)
    autoencoder = _build(options, data)
    run = fit(
        autoencoder,
        data,
        steps=options.steps,
        batch_size=options.batch_size,
        lr=options.lr,
        beta=LinearWarmup(max(1, options.warmup)),
        seed=options.seed,
    )
    records = run.run(every=max(1, options.steps // 500))
    save(autoencoder, options.out)
    with open(options.out / "metrics.jsonl", "w") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    result = {"ok": True, "folder": str(options.out), "metrics": measure(autoencoder, data)}
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()}
    run_json = {"settings": settings, **versions(), **result}
    (options.out / "run.json").write_text(json.dumps(run_json, indent=2) + "\n")
    print(json.dumps(result) if options.json else _summary(result))
    return 0


def versions() -> dict[str, dict[str, str]]:
    """What a result depends on besides its settings."""
    from importlib.metadata import version

    names = {"vsae": "vsae", "torch": "torch", "pyro": "pyro-ppl", "numpy": "numpy"}
    found = {key: version(name) for key, name in names.items()}
    return {"versions": found | {"python": sys.version.split()[0]}}


def _summary(result: dict) -> str:
    lines = [f"{name:>20}  {value:.4g}" for name, value in result["metrics"].items()]
    return "\n".join([f"saved to {result['folder']}", *lines])


def _build(options: argparse.Namespace, data):
    from torch import nn

    from vsae.normalizers import AffineNormalizer
    from vsae.presets import l1_autoencoder, variational_autoencoder

    normalizer, width = AffineNormalizer.fit(data), data.shape[1]
    if options.prior == "laplace":
        return l1_autoencoder(width, options.latents, l1=options.l1, normalizer=normalizer)
    prior = _prior(options)
    return variational_autoencoder(
        width, prior, noise=options.noise, link=nn.ReLU(), normalizer=normalizer
    )


def _prior(options: argparse.Namespace):
    from priors import BlockDiagonalPrior, CholeskyPrior, GraphLaplacianPrior, IsotropicPrior

    if options.prior == "graph":
        return GraphLaplacianPrior(_graph(options))
    if options.prior == "blocks":
        full, rest = divmod(options.latents, options.block)
        return BlockDiagonalPrior((options.block,) * full + ((rest,) if rest else ()))
    return {"isotropic": IsotropicPrior, "cholesky": CholeskyPrior}[options.prior](options.latents)


def _graph(options: argparse.Namespace):
    from priors import Graph
    from vsae.activations import read_array
    from vsae.errors import ConfigError, GraphError

    if options.graph is None:
        raise ConfigError("--prior graph needs --graph EDGES.npy.", code="train.graph")
    edges = read_array(options.graph)
    if edges.ndim != 2 or edges.shape[1] not in (2, 3):
        raise GraphError(
            f"{options.graph} has shape {edges.shape}: expected (E, 2) or (E, 3).",
            code="graph.shape",
        )
    weights = edges[:, 2].astype(float) if edges.shape[1] == 3 else None
    pairs = edges[:, :2].T.astype(int)
    return Graph.from_edges(pairs, weights, num_nodes=options.latents)
