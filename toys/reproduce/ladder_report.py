"""Running ``ladder`` and writing what it found."""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from toys.reproduce import arguments
from toys.reproduce.ladder_arms import ARMS, FASTER, FLAT, OF_WORLD, VARIATIONAL
from toys.reproduce.ladder_data import ARCS, CHILDREN, CLUSTERS, D_MODEL, RINGS
from toys.reproduce.ladder_figures import draw_all
from toys.reproduce.ladder_runs import run_all
from toys.reproduce.ladder_scores import RARE
from toys.reproduce.ladder_settings import Settings, settings
from toys.reproduce.ladder_tables import Results, all_tables, models_table
from toys.reproduce.ladder_verdicts import RULES, findings, verdicts
from toys.reproduce.processes import one_thread
from toys.reproduce.tables import Table

HOW = """\
*Toys*, a new draw for every seed. *Clusters in clusters*: {clusters} clusters of {children} fine
features that fire independently given their cluster, {features} directions in {d} dimensions, in
Park et al.'s geometry. *Two layers*: the same features, with other directions in each of two layers
of {d} numbers. *Rings*: {rings} rings, each in a plane of its own beside the direction of its
centre; fine features are {arcs} arcs of each, so that fine truth is a convention and coarse truth
is not. {rows} rows to train on; of {held} held-out ones half choose which latent is whose, and half
score it.

*Models* have {levels} latents, flat ones {total}. All begin with directions of the same training
rows. {steps} updates of {batch} rows, Adam, learning rate {lr:g}, decayed over the last fifth; no
rate was searched for. λ is {l1} on the two levels and η {eta:g}, times β; γ = {gamma:g}. β is found
during training by a controller, so that {target:g} latents are active per row, all levels together;
it starts at {start:g} and changes by at most {rate:.0%} an update (*faster*: {fast_start:g} and
{fast_rate:.0%}). TopK has k = {target:g}. The variational ladder (σ = {noise:g} in units in which a
row has √d) starts at β = {low:g} and has {factor:g} times that target in training, as its codes at
the means are sparser. The slower β was chosen on other seeds after a first run of all arms with the
faster one, in which fine levels of lateral ladders died; that is kept as arms of its own. The graph
joins every fine latent to the {neighbours} whose atoms begin nearest; the shuffled twin is the same
graph with its latents renamed. Null models have {draws} draws.

*F1* of a feature is that of one latent as its detector, matched one to one; *MCC* is the mean |cos|
of a like matching, of fine features with what they add to their cluster or with both together,
whichever is nearer. *By chance*: of codes whose rows are permuted, and of as many directions at
random. Clusters of fine latents, for *nestedness*, are those of average linkage on
their correlations, twice as many as there are clusters; a coarse cluster is the latents that one
coarse latent lifts most. *Block score* takes the true cluster that lifts a latent most, found on
other rows. R² is of least squares, fitted and scored on different rows, without latents that fire
on fewer than {rare} rows. Intervals are 95 % t-intervals over {seeds} seeds.

What this does not show: activations of networks, more than two levels, other sizes or sparsities;
no λ, γ, η or learning rate was tuned for any arm; how β begins and moves, and the variational arm's
target, were, as said. The graph is made of where atoms begin,
random rows of data, and is not made again: that it adds nothing says little of better graphs."""


def report(options: argparse.Namespace, begun: float) -> tuple[dict, str]:
    """The result as JSON has it, and as people read it; everything else is in the folder."""
    chosen = settings(smoke=options.smoke, seeds=options.seeds)
    with one_thread():
        rows = run_all(chosen, options.out / "models", options.threads)
        return write(Results(chosen, rows), options, begun)


def write(results: Results, options: argparse.Namespace, begun: float) -> tuple[dict, str]:
    """Tables, figures, report and ``run.json``."""
    out: Path = options.out
    decided = verdicts(results)
    tables, said = all_tables(results, decided), findings(results, decided)
    for stem, table in tables.items():
        table.write(out / "tables", stem)
    models_table(results).write_csv(out / "tables", "models")
    text = markdown(results, tables, said)
    (out / "ladder.md").write_text(text + "\n", encoding="utf-8")
    pictures = draw_all(results, out / "figures")
    result = {
        "reproduction": "ladder",
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
    run |= {"seeds": list(results.settings.seeds)}
    arguments.write_json(out / "run.json", run | {"versions": arguments.versions()})
    return result, f"{text}\n\nWritten to {out} in {result['wall_seconds']:.0f} s."


def how(chosen: Settings) -> str:
    """What was done, with the numbers of the run."""
    sizes = chosen.sizes
    return HOW.format(
        clusters=CLUSTERS,
        children=CHILDREN,
        features=CLUSTERS * (CHILDREN + 1),
        d=D_MODEL,
        rings=RINGS,
        arcs=ARCS,
        rows=sizes.rows,
        held=sizes.held,
        levels=" + ".join(map(str, sizes.levels)),
        total=sum(sizes.levels),
        steps=sizes.steps,
        batch=sizes.batch,
        lr=sizes.lr,
        l1=" and ".join(f"{one:g}" for one in sizes.l1),
        eta=sizes.eta,
        gamma=sizes.gamma,
        target=sizes.target,
        noise=sizes.noise,
        factor=ARMS[VARIATIONAL].factor,
        low=ARMS[VARIATIONAL].start,
        start=ARMS[FLAT].start,
        rate=ARMS[FLAT].rate,
        fast_start=FASTER["start"],
        fast_rate=FASTER["rate"],
        neighbours=sizes.neighbours,
        draws=sizes.draws,
        rare=RARE,
        seeds=len(chosen.seeds),
    )


def markdown(results: Results, tables: Mapping[str, Table], said: Sequence[str]) -> str:
    """The report: what was done, rules, findings, tables, settings."""
    lines = ["# Ladders", "", how(results.settings), "", "## Rules", "", RULES, ""]
    lines += ["## Findings", "", *(f"- {sentence}" for sentence in said), "", "## Tables", ""]
    for table in tables.values():
        lines += [table.markdown(), ""]
    values = results.settings.to_dict().items()
    arms = sum(len(OF_WORLD[world]) for world in results.settings.worlds)
    lines += ["## Settings", "", f"- arms: {arms}"]
    return "\n".join([*lines, *(f"- {name}: {value}" for name, value in values)])
