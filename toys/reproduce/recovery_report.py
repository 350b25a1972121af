"""Running ``recovery`` and writing what it found."""

import argparse
import time
from collections.abc import Mapping, Sequence

from toys.reproduce import arguments
from toys.reproduce.processes import one_thread
from toys.reproduce.recovery_bars import Bar, bars, bars_table
from toys.reproduce.recovery_figures import draw_all
from toys.reproduce.recovery_findings import findings
from toys.reproduce.recovery_how import how
from toys.reproduce.recovery_modadd_figure import draw_modadd
from toys.reproduce.recovery_modadd_findings import modadd_findings
from toys.reproduce.recovery_modadd_tables import modadd_tables
from toys.reproduce.recovery_moves import moves_report
from toys.reproduce.recovery_results import Results
from toys.reproduce.recovery_runs import run_all
from toys.reproduce.recovery_saelens_data import THEIRS
from toys.reproduce.recovery_saelens_plan import saelens_said
from toys.reproduce.recovery_settings import PARTS, settings
from toys.reproduce.recovery_story_bars import AT, lengths, starts, story_bars, story_findings
from toys.reproduce.recovery_story_figures import draw_stories
from toys.reproduce.recovery_story_tables import (
    common_table,
    laws_table,
    lengths_table,
    stability,
    stability_table,
)
from toys.reproduce.recovery_tables import (
    calibration_table,
    choices_table,
    cost_table,
    family_tables,
    levels_table,
    models_table,
    structure_table,
)
from toys.reproduce.recovery_words_figure import draw_words
from toys.reproduce.recovery_words_findings import word_findings
from toys.reproduce.recovery_words_how import word_how
from toys.reproduce.recovery_words_tables import word_stability, word_tables
from toys.reproduce.tables import Table


def report(options: argparse.Namespace, begun: float) -> tuple[dict, str]:
    """The result as JSON has it, and as people read it; everything else is in the folder."""
    chosen = settings(smoke=options.smoke, seeds=options.seeds)
    parts = tuple(dict.fromkeys(options.part or PARTS))
    with one_thread():
        found = run_all(chosen, parts, options.out / "jobs", options.threads)
        return write(Results(chosen, found), options, begun)


def write(results: Results, options: argparse.Namespace, begun: float) -> tuple[dict, str]:
    """Tables, figures, report and ``run.json``."""
    out, recipe = options.out, results.settings.recipe
    steps = (recipe.l1_rows + recipe.slab_rows + recipe.final_rows) // recipe.batch_size
    stable = stability(results) if "stories" in results.parts else []
    reached = [*bars(results), *story_bars(results, stable)]
    said = [*findings(results), *story_findings(results), *starts(results), *lengths(results)]
    again = word_stability(results)
    said += word_findings(results, again)
    said += modadd_findings(results)
    tables = all_tables(results, reached, stable) | word_tables(results, again)
    for stem, table in tables.items():
        table.write(out / "tables", stem)
    models_csv(results).write_csv(out / "tables", "models")
    text = markdown(results, tables, said, reached)
    if set(results.parts) != {"moves"}:  # it has a report of its own
        (out / "recovery.md").write_text(text + "\n", encoding="utf-8")
    pictures = [
        *moves_report(results, out),
        *draw_all(results, out / "figures"),
        *draw_stories(results, out / "figures"),
    ]
    pictures += draw_words(results, out / "figures")
    pictures += draw_modadd(results, out / "figures")
    result = {
        "reproduction": "recovery",
        "out": str(out),
        "smoke": options.smoke,
        "settings": results.settings.to_dict() | {"data": list(results.parts), "steps": steps},
        "bars": [{"bar": bar.name, "found": bar.found, "met": bar.met} for bar in reached],
        "findings": said,
        "tables": {stem: table.records() for stem, table in tables.items()},
        "figures": [str(path) for path in pictures],
        "failed": [dict(row) for row in failures(results)],
        "models": spent(results),
        "wall_seconds": time.monotonic() - begun,
    }
    kept = ("reproduction", "smoke", "settings", "bars", "failed", "models", "wall_seconds")
    run = {name: result[name] for name in kept} | {"threads": options.threads}
    arguments.write_json(out / "run.json", run | {"versions": arguments.versions()})
    return result, f"{text}\n\nWritten to {out} in {result['wall_seconds']:.0f} s."


def all_tables(
    results: Results, reached: Sequence[Bar], stable: Sequence[Mapping]
) -> dict[str, Table]:
    """By the stem of their files, in the order of the report; none without a row."""
    tables = {"bars": bars_table(reached)}
    if "data-a" in results.parts:
        for case in ("data-a", THEIRS):
            tables[case.replace("-", "_")] = models_table(results, case)
        tables["levels"] = levels_table(results, "data-a")
        tables["structure"] = structure_table(results)
    if "families" in results.parts:
        tables |= dict(family_tables(results))
    if "stories" in results.parts:
        tables["stories"] = common_table(results)
        tables["lengths"] = lengths_table(results, AT)
        tables["stability"] = stability_table(stable)
        tables["laws"] = laws_table(results)
    if "calibration" in results.parts:
        tables["calibration"] = calibration_table(results)
    tables |= modadd_tables(results)
    tables["choices"] = choices_table(results)
    tables["cost"] = cost_table(results)
    return {stem: table for stem, table in tables.items() if table.rows}


def models_csv(results: Results) -> Table:
    """A line per model, searches included; what is not one number is left to the jobs' files."""
    lines = []
    for name, part in results.parts.items():
        for searched, rows in ((True, part.searched), (False, part.rows)):
            for row in rows:
                plain = {k: v for k, v in row.items() if not isinstance(v, list | dict)}
                lines.append({"part": name, "searched": searched} | plain)
    return Table("Models", lines)


def failures(results: Results) -> list[Mapping]:
    """Models that became non-finite."""
    return [row for part in results.parts.values() for row in part.rows if row["failed"]]


def spent(results: Results) -> dict[str, float | int]:
    """How many models there are, searches included, how many of them were found, what all took."""
    parts = results.parts.values()
    rows = {row["file"]: row for part in parts for row in (*part.searched, *part.rows)}
    return {
        "all": len(rows),
        "found": sum(row["cached"] for row in rows.values()),
        "seconds": sum(row["seconds"] for row in rows.values()),
    }


def markdown(
    results: Results, tables: Mapping[str, Table], said: Sequence[str], reached: Sequence[Bar]
) -> str:
    """The report: what was done, bars, findings, tables, settings."""
    lines = ["# Recovering true features", "", how(results.settings), ""]
    lines += [saelens_said(results.settings), ""]
    lines += [word_how(results.settings.words), ""] if "words" in results.parts else []
    if reached:
        lines += ["## Bars", "", *(f"- **{b.name}**: {b.verdict}. {b.found}" for b in reached), ""]
    lines += ["## Findings", "", *(f"- {sentence}" for sentence in said)]
    lines += [f"- Not finite: {row}" for row in map(_short, failures(results))]
    lines += ["", "## Tables", ""]
    for table in tables.values():
        lines += [table.markdown(), ""]
    values = results.settings.to_dict().items()
    return "\n".join([*lines, "## Settings", "", *(f"- {n}: {v}" for n, v in values)])


def _short(row: Mapping) -> str:
    names = ("case", "network", "stream", "layer", "arm", "strength", "seed", "failed")
    return ", ".join(f"{name} {row[name]}" for name in names if row.get(name) is not None)
