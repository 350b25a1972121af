"""Running the quickstart and writing what it found."""

import argparse
import time
from pathlib import Path

from toys.reproduce import arguments, html, quickstart_tables
from toys.reproduce.processes import one_thread
from toys.reproduce.quickstart_figures import Picture, all_pictures
from toys.reproduce.quickstart_run import Found, run
from toys.reproduce.quickstart_settings import settings
from toys.reproduce.quickstart_text import sections, summary
from toys.reproduce.quickstart_toys import toy_table
from toys.reproduce.tables import Table
from vsae.errors import ConfigError
from vsae.persistence import save


def report(options: argparse.Namespace, begun: float) -> tuple[dict, str]:
    """The result as JSON has it, and as people read it; everything else is in the folder."""
    seed = (options.seeds or 1) - 1
    if seed:
        raise ConfigError(
            f"the quickstart is a run of one seed: got --seeds {options.seeds}, expected 1. "
            "For intervals: vsae reproduce part1.",
            code="quickstart.seeds",
        )
    with one_thread():
        return write(run(settings(smoke=options.smoke), options.threads), options, begun)


def write(found: Found, options: argparse.Namespace, begun: float) -> tuple[dict, str]:
    """Tables, figures, autoencoders, report and ``run.json``."""
    out: Path = options.out
    tables = all_tables(found)
    for stem, table in tables.items():
        table.write(out / "tables", stem)
    pictures = list(all_pictures(found.results, found.plan.structure, found.heldout, found.toys))
    images = {picture.stem: _save(picture, out / "figures") for picture in pictures}
    title = "vsae quickstart" + (" (smoke run: sizes too small to mean anything)" * options.smoke)
    page = html.page(title, sections(found.results, tables, pictures, images))
    (out / "report.html").write_text(page, encoding="utf-8")
    result = {
        "reproduction": "quickstart",
        "out": str(out),
        "report": str(out / "report.html"),
        "smoke": options.smoke,
        "headline": summary(found.results),
        "tables": {stem: table.records() for stem, table in tables.items()},
        "figures": [str(out / "figures" / f"{stem}.png") for stem in images],
        "autoencoders": _save_autoencoders(found, out / "autoencoders"),
        "wall_seconds": time.monotonic() - begun,
    }
    _run_json(found, result, options)
    return result, text(result, tables)


def all_tables(found: Found) -> dict[str, Table]:
    """By the stem of their files."""
    chosen = {name: str(value) for name, value in found.settings.to_dict().items()}
    return {
        "toys": toy_table(found.toys),
        "arms": quickstart_tables.arms_table(found.results),
        "matched": quickstart_tables.matched_table(found.results),
        "references": quickstart_tables.references_table(found.results),
        "settings": quickstart_tables.settings_table(found.scales | chosen),
    }


def text(result: dict, tables: dict[str, Table]) -> str:
    """The last lines on stdout."""
    return "\n".join(
        [
            tables["arms"].markdown(),
            "",
            *result["headline"],
            "",
            f"Report: {result['report']} ({result['wall_seconds']:.0f} s)",
        ]
    )


def _save(picture: Picture, folder: Path) -> bytes:
    folder.mkdir(parents=True, exist_ok=True)
    image = html.png(picture.drawn)
    (folder / f"{picture.stem}.png").write_bytes(image)
    arguments.write_json(folder / f"{picture.stem}.json", picture.data)
    return image


def _save_autoencoders(found: Found, folder: Path) -> list[str]:
    named = {"first": found.plan.first} | {run.name: run.pair for run in found.results.runs}
    return [str(save(pair, _fresh(folder, name))) for name, pair in named.items()]


def _fresh(folder: Path, name: str) -> Path:
    """A folder that does not exist: a repeated run keeps the autoencoders of earlier ones."""
    number, path = 1, folder / name
    while path.exists():
        number += 1
        path = folder / f"{name}-{number}"
    return path


def _run_json(found: Found, result: dict, options: argparse.Namespace) -> None:
    kept = ("reproduction", "smoke", "wall_seconds")
    run = {name: result[name] for name in kept} | {
        "settings": found.settings.to_dict(),
        "scales": found.scales,
        "seeds": [found.settings.seed],
        "threads": options.threads,
        "versions": arguments.versions(),
    }
    arguments.write_json(options.out / "run.json", run)
