"""``vsae train``: an autoencoder on stored activations, from the command line."""

import argparse
import json
import sys
from contextlib import ExitStack
from pathlib import Path

from vsae.commands.architectures import ARCHITECTURES, Choice, build, choose
from vsae.commands.numbers import positive_float, positive_int, positive_ints, share
from vsae.commands.prior_names import PRIORS
from vsae.commands.recipes import ITS_OWN, RECIPES, choose_recipe, phases, used

SPLIT = -1  # the random stream that draws held-out rows
WARMUP = 500  # steps until β is 1
COVARIANCE = 20_000  # rows, at most, whose principal components are counted
SCORED = 20_000  # rows of those trained on, at most, that are measured
SETTINGS = {  # each heard by some architectures or priors; see vsae.commands.architectures
    "prior": {"choices": PRIORS, "metavar": "NAME", "help": ", ".join(PRIORS)},
    "k": {"type": positive_int, "help": "active latents per row, TopK and its kin (32)"},
    "width": {"type": positive_int, "help": "slots per row, where a row has more than k"},
    "l0": {"type": positive_float, "help": "coefficient of jumprelu (0.5)"},
    "threshold": {"type": positive_float, "help": "of jumprelu to begin with (0.3)"},
    "bandwidth": {"type": positive_float, "help": "of the kernel thresholds learn through (0.3)"},
    "l1": {"type": positive_float, "help": "coefficient of l1, gated, prior laplace (0.1)"},
    "alpha": {"type": positive_float, "help": "weight of the KL, variational TopK (0.1)"},
    "scale": {"type": positive_float, "help": "standard deviation of a Gaussian posterior"},
    "prefixes": {"type": positive_ints, "help": "of matryoshka: sizes, as 16,64,512"},
    "experts": {"type": positive_int, "help": "of switch (16); they divide the latents"},
    "children": {"type": positive_int, "help": "of hierarchical: of each latent, its root (16)"},
    "subspace": {"type": positive_int, "help": "of hierarchical: dimensions of a family (4)"},
    "noise": {"type": positive_float, "help": "sigma; variational 0.5, otherwise 0.707"},
    "auxk_after": {
        "type": positive_int,
        "metavar": "ROWS",
        "help": "AuxK: revive latents silent for so many rows",
    },
    "screened": {"action": "store_true", "help": "select by a bfloat16 product first; exact"},
    "block": {"type": positive_int, "help": "latents per block, prior blocks (8)"},
    "graph": {"type": Path, "help": "edges .npy, (E, 2) or (E, 3) with weights, prior graph"},
    "ridge": {"type": positive_float, "help": "of prior graph: inverse squared units (1)"},
    "strength": {"type": positive_float, "help": "of prior graph, per unit of edge weight (1)"},
    "warmup": {"type": positive_int, "help": f"steps until the penalty has full weight ({WARMUP})"},
}


