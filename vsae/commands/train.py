"""``vsae train``: an autoencoder on stored activations, from the command line."""

import argparse
import json
import sys
from pathlib import Path

from vsae.commands.numbers import positive_float, positive_int, share

SPLIT = -1  # the random stream that draws held-out rows
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
    p.add_argument("--latents", type=positive_int, default=512)
    p.add_argument("--l1", type=positive_float, default=0.1, help="coefficient, prior laplace")
    p.add_argument("--noise", type=positive_float, default=0.5, help="sigma of the other priors")
    p.add_argument("--block", type=positive_int, default=8, help="latents per block, prior blocks")
    p.add_argument("--graph", type=Path, help="edges .npy: (E, 2), or (E, 3) with weights")
    p.add_argument("--steps", type=positive_int, default=5000)
    p.add_argument("--batch-size", type=positive_int, default=1024)
    p.add_argument("--lr", type=positive_float, default=1e-3)
    p.add_argument("--warmup", type=positive_int, default=500, help="steps until beta is 1")
    p.add_argument("--held-out", type=share, default=0.1, help="share of rows measured, not seen")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return p


def main(argv: list[str]) -> int:
    """Train, save the model, the records and the settings; print where they are.

    A run that is interrupted (130) or stops being finite (4) is saved as far as it came.
    """
    options = parser().parse_args(argv)

    import torch

    from vsae.activations import read_activations
    from vsae.errors import NonFiniteLossError
    from vsae.persistence import refuse_occupied

    refuse_occupied(options.out).mkdir(parents=True, exist_ok=True)  # before the work, not after
    train, held_out = _split(read_activations(options.data), options)
    torch.manual_seed(options.seed)
    run = _run(options, _build(options, train), train)
    try:
        run.run(every=max(1, options.steps // 500))
    except NonFiniteLossError:
        _write(options, run, "nonfinite", {})
        raise
    scores = _scores(run.autoencoder, train, held_out)
    result = _write(options, run, "interrupted" if run.interrupted else "finished", scores)
    print(json.dumps(result) if options.json else _summary(result))
    return 130 if run.interrupted else 0


def _split(data, options: argparse.Namespace):
    """Rows to train on and rows to measure on, drawn by the seed."""
    import torch

    from vsae.batches import stream

    order = torch.randperm(len(data), generator=stream(options.seed, SPLIT))
    kept = len(data) - int(options.held_out * len(data))
    return data[order[:kept]], data[order[kept:]]


def _run(options: argparse.Namespace, autoencoder, data):
    from vsae import fit
    from vsae.schedules import LinearWarmup

    return fit(
        autoencoder,
        data,
        steps=options.steps,
        batch_size=options.batch_size,
        lr=options.lr,
        beta=LinearWarmup(options.warmup),
        seed=options.seed,
    )


def _scores(autoencoder, train, held_out) -> dict[str, dict[str, float]]:
    from vsae.commands.eval import measure

    parts = {"train": train, "held_out": held_out}
    return {name: measure(autoencoder, rows) for name, rows in parts.items() if len(rows)}


def _write(options: argparse.Namespace, run, state: str, scores: dict) -> dict:
    from vsae.persistence import files, write_folder

    result = {"ok": state == "finished", "folder": str(options.out), "metrics": scores}
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()}
    about = {"settings": settings, "state": state, "step": run.step, **versions(), **result}
    records = "".join(json.dumps(record) + "\n" for record in run.records)
    extra = {"metrics.jsonl": records, "run.json": json.dumps(about, indent=2) + "\n"}
    contents = files(run.autoencoder) | {name: text.encode() for name, text in extra.items()}
    write_folder(options.out, contents)
    return result


def versions() -> dict[str, dict[str, str]]:
    """What a result depends on besides its settings."""
    from importlib.metadata import version

    names = {"vsae": "vsae", "torch": "torch", "pyro": "pyro-ppl", "numpy": "numpy"}
    found = {key: version(name) for key, name in names.items()}
    return {"versions": found | {"python": sys.version.split()[0]}}


def _summary(result: dict) -> str:
    lines = [
        f"{part:>10} {name:>20}  {value:.4g}"
        for part, found in result["metrics"].items()
        for name, value in found.items()
    ]
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
    if (edges[:, :2] != edges[:, :2].round()).any():
        raise GraphError(f"{options.graph} names nodes by fractions.", code="graph.dtype")
    pairs = edges[:, :2].T.astype(int)
    return Graph.from_edges(pairs, weights, num_nodes=options.latents)
