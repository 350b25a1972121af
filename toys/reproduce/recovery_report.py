"""Running ``recovery`` and writing what it found, a report for each part."""

import argparse
import re
import time
from collections.abc import Mapping, Sequence

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
    out, said, texts = options.out, {}, {}
    for name, part in results.parts.items():
        told = chapter(name, results)
        for stem, table in told.tables.items():
            table.write(out / "tables" / name, stem)
        models_csv(part).write_csv(out / "tables" / name, "models")
        texts[name] = told.markdown()
        (out / f"{name}.md").write_text(texts[name], encoding="utf-8")
        said[name] = {
            "bars": [{"bar": b.name, "found": b.found, "met": b.met} for b in told.bars],
            "findings": [*told.findings, *told.details],
            "tables": {stem: table.records() for stem, table in told.tables.items()},
            "figures": [str(path) for path in told.draw(results, out / "figures" / name)],
            "failed": [dict(row) for row in part.rows if row["failed"]],
        }
    result = {
        "reproduction": "recovery",
        "out": str(out),
        "smoke": options.smoke,
        "settings": results.settings.to_dict() | {"data": list(results.parts)},
        "parts": said,
        "models": spent([*results.parts.values()]),
        "wall_seconds": time.monotonic() - begun,
    }
    made = {name: result[name] for name in ("reproduction", "smoke", "settings", "wall_seconds")}
    made |= {"threads": options.threads, "versions": arguments.versions()}
    for name, part in results.parts.items():
        told = {key: said[name][key] for key in ("bars", "failed")} | {"models": spent([part])}
        told["settings"] = result["settings"] | {"data": [name]}
        told["seeds"] = sorted({row["seed"] for row in part.rows})
        arguments.write_json(out / "runs" / f"{name}.json", made | told)
    arguments.write_json(out / "run.json", made | {"models": result["models"]})
    text = "\n".join(re.sub(r"^#", "##", text, flags=re.M) for text in texts.values())
    return result, f"{text}\nWritten to {out} in {result['wall_seconds']:.0f} s."


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
