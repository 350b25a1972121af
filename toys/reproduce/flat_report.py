"""Running ``flat`` and writing what it found."""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from toys.reproduce import arguments, flat_arms
from toys.reproduce.flat_data import problem
from toys.reproduce.flat_figures import draw_all
from toys.reproduce.flat_findings import findings
from toys.reproduce.flat_runs import run_all
from toys.reproduce.flat_settings import VALIDATION, Settings, settings
from toys.reproduce.flat_tables import Results, all_tables, models_table
from toys.reproduce.processes import one_thread
from toys.reproduce.tables import Table

LONG = ("points", "rates")  # tables that the report has under headings of their own


def report(options: argparse.Namespace, begun: float) -> tuple[dict, str]:
    """The result as JSON has it, and as people read it; everything else is in the folder."""
    chosen = settings(
        smoke=options.smoke,
        seeds=options.seeds,
        steps=options.steps,
        toy_latents=options.toy_latents,
    )
    with one_thread():
        return write(gathered(chosen, options.threads), options, begun)


def gathered(chosen: Settings, threads: int) -> Results:
    """Everything trained and measured."""
    searched, rows = run_all(chosen, threads)
    chance = {seed: problem("toy", chosen, seed).chance() for seed in chosen.seeds}
    return Results(chosen, searched, rows, chance)


def write(results: Results, options: argparse.Namespace, begun: float) -> tuple[dict, str]:
    """Tables, figures, report and ``run.json``."""
    out: Path = options.out
    tables, said = all_tables(results), findings(results)
    for stem, table in tables.items():
        table.write(out / "tables", stem)
    models_table(results).write_csv(out / "tables", "models")
    text = markdown(results, tables, said)
    (out / "flat.md").write_text(text + "\n", encoding="utf-8")
    result = {
        "reproduction": "flat",
        "out": str(out),
        "smoke": options.smoke,
        "settings": results.settings.to_dict() | constants(),
        "findings": said,
        "tables": {stem: table.records() for stem, table in tables.items()},
        "figures": [str(path) for path in draw_all(results, out / "figures")],
        "failed": [dict(row) for row in results.rows if row["failed"] is not None],
        "wall_seconds": time.monotonic() - begun,
    }
    kept = ("reproduction", "smoke", "settings", "failed", "wall_seconds")
    run = {name: result[name] for name in kept} | {"threads": options.threads}
    arguments.write_json(out / "run.json", run | {"versions": arguments.versions()})
    return result, f"{text}\n\nWritten to {out} in {result['wall_seconds']:.0f} s."


def constants() -> dict:
    """The settings of arms that no option changes."""
    return {
        "validation_seed": VALIDATION,
        "auxk_dead_after_rows": flat_arms.DEAD_AFTER,
        "jumprelu_slots": flat_arms.SLOTS,
        "jumprelu_threshold_and_bandwidth": flat_arms.JUMP,
        "switch_experts": flat_arms.EXPERTS,
        "variational_latents_per_expected": flat_arms.SPARSITY,
    }


def markdown(results: Results, tables: Mapping[str, Table], said: Sequence[str]) -> str:
    """The report: what was done, findings, tables, settings."""
    chosen = results.settings
    lines = ["# Flat SAEs at matched sparsity", "", HOW.format(**wording(chosen)), ""]
    lines += ["## Findings", "", *(f"- {sentence}" for sentence in said), ""]
    lines += ["## At matched L0", ""]
    for stem, table in tables.items():
        if stem not in LONG:
            lines += [table.markdown(), ""]
    lines += ["## Learning rates", "", tables["rates"].markdown(), ""]
    lines += ["## Every arm and strength", "", tables["points"].markdown(), ""]
    values = chosen.to_dict() | constants()
    return "\n".join([*lines, "## Settings", "", *(f"- {n}: {v}" for n, v in values.items())])


def wording(chosen: Settings) -> dict:
    """The numbers of the first paragraph."""
    return {
        "seeds": len(chosen.seeds),
        "steps": chosen.steps,
        "rows": chosen.steps * chosen.batch,
        "features": chosen.features,
        "width": chosen.toy_width,
        "latents": chosen.toy_latents,
        "stories": chosen.stories_latents,
        "rates": " or ".join(f"{rate:g}" for rate in chosen.rates),
        "active": f"{chosen.features * chosen.firing:g}",
    }


HOW = """\
{seeds} seeds; {steps} updates, {rows} rows per model. The toy has {features} features in {width}
dimensions, half of them in groups of four that fire together, half in pairs that exclude each
other, {active} active per row on average, and {latents} latents; its dictionary is drawn anew for
each seed. The stories' seeds differ in weights and order of rows only, on {stories} latents. All
arms have unit atoms, the same first atoms per seed, rows in the same order, Adam without clipping,
a linear decay over the last fifth, and penalties warmed up over the first tenth. The learning rate,
{rates}, is each arm's own: the one with the lower final training objective at its middle strength
on a validation seed (AuxK's term left out of it). Between strengths metrics are linear in log L0;
a cell with a range of L0 instead of a number lies outside an arm's sweep in some seed: nothing is
extrapolated. A chord lies below a concave curve: values between two strengths are a little low, for
all arms alike where their strengths are as far apart. Dead latents are those that no held-out row
activates. What this does not show: longer training (penalised arms converge more slowly, and AuxK's
and JumpReLU's settings are scaled to short runs), other widths or layers, larger networks. F1 is
over all latents, so latents beyond the number of features cost every arm. Means that are not
separated are no ranking."""
