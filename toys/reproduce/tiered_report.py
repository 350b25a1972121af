"""Running ``tiered`` and writing what it found."""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from toys.reproduce import arguments
from toys.reproduce.processes import one_thread
from toys.reproduce.tables import Table
from toys.reproduce.tiered_arms import NARROW, PUBLISHED
from toys.reproduce.tiered_document import CLIP, DECAY, L1, LR
from toys.reproduce.tiered_figures import draw_all
from toys.reproduce.tiered_findings import BALANCED, NEAR, findings
from toys.reproduce.tiered_runs import run_all
from toys.reproduce.tiered_settings import Settings, settings
from toys.reproduce.tiered_tables import Results, all_tables

HOW = """\
Rows are the residual stream after block {layer} of a 260 000-parameter story-telling model, 64
numbers each, rescaled to a mean norm of {norm:g}: the raw scale of the published runs. All metrics
are of held-out rows. Intervals are 95 % t-intervals over {seeds} seeds.

*The published configuration* is run as it is written, in plain torch: tiers of {narrow}
latents (d/3, 2d/3, d), LayerNorm between them, Xavier weights, AdamW (learning rate {lr:g}, decay
{decay:g}), a cubic warm-up over {warmup} updates of {document_batch} rows, gradients of each tier
clipped at {clip}, λ = {l1:g}, weights softmax({weights}), no normaliser; {document_steps} updates,
or until something is not finite, or {slow} where products are in float16, which is slow on a CPU,
the warm-up shortened alike. Each variant changes one thing. Variants in which all is in float16 and
the one as written are run with every seed, the others with the first.

*Ours*: {sizes} latents, safe RMS scaling between tiers, unit atoms, encoder = atoms to begin with,
centred inputs of E‖x‖² = d, gradients of each tier of the encoder clipped at {our_clip}, tiers
joining from updates {starts} over {ramp}; {steps} updates of {batch} rows, Adam. Scales are fixed
at λ times a weight, or learned. Flat arms have as many latents in all. Of {rates} each compared arm
has the learning rate of the lower final training objective on a validation seed, after {search}
updates; ours with one thing changed have that of ours.

*Matched L0*: metrics are linear in log L0 between an arm's strengths and nothing is extrapolated;
an arm is better or worse than another where the interval over seeds of the difference, averaged
over the common values of L0, leaves out zero, at 95 % for the four comparisons together.
*Balanced* is an allocation in which no tier has more than {balanced:g} times another's share. A
scale has ended at its floor if within {near:.0f} % of it. *Coverage* is 1 - ‖h_i - fit‖² / ‖h_i -
mean‖² for the affine least-squares fit from h_(i-1), fitted on training rows; controls are the same
with the rows of h_(i-1) shuffled, an untrained model, and tiers dealt at random out of a flat
code; two arms differ where their intervals do not overlap. What this does not show: the published
network and layer, longer training, larger widths."""


def report(options: argparse.Namespace, begun: float) -> tuple[dict, str]:
    """The result as JSON has it, and as people read it; everything else is in the folder."""
    chosen = settings(smoke=options.smoke, seeds=options.seeds)
    with one_thread():
        results = Results(chosen, *run_all(chosen, options.threads))
        return write(results, options, begun)


def write(results: Results, options: argparse.Namespace, begun: float) -> tuple[dict, str]:
    """Tables, figures, report and ``run.json``."""
    out: Path = options.out
    tables, said = all_tables(results), findings(results)
    for stem, table in tables.items():
        table.write(out / "tables", stem)
    models_table(results).write_csv(out / "tables", "models")
    text = markdown(results, tables, said)
    (out / "tiered.md").write_text(text + "\n", encoding="utf-8")
    pictures = draw_all(results, out / "figures")
    result = {
        "reproduction": "tiered",
        "out": str(out),
        "smoke": options.smoke,
        "settings": results.settings.to_dict(),
        "findings": said,
        "tables": {stem: table.records() for stem, table in tables.items()},
        "figures": [str(path) for path in pictures],
        "wall_seconds": time.monotonic() - begun,
    }
    kept = ("reproduction", "smoke", "settings", "wall_seconds")
    run = {name: result[name] for name in kept} | {"threads": options.threads}
    arguments.write_json(out / "run.json", run | {"versions": arguments.versions()})
    return result, f"{text}\n\nWritten to {out} in {result['wall_seconds']:.0f} s."


def models_table(results: Results) -> Table:
    """A line per model, seeds apart, learning-rate search included; lists left out."""
    rows = [dict(row) | {"searched": False} for row in results.rows]
    rows = [dict(row) | {"searched": True} for row in results.searched] + rows
    plain = [{n: v for n, v in row.items() if not isinstance(v, list)} for row in rows]
    return Table("Models", plain)


def how(chosen: Settings) -> str:
    """What was done, with the numbers of the run."""
    return HOW.format(
        layer=chosen.layer,
        norm=chosen.norm,
        seeds=len(chosen.seeds),
        narrow=", ".join(map(str, NARROW)),
        lr=LR,
        decay=DECAY,
        warmup=chosen.document_warmup,
        document_batch=chosen.document_batch,
        clip=", ".join(f"{c:g}" for c in CLIP),
        l1=L1,
        weights=", ".join(map(str, PUBLISHED)),
        document_steps=chosen.document_steps,
        slow=chosen.document_steps // 10,
        sizes=", ".join(map(str, chosen.sizes)),
        our_clip=", ".join(f"{c:g}" for c in chosen.clip),
        starts=", ".join(map(str, chosen.starts)),
        ramp=chosen.ramp,
        steps=chosen.steps,
        batch=chosen.batch,
        rates=" and ".join(f"{rate:g}" for rate in chosen.rates),
        search=chosen.search,
        balanced=BALANCED,
        near=100 * (NEAR - 1),
    )


def markdown(results: Results, tables: Mapping[str, Table], said: Sequence[str]) -> str:
    """The report: what was done, findings, tables, settings."""
    lines = ["# Autoencoders in tiers", "", how(results.settings), "", "## Findings", ""]
    lines += [*(f"- {sentence}" for sentence in said), "", "## Tables", ""]
    for table in tables.values():
        lines += [table.markdown(), ""]
    values = results.settings.to_dict().items()
    return "\n".join([*lines, "## Settings", "", *(f"- {name}: {value}" for name, value in values)])
