"""``vsae plot``: the training curves of a run, as a PNG beside its records."""

import argparse
import json
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """Options of ``vsae plot``."""
    p = argparse.ArgumentParser(
        prog="vsae plot",
        description="Draw the training curves of a run from its metrics.jsonl.",
        epilog="example: vsae plot runs/first",
    )
    p.add_argument("folder", type=Path, help="written by vsae train")
    p.add_argument("--out", type=Path, help="a PNG file; FOLDER/training.png if not given")
    p.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return p


def _whole_lines(text: str) -> list[str]:
    """The lines of a file that a run may still be writing: the last one may be torn."""
    return [line for line in text.split("\n")[:-1] if line]


def main(argv: list[str]) -> int:
    """Write the figure and print where it is."""
    options = parser().parse_args(argv)

    from matplotlib.figure import Figure

    from vsae import plots
    from vsae.errors import DataError

    records = options.folder / "metrics.jsonl"
    if not records.is_file():
        raise DataError(f"{records} does not exist: expected a run folder.", code="plot.missing")
    rows = [json.loads(line) for line in _whole_lines(records.read_text())]
    figure = Figure(figsize=(6, 4), layout="constrained")
    plots.training_curves(figure.add_subplot(), rows)
    out = options.out or options.folder / "training.png"
    figure.savefig(out, dpi=150, format="png")
    print(json.dumps({"ok": True, "figure": str(out)}) if options.json else out)
    return 0
