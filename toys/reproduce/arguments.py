"""The options every reproduction shares, and how it answers: JSON or text on stdout, once."""

import argparse
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("vsae", "torch", "pyro-ppl", "numpy", "scipy")


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """The parser of ``vsae reproduce NAME``; a reproduction adds its own options to it.

    Its namespace has ``seeds`` (how many), ``out`` (a folder), ``json``, ``smoke`` and ``threads``.

    Example:
        >>> parser("part1", "Toy cases.").parse_args(["--seeds", "3", "--smoke"]).seeds
        3
    """
    new = argparse.ArgumentParser(prog=f"vsae reproduce {name}", description=description)
    new.add_argument(
        "--seeds", type=positive, help="how many seeds: 0, 1, … (default: the reproduction's own)"
    )
    new.add_argument(
        "--out", type=Path, default=Path("runs") / name, help="folder of the results (%(default)s)"
    )
    new.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    new.add_argument("--smoke", action="store_true", help="a tiny run, at most a minute")
    new.add_argument(
        "--threads",
        type=positive,
        default=min(2, os.cpu_count() or 1),
        help="threads in all (%(default)s)",
    )
    return new


def positive(text: str) -> int:
    """An option's value as an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1: got {value}")
    return value


def answer(options: argparse.Namespace, result: dict, text: str) -> None:
    """Print ``{"ok": true, …result}`` if ``--json`` was given, and ``text`` otherwise."""
    print(dumps({"ok": True} | result) if options.json else text)


def dumps(value: object) -> str:
    """JSON as its standard has it: a NaN or an infinity is an error, not an invalid file.

    Example:
        >>> dumps({"mse": 0.5})
        '{"mse": 0.5}'
    """
    return json.dumps(value, allow_nan=False, ensure_ascii=False)


def write_json(path: Path, value: object) -> None:
    """Write ``value`` as indented JSON, parents made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def versions() -> dict[str, str]:
    """Python's version and those of the packages that decide numbers, for ``run.json``."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # run from a checkout
        return "not installed"
