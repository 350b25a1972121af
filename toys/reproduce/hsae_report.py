"""Running ``hsae`` and writing what it found."""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from toys.reproduce import arguments
from toys.reproduce.flat_arms import DEAD_AFTER
from toys.reproduce.hsae_claims import claims
from toys.reproduce.hsae_compute import compute, compute_table
from toys.reproduce.hsae_exact import exact
from toys.reproduce.hsae_figures import draw_all
from toys.reproduce.hsae_matched import five_tables
from toys.reproduce.hsae_plan import size_of
from toys.reproduce.hsae_recipes import L1, ORTHOGONALITY
from toys.reproduce.hsae_results import Results
from toys.reproduce.hsae_reviews import reviews
from toys.reproduce.hsae_runs import run_all
from toys.reproduce.hsae_settings import VALIDATION, Settings, settings
from toys.reproduce.hsae_sweeps import STRONG
from toys.reproduce.hsae_tables import (
    DRAWN,
    SWEEPS,
    absorption_table,
    comparison_table,
    figure3_table,
    hedging_table,
    held,
    models_table,
    rates_table,
    redundancy_table,
    structure_table,
    sweep_table,
    verdict_table,
)
from toys.reproduce.hsae_variants import TOP_WEIGHT
from toys.reproduce.hsae_verdicts import Claim
from toys.reproduce.processes import one_thread
from toys.reproduce.tables import Table

LONG = ("comparisons", "rates")  # tables at the end of the report


def report(options: argparse.Namespace, begun: float) -> tuple[dict, str]:
    """The result as JSON has it, and as people read it; everything else is in the folder."""
    chosen = settings(smoke=options.smoke, seeds=options.seeds, steps=options.steps)
    with one_thread():
        return write(gathered(chosen, options.threads), options, begun)


def gathered(chosen: Settings, threads: int) -> Results:
    """Everything trained and measured."""
    searched, rows = run_all(chosen, threads)
    sizes = {data: size_of(chosen, data) for data in chosen.data}
    return Results(chosen, searched, rows, exact(chosen), sizes)


def all_tables(results: Results, said: Sequence[Claim], asked: Sequence[Claim]) -> dict[str, Table]:
    """By the stem of their files, in the order of the report."""
    return {
        "verdicts": verdict_table(said, "Claims of the paper"),
        "reviews": verdict_table(asked, "Requests of the reviewers"),
        **{f"figure3_{data}": figure3_table(results, data) for data in held(results, DRAWN)},
        **five_tables(results),
        "compute": compute_table(results),
        "absorption": absorption_table(results),
        "hedging": hedging_table(results),
        "redundancy": redundancy_table(results),
        "structure": structure_table(results),
        **{f"sweep_{stem}": sweep_table(results, sweep) for stem, sweep in SWEEPS.items()},
        "comparisons": comparison_table([*said, *asked]),
        "rates": rates_table(results),
    }


def write(results: Results, options: argparse.Namespace, begun: float) -> tuple[dict, str]:
    """Tables, figures, report and ``run.json``."""
    out: Path = options.out
    said, asked = [*claims(results), *compute(results)], reviews(results)
    tables = all_tables(results, said, asked)
    for stem, table in tables.items():
        table.write(out / "tables", stem)
    models_table(results).write_csv(out / "tables", "models")
    text = markdown(results, tables)
    (out / "hsae.md").write_text(text + "\n", encoding="utf-8")
    verdicts = [
        {"claim": c.name, "text": c.text, "verdict": str(c.verdict), "comparisons": c.count()}
        for c in (*said, *asked)
    ]
    result = {
        "reproduction": "hsae",
        "out": str(out),
        "smoke": options.smoke,
        "settings": results.settings.to_dict() | constants(),
        "verdicts": verdicts,
        "tables": {stem: table.records() for stem, table in tables.items()},
        "figures": [str(path) for path in draw_all(results, out / "figures")],
        "failed": [
            {"data": row["data"], "seed": row["seed"], "message": row["failed"]}
            | row["recipe"].describe()
            for row in results.rows
            if row["failed"] is not None
        ],
        "wall_seconds": time.monotonic() - begun,
    }
    kept = ("reproduction", "smoke", "settings", "verdicts", "failed", "wall_seconds")
    run = {name: result[name] for name in kept} | {"threads": options.threads}
    arguments.write_json(out / "run.json", run | {"versions": arguments.versions()})
    return result, f"{text}\n\nWritten to {out} in {result['wall_seconds']:.0f} s."


def constants() -> dict:
    """The settings of recipes that no option changes."""
    return {
        "validation_seed": VALIDATION,
        "top_weight": TOP_WEIGHT,
        "orthogonality_at_unit_norm": ORTHOGONALITY,
        "l1_at_unit_norm": L1,
        "strong_l1": STRONG,
        "auxk_dead_after_rows": DEAD_AFTER,
    }


def markdown(results: Results, tables: Mapping[str, Table]) -> str:
    """The report: what was done, verdicts, tables, settings."""
    chosen = results.settings
    lines = ["# Hierarchical sparse autoencoders", "", HOW.format(**wording(chosen)), ""]
    lines += ["## Verdicts", ""]
    for stem in ("verdicts", "reviews"):
        lines += [tables[stem].markdown(), ""]
    lines += ["## Tables", ""]
    for stem, table in tables.items():
        if stem not in (*LONG, "verdicts", "reviews"):
            lines += [f"`{stem}`", "", table.markdown(), ""]
    lines += ["## Every comparison", "", tables["comparisons"].markdown(), ""]
    lines += ["## Learning rates", "", tables["rates"].markdown(), ""]
    values = chosen.to_dict() | constants()
    return "\n".join([*lines, "## Settings", "", *(f"- {n}: {v}" for n, v in values.items())])


def wording(chosen: Settings) -> dict:
    """The numbers of the first paragraph."""
    return {
        "seeds": len(chosen.seeds),
        "steps": chosen.steps,
        "rows": chosen.steps * chosen.batch,
        "rates": " or ".join(f"{rate:g}" for rate in chosen.rates),
        "tolerance": f"{100 * chosen.tolerance:g}",
        "margin": chosen.margin,
    }


HOW = """\
{seeds} seeds; {steps} updates, {rows} rows per model. A seed draws a toy's dictionary and rows
anew; stories and words are the same for all, and seeds differ in weights and order of rows. All
arms have the same units (centred, E‖x‖² = d), the same optimiser and order of rows; the learning
rate, {rates}, is chosen by the final training objective on a validation seed, per data and
architecture, at an H-SAE's reference width and at a flat SAE's narrowest and widest. At *equal k* a
flat SAE has as many active latents as an H-SAE has active roots, as published, and so about half as
many active latents; at *matched L0* its k is that of the same held-out L0 up to {tolerance} %, or
two k between which metrics are interpolated in log L0. A comparison is a difference seed by seed;
its t-interval is at the level at which all comparisons of its claim together err with 5 % at most
(Bonferroni). A claim *holds* if every comparison of it does, *fails* if one fails, and is
*undecided* otherwise: the counts say how near it came. The rule leans against claims, claims are
not corrected for each other, intervals are over seeds and not over other text or nouns, and
*undecided* is not *no difference*. Comparisons without a difference in any seed are left out. "On
par" and "no effect" mean within {margin} of explained variance (or of the link). What this does not
show: long training, wide dictionaries, large networks; at {rows} rows per model many latents are
still dead, in every architecture."""
