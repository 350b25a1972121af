"""Running ``part4`` and writing what it found."""

import argparse
import re
import time
from collections.abc import Mapping

from tqdm import tqdm

from toys.reproduce import arguments
from toys.reproduce.jobs import fetch_all
from toys.reproduce.part4_part import Rows
from toys.reproduce.part4_plans import PLANS
from toys.reproduce.part4_settings import PARTS, Settings, settings
from toys.reproduce.processes import one_thread
from toys.reproduce.tables import Table


def report(options: argparse.Namespace, begun: float) -> tuple[dict, str]:
    """The result as JSON has it, and as people read it; everything else is in the folder."""
    chosen = settings(smoke=options.smoke, seeds=options.seeds)
    asked = options.part or PARTS
    parts = tuple(part for part in PARTS if part in asked)
    with one_thread():
        rows = run_all(chosen, parts, options)
        return write(chosen, rows, options, begun)


def run_all(
    chosen: Settings, parts: tuple[str, ...], options: argparse.Namespace
) -> dict[str, Rows]:
    """Everything trained and measured, by part; a job that parts share is run once."""
    planned = {part: list(dict.fromkeys(PLANS[part].jobs(chosen))) for part in parts}
    everything = list(dict.fromkeys(job for jobs in planned.values() for job in jobs))
    with tqdm(total=len(everything), unit="model", mininterval=0.5) as bar:
        found = fetch_all(everything, options.out / "jobs", options.threads, bar)
    return {part: [found[job] for job in jobs] for part, jobs in planned.items()}


def write(
    chosen: Settings, rows: Mapping[str, Rows], options: argparse.Namespace, begun: float
) -> tuple[dict, str]:
    """Tables, figures, report and ``run.json``."""
    out, found = options.out, {}
    for part, mine in rows.items():
        tables = {k: t for k, t in PLANS[part].tables(chosen, mine).items() if t.rows}
        for stem, table in tables.items():
            table.write(out / "tables", stem)
        pictures = PLANS[part].figures(chosen, mine, out / "figures")
        found[part] = {
            "how": PLANS[part].how(chosen),
            "findings": list(PLANS[part].findings(chosen, mine)),
            "tables": tables,
            "figures": [str(path) for path in pictures],
        }
    models_csv(rows).write_csv(out / "tables", "models")
    sections = {part: section(part, made) for part, made in found.items()}
    text = markdown(chosen, sections)
    for stem, written in (sections | {"part4": text}).items():
        (out / f"{stem}.md").write_text(written.strip() + "\n", encoding="utf-8")
    result = {
        "reproduction": "part4",
        "out": str(out),
        "smoke": options.smoke,
        "settings": chosen.to_dict() | {"data": list(rows)},
        "findings": {part: made["findings"] for part, made in found.items()},
        "tables": {s: t.records() for made in found.values() for s, t in made["tables"].items()},
        "figures": [path for made in found.values() for path in made["figures"]],
        "failed": [row["failed"] for mine in rows.values() for row in mine if row["failed"]],
        "models": spent(rows),
        "wall_seconds": time.monotonic() - begun,
    }
    kept = ("reproduction", "smoke", "settings", "findings", "failed", "models", "wall_seconds")
    run = {name: result[name] for name in kept} | {"threads": options.threads}
    arguments.write_json(out / "run.json", run | {"versions": arguments.versions()})
    return result, f"{text}\n\nWritten to {out} in {result['wall_seconds']:.0f} s."


def spent(rows: Mapping[str, Rows]) -> dict[str, float | int]:
    """How many models there are, how many were in the folder, and the CPU time of all."""
    once = {row["file"]: row for mine in rows.values() for row in mine}.values()
    return {
        "all": len(once),
        "found": sum(row["cached"] for row in once),
        "seconds": sum(row["seconds"] for row in once),
    }


def models_csv(rows: Mapping[str, Rows]) -> Table:
    """A line per model; what is not one number is left to the jobs' files."""
    plain = [
        {"part": part} | {k: v for k, v in row.items() if not isinstance(v, list | dict)}
        for part, mine in rows.items()
        for row in mine
    ]
    return Table("Models", plain)


def section(part: str, made: Mapping) -> str:
    """The report of one part: what was done, what was found, tables."""
    plan = PLANS[part]
    lines = [f"# {plan.question}", "", made["how"], "", "## Findings", ""]
    lines += [*(f"- {sentence}" for sentence in made["findings"]), "", "## Tables", ""]
    for table in made["tables"].values():
        lines += [table.markdown(), ""]
    return "\n".join(lines)


def markdown(chosen: Settings, sections: Mapping[str, str]) -> str:
    """All parts' reports, their headings one level down; then the settings."""
    lines = ["# What structured priors buy in a crosscoder", ""]
    for part, text in sections.items():
        named = re.sub(r"^## (Findings|Tables)$", rf"## \1: {part}", text, flags=re.M)
        lines.append(re.sub(r"^#", "##", named, flags=re.M))
    values = chosen.to_dict().items()
    return "\n".join([*lines, "## Settings", "", *(f"- {name}: {value}" for name, value in values)])
