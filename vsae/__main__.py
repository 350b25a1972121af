"""The command line: ``vsae …`` and ``python -m vsae …``. Parsers only; torch is imported later."""

import argparse
import importlib
import json
import sys
from importlib.metadata import entry_points

COMMANDS = {
    "reproduce": "run a reproduction: toys with ground truth, a real network",
    "train": "train an autoencoder on stored activations",
    "eval": "measure a saved autoencoder on stored activations",
    "plot": "draw the training curves of a run",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status, see :mod:`vsae.errors`.

    Example:
        >>> main(["reproduce", "--list"])
        part1
        quickstart
        0
    """
    parser = argparse.ArgumentParser(
        prog="vsae", description="Sparse autoencoders as Pyro models with structured priors."
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, purpose in COMMANDS.items():
        commands.add_parser(name, help=purpose, add_help=False)
    argv = sys.argv[1:] if argv is None else argv
    known, rest = parser.parse_known_args(argv[:1])
    if known.command is None:
        parser.print_help()
        return 2
    return _run(known.command, rest + argv[1:])


def _run(command: str, argv: list[str]) -> int:
    """The command, its typed errors as one line on stderr and, with ``--json``, on stdout."""
    try:
        if command == "reproduce":
            return _reproduce(argv)
        return importlib.import_module(f"vsae.commands.{command}").main(argv)
    except SystemExit:  # help and usage errors are argparse's
        raise
    except _typed() as error:
        print(f"vsae {command}: {error} [{error.code}]", file=sys.stderr)
        if "--json" in argv:
            body = {"code": error.code, "message": str(error), "context": error.context}
            print(json.dumps({"ok": False, "error": body}, default=str))
        return error.exit_status
    except OSError as error:
        print(f"vsae {command}: {error}", file=sys.stderr)
        if "--json" in argv:
            body = {"code": "os.error", "message": str(error), "context": {"errno": error.errno}}
            print(json.dumps({"ok": False, "error": body}))
        return 5
    except KeyboardInterrupt:
        print(f"vsae {command}: interrupted", file=sys.stderr)
        return 130


def _typed() -> type[Exception]:
    """Read when something has been raised, so that help need not wait for torch."""
    from priors.errors import VsaeError

    return VsaeError


def _reproduce(argv: list[str]) -> int:
    found = {point.name: point for point in entry_points(group="vsae.reproductions")}
    parser = argparse.ArgumentParser(
        prog="vsae reproduce",
        description="Run a reproduction; `vsae reproduce NAME --help` lists its options.",
    )
    parser.add_argument("name", nargs="?", choices=sorted(found), metavar="NAME")
    parser.add_argument("--list", action="store_true", help="list the names and stop")
    options = parser.parse_args(argv[:1])
    if options.list:
        print("\n".join(sorted(found)))
        return 0
    if options.name is None:
        parser.print_help()
        return 2
    return found[options.name].load()(argv[1:])


if __name__ == "__main__":
    sys.exit(main())