class ListArchitectures(argparse.Action):
    """Print the names, and leave, as ``--help`` does."""

    def __call__(self, parser, *_) -> None:
        width = max(map(len, ARCHITECTURES))
        print("\n".join(f"{name:{width}}  {a.summary}" for name, a in ARCHITECTURES.items()))
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """Options of ``vsae train``."""
    p = argparse.ArgumentParser(
        prog="vsae train",
        usage="vsae train DATA --out FOLDER [--architecture NAME] [options]",
        description="Train on (rows, d) or (rows, layers, d) in a file, or a source: stories260K.",
        epilog="example: vsae train acts.npy --out runs/first --architecture topk --k 16",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.add_argument("data", metavar="DATA", help=argparse.SUPPRESS)
    p.add_argument("--out", type=Path, required=True, help="a folder that does not exist yet")
    p.add_argument("--latents", type=positive_int, default=512)
    p.add_argument("--steps", type=positive_int, default=5000)
    p.add_argument("--batch-size", type=positive_int, default=1024)
    p.add_argument("--lr", type=positive_float, default=1e-3)
    p.add_argument("--held-out", type=share, default=0.1, help="share of rows measured, not seen")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--json", action="store_true", help="one JSON object on stdout")
    p.add_argument("--faster-matmul", action="store_true", help="oneDNN's products, if accurate")
    p.add_argument("--tune-allocator", action="store_true", help="keep freed memory (glibc)")
    _add_choice(p)
    return p


def _add_choice(p: argparse.ArgumentParser) -> None:
    group = p.add_argument_group(
        "the autoencoder; an option that the architecture or its prior ignores is an error",
        argument_default=argparse.SUPPRESS,
    )
    group.add_argument(
        "--architecture",
        choices=ARCHITECTURES,
        metavar="NAME",
        help="see --list-architectures (l1, or variational)",
    )
    group.add_argument("--list-architectures", action=ListArchitectures, nargs=0, help="and stop")
    group.add_argument("--recipe", choices=RECIPES, metavar="NAME", help=f"{', '.join(RECIPES)}")
    for name, about in SETTINGS.items():
        metavar = {} if {"metavar", "action"} & about.keys() else {"metavar": "X"}
        group.add_argument("--" + name.replace("_", "-"), **about, **metavar)


def main(argv: list[str]) -> int:
    """Train, save the model, the records and the settings; print where they are.

    A run that is interrupted (130) or stops being finite (4) is saved as far as it came.
    """
    options = parser().parse_args(argv)
    heard = SETTINGS.keys() | {"architecture", "recipe"}
    given = {n: v for n, v in vars(options).items() if n in heard}
    choice = choose_recipe(given, _explicit(argv)) if "recipe" in given else choose(given)

    import torch

    from vsae.activations import read_activations
    from vsae.errors import NonFiniteLossError
    from vsae.persistence import refuse_occupied

    refuse_occupied(options.out).mkdir(parents=True, exist_ok=True)  # before the work, not after
    train, held_out = _split(read_activations(options.data), options)
    torch.manual_seed(options.seed)
    with _hardware(options):
        records = []
        for run in _runs(options, choice, train):
            try:
                records += run.run(every=max(1, run.steps // 500))
            except NonFiniteLossError:
                _write(options, choice, run, "nonfinite", {}, records + run.records)
                raise
            if run.interrupted:
                break
        scores = _scores(run.autoencoder, train, held_out)
    state = "interrupted" if run.interrupted else "finished"
    result = _write(options, choice, run, state, scores, records)
    print(json.dumps(result) if options.json else _summary(result))
    return 130 if run.interrupted else 0


def _hardware(options: argparse.Namespace) -> ExitStack:
    """The settings of the process that were asked for, undone at the end where they can be."""
    from vsae.hardware import faster_matmul, tune_allocator

    stack = ExitStack()
    if options.faster_matmul:
        stack.enter_context(faster_matmul())
    if options.tune_allocator:
        tune_allocator()
    return stack


def _split(data, options: argparse.Namespace):
    """Rows to train on and rows to measure on, drawn by the seed."""
    import torch

    from vsae.batches import stream

    order = torch.randperm(len(data), generator=stream(options.seed, SPLIT))
    kept = len(data) - int(options.held_out * len(data))
    return data[order[:kept]], data[order[kept:]]


def _explicit(argv: list[str]) -> set[str]:
    """The options of a recipe's own phases that were given, not left at their defaults."""
    found = parser().parse_args(argv, argparse.Namespace(**dict.fromkeys(ITS_OWN)))
    return {name for name in ITS_OWN if vars(found)[name] is not None}


def _runs(options: argparse.Namespace, choice: Choice, data):
    """The runs of a training, one after another: of a recipe one per phase."""
    if "recipe" in options:
        _check_flat(data)
        return phases(choice, data, options)
    return [_run(options, choice, data)]


def _check_flat(data) -> None:
    from vsae.errors import ConfigError

    if data.dim() > 2:
        raise ConfigError(
            f"recipes are of one layer: got activations {tuple(data.shape)}, expected (rows, d). "
            "Leave --recipe out: an architecture then is a crosscoder.",
            code="train.layers",
        )


def _run(options: argparse.Namespace, choice: Choice, data):
    from vsae import fit
    from vsae.presets import with_auxk
    from vsae.schedules import LinearWarmup

    autoencoder = build(choice, *_units(data, options))
    if "auxk_after" in options:
        _check_after(options)
        autoencoder = with_auxk(autoencoder, after=options.auxk_after)
    return fit(
        autoencoder,
        data,
        steps=options.steps,
        batch_size=options.batch_size,
        lr=options.lr,
        beta=LinearWarmup(vars(options).get("warmup", min(WARMUP, options.steps)))
        if choice.penalised
        else 1.0,
        seed=options.seed,
    )


def _units(data, options: argparse.Namespace):
    """Width, number of latents and normaliser; of several layers widths, and units of each."""
    from vsae.layer_normalizer import LayerNormalizer
    from vsae.normalizers import AffineNormalizer

    if data.dim() == 2:
        return data.shape[1], options.latents, AffineNormalizer.fit(data)
    layers = (data.shape[2],) * data.shape[1]
    return layers, options.latents, LayerNormalizer.fit(data.flatten(1), layers)


def _check_after(options: argparse.Namespace) -> None:
    from vsae.errors import ConfigError

    rows = options.steps * options.batch_size
    if options.auxk_after >= rows:
        raise ConfigError(
            f"no latent can be dead in this run: got --auxk-after {options.auxk_after}, expected "
            f"less than its {rows} rows.",
            code="train.option",
        )


def _scores(autoencoder, train, held_out) -> dict[str, dict[str, float]]:
    """Of all rows held out, and of some of those trained on: a guide that iterates takes its time.

    Rows are in an order drawn by the seed, so that the first ones are a random draw.
    """
    from vsae.commands.eval import measure

    parts = {"train": train[:SCORED], "held_out": held_out}
    return {name: measure(autoencoder, x, name=name) for name, x in parts.items() if len(x)}


def _write(
    options: argparse.Namespace, choice: Choice, run, state: str, scores: dict, records: list
) -> dict:
    from vsae.persistence import files, write_folder

    result = {"ok": state == "finished", "folder": str(options.out), "metrics": scores}
    gaussian = "recipe" not in options and ARCHITECTURES[choice.architecture].gaussian
    if gaussian and choice.prior != "laplace":
        result["likelihood"] = _likelihood(run)
    about = {
        "settings": used(options, choice),
        "state": state,
        "step": run.step,
        **versions(),
        **result,
    }
    records = "".join(json.dumps(record) + "\n" for record in records)
    extra = {"metrics.jsonl": records, "run.json": json.dumps(about, indent=2) + "\n"}
    contents = files(run.autoencoder) | {name: text.encode() for name, text in extra.items()}
    write_folder(options.out, contents)
    return result


def _likelihood(run) -> dict[str, float]:
    """σ, the α of "MSE + α·KL", and how much of the data a Gaussian prior would let through."""
    from vsae.metrics import surviving_components

    autoencoder = run.autoencoder
    noise = autoencoder.model.noise().item()
    rows = autoencoder.normalizer(run.batches.data[:COVARIANCE].to(autoencoder.W_dec.device))
    kept = int(surviving_components(rows, noise=noise))
    return {"noise": noise, "alpha": 2 * noise**2, "beta": 1.0, "components_above_noise": kept}


def versions() -> dict[str, dict[str, str]]:
    """What a result depends on besides its settings."""
    from importlib.metadata import version

    names = {"vsae": "vsae", "torch": "torch", "pyro": "pyro-ppl", "numpy": "numpy"}
    found = {key: version(name) for key, name in names.items()}
    return {"versions": found | {"python": sys.version.split()[0]}}


def _summary(result: dict) -> str:
    from vsae.commands.numbers import shown

    lines = [
        f"{part:>10} {name:>20}  {shown(value)}"
        for part, found in result["metrics"].items()
        for name, value in found.items()
    ]
    if found := result.get("likelihood"):
        lines.insert(
            0,
            f"σ = {found['noise']:.3g}, the α = {found['alpha']:.3g} of MSE + α·KL at β = 1; "
            f"{found['components_above_noise']} principal components vary more than σ²",
        )
    return "\n".join([f"saved to {result['folder']}", *lines])
