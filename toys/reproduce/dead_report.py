"""Running ``dead`` and writing what it found."""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toys.reproduce import arguments
from toys.reproduce.dead_arms import ARMS
from toys.reproduce.dead_runs import DATA, FREE, SHRUNK, problem, run_all
from toys.reproduce.dead_settings import settings
from toys.reproduce.dead_tables import Results, all_tables, findings
from toys.reproduce.html import png
from toys.reproduce.processes import one_thread
from toys.reproduce.tables import Table

HOW = """\
{seeds} seeds; {steps} updates of {batch} rows at a learning rate of {lr:g}, chosen high so that
latents die. Dead is a latent whose code, at the posterior mean, is zero on all of {rows}
held-out rows: counted over rows, and a latent that fires once in 100 000 would be dead too. TopK
arms have {latents} latents in 64 dimensions, {k} active; AuxK takes for dead what did not fire
for {after} rows, at the published strength (α = 1/32, d/2 latents); resampling acts after
updates {at} on what is silent on {resample_rows} rows. V-SAEs have rectified Gaussian codes, σ =
{noise:g}; their L0 differs, and explained variance at another L0 is no ranking. Arms of a seed
share first atoms and order of rows; differences are seed by seed. "Fewer", "more", "higher" and
"lower" are said where the 95 % interval of the difference leaves out zero, each on its own. What
this does not show: long runs, in which AuxK and resampling have more time."""

WHY = """\
A latent that is not selected has no gradient from the reconstruction, but under a KL on *all*
latents it has one from the penalty: every row in which it is not selected shrinks its
pre-activations. Let a latent be selected with frequency p, its best amplitude be a, and the mean
square of its pre-activation be c times the square of its amplitude m where selected. Then p (a -
m)² + α c m² / 2 is least at m = a · p / (p + α c / 2): a latent with p well below αc/2 shrinks
towards zero, loses the contest for the k slots, and p falls further. So the living have a
frequency above some p_min, and as frequencies sum to k, alive ≤ k / p_min: a fixed multiple of k
as long as αc, and with it p_min, is the same for every k. Without the KL nothing shrinks those
that lose. The tables show the collapse, that it deepens with α, and whether the multiple is
fixed *here*: called so if alive / k varies by less than a factor 1.5 over the k at which at
least a tenth of the latents is dead."""


def report(options: argparse.Namespace, begun: float) -> tuple[dict, str]:
    """The result as JSON has it, and as people read it; everything else is in the folder."""
    chosen = settings(smoke=options.smoke, seeds=options.seeds)
    with one_thread():
        results = Results(chosen, run_all(chosen, options.threads))
        return write(results, options, begun)


def write(results: Results, options: argparse.Namespace, begun: float) -> tuple[dict, str]:
    """Tables, figure, report and ``run.json``."""
    out: Path = options.out
    tables, said = all_tables(results), findings(results)
    for stem, table in tables.items():
        table.write(out / "tables", stem)
    Table("Every model", results.rows).write_csv(out / "tables", "models")
    text = markdown(results, tables, said)
    (out / "dead.md").write_text(text + "\n", encoding="utf-8")
    (out / "figures").mkdir(exist_ok=True)
    picture = out / "figures" / "dead.png"
    picture.write_bytes(png(drawn(results)))
    result = {
        "reproduction": "dead",
        "out": str(out),
        "smoke": options.smoke,
        "settings": results.settings.to_dict(),
        "findings": said,
        "tables": {stem: table.records() for stem, table in tables.items()},
        "figures": [str(picture)],
        "wall_seconds": time.monotonic() - begun,
    }
    kept = ("reproduction", "smoke", "settings", "wall_seconds")
    run = {name: result[name] for name in kept} | {"threads": options.threads}
    arguments.write_json(out / "run.json", run | {"versions": arguments.versions()})
    return result, f"{text}\n\nWritten to {out} in {result['wall_seconds']:.0f} s."


def markdown(results: Results, tables: Mapping[str, Table], said: Sequence[str]) -> str:
    """The report: what was done, findings, tables, the explanation, settings."""
    chosen = results.settings
    rows = {d: len(problem(d, chosen, chosen.seeds[0]).test) for d in DATA}
    how = HOW.format(
        seeds=len(chosen.seeds),
        steps=chosen.steps,
        batch=chosen.batch,
        lr=chosen.lr,
        rows=" and ".join(f"{n} ({data})" for data, n in rows.items()),
        latents=chosen.latents,
        k=chosen.k,
        after=chosen.after,
        resample_rows=chosen.resample_rows,
        at=" and ".join(map(str, chosen.resample_at)),
        noise=chosen.noise,
    )
    lines = ["# Dead latents and their remedies", "", how, "", "## Findings", ""]
    lines += [*(f"- {sentence}" for sentence in said), "", "## Remedies", ""]
    for stem, table in tables.items():
        if stem == "collapse":
            lines += ["## The collapse of variational TopK, and why", "", WHY, ""]
        lines += [table.markdown(), ""]
    values = chosen.to_dict().items()
    return "\n".join([*lines, "## Settings", "", *(f"- {name}: {value}" for name, value in values)])


def drawn(results: Results) -> Figure:
    """Dead latents of every arm, and living latents over k in the collapse."""
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _bars(left, results)
    _ratios(right, results)
    return figure


def _bars(ax: Axes, results: Results) -> None:
    for offset, data in zip((-0.2, 0.2), DATA, strict=True):
        found = [results.arm(data, arm.name, "dead") for arm in ARMS]
        places = [place + offset for place in range(len(ARMS))]
        errors = [one.half_width or 0.0 for one in found]
        ax.barh(places, [one.mean for one in found], 0.38, xerr=errors, label=data)
    ax.set_yticks(range(len(ARMS)), [arm.name for arm in ARMS])
    ax.invert_yaxis()
    ax.set_xlim(left=0.0)
    ax.set_xlabel("dead latents, % (95 % intervals over seeds)")
    ax.legend()


def _ratios(ax: Axes, results: Results) -> None:
    chosen = results.settings
    for data, color in zip(DATA, ("C0", "C1"), strict=True):
        for arm, style, title in ((FREE, "s--", "no KL"), (SHRUNK, "o-", "KL on all")):
            found = [results.shrunk(data, arm.name, k, chosen.alpha, "ratio") for k in chosen.ks]
            means, errors = [f.mean for f in found], [f.half_width or 0.0 for f in found]
            label = f"{data}, {title}"
            ax.errorbar(chosen.ks, means, errors, fmt=style, color=color, mfc="none", label=label)
    everyone = [chosen.collapse_latents / k for k in chosen.ks]
    ax.plot(chosen.ks, everyone, "k:", linewidth=3, label="everyone alive")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter("{x:g}")
    ax.set_xlabel("active latents per row, k")
    ax.set_ylabel("living latents / k")
    ax.legend(fontsize=8, handlelength=4)
