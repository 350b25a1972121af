"""Running ``recovery`` and writing what it found, a report for each part."""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from toys.reproduce import arguments
from toys.reproduce.processes import one_thread
from toys.reproduce.recovery_chapters import chapter
from toys.reproduce.recovery_results import Results
from toys.reproduce.recovery_runs import Part, run_all
from toys.reproduce.recovery_settings import PARTS, settings
from toys.reproduce.tables import Table


def report(options: argparse.Namespace, begun: float) -> tuple[dict, str]:
    """The result as JSON has it, and as people read it; everything else is in the folder."""
    chosen = settings(smoke=options.smoke, seeds=options.seeds)
    asked = options.part or PARTS
    parts = tuple(part for part in PARTS if part in asked)
    with one_thread():
        found = run_all(chosen, parts, options.out / "jobs", options.threads)
        return write(Results(chosen, found), options, begun)


def write(results: Results, options: argparse.Namespace, begun: float) -> tuple[dict, str]:
    """Tables, figures, a report and a file of its making for each part."""
    out, texts = options.out, []
    made = {"reproduction": "recovery", "smoke": options.smoke, "threads": options.threads}
    made |= {"versions": arguments.versions(), "settings": results.settings.to_dict()}
    result = {"reproduction": "recovery", "out": str(out), "smoke": options.smoke, "parts": {}}
    for name in results.parts:
        text, said = write_part(name, results, out, made)
        texts.append(text)
        result["parts"][name] = said
    result["failed"] = [row for said in result["parts"].values() for row in said["failed"]]
    result["settings"] = results.settings.to_dict() | {"data": list(results.parts)}
    result["models"] = spent([*results.parts.values()])
    result["wall_seconds"] = time.monotonic() - begun
    kept = ("settings", "failed", "models", "wall_seconds")
    arguments.write_json(out / "run.json", made | {name: result[name] for name in kept})
    texts.append(f"Written to {out} in {result['wall_seconds']:.0f} s.")
    return result, "\n".join(texts)


def write_part(name: str, results: Results, out: Path, made: dict) -> tuple[str, dict]:
    """One part: its report, and what JSON has; its making is written last, never another's."""
    told, part = chapter(name, results), results.parts[name]
    origin = out / "runs" / f"{name}.json"
    origin.unlink(missing_ok=True)
    for stem, table in told.tables.items():
        table.write(out / "tables" / name, stem)
    models_csv(part).write_csv(out / "tables" / name, "models")
    said = {
        "bars": [
            {"bar": b.name, "rule": b.rule, "found": b.found, "met": b.met} for b in told.bars
        ],
        "findings": [*told.findings, *told.details],
        "tables": {stem: table.records() for stem, table in told.tables.items()},
        "figures": [str(path) for path in told.draw(out / "figures" / name)],
        "failed": [dict(row) for row in told.failed],
        "models": spent([part]),
    }
    text = told.markdown()
    (out / f"{name}.md").write_text(text, encoding="utf-8")
    models = [model for row in part.rows for model in (row, *row.get("models", ()))]
    about = {"part": name, "seeds": sorted({m["seed"] for m in models if "seed" in m})}
    about |= {key: said[key] for key in ("bars", "failed", "models")}
    arguments.write_json(origin, made | about)
    return text, said


def models_csv(part: Part) -> Table:
    """A line per model, searches included; what is not one number is left to the jobs' files."""
    lines = []
    for searched, rows in ((True, part.searched), (False, part.rows)):
        for row in rows:
            plain = {k: v for k, v in row.items() if not isinstance(v, list | dict)}
            lines.append({"searched": searched} | plain)
    return Table("Models", lines)


def spent(parts: Sequence[Part]) -> Mapping[str, float | int]:
    """How many models there are, searches included, how many of them were found, what all took."""
    rows = {row["file"]: row for part in parts for row in (*part.searched, *part.rows)}
    return {
        "all": len(rows),
        "found": sum(row["cached"] for row in rows.values()),
        "seconds": sum(row["seconds"] for row in rows.values()),
    }
