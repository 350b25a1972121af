"""The default run of part 1: train, tabulate, judge, draw, write."""

import argparse
import time
from collections.abc import Iterable, Sequence

from toys.reproduce import arguments, part1_arms, part1_figures, part1_runs, part1_tables
from toys.reproduce.part1_arms import ARMS
from toys.reproduce.part1_claims import judge
from toys.reproduce.part1_document import TABLE
from toys.reproduce.part1_runs import Job
from toys.reproduce.part1_tables import select
from toys.reproduce.part1_verdicts import Claim

LATENTS = 32


def report(options: argparse.Namespace, settings: dict, begun: float) -> tuple[dict, str]:
    """The result as JSON has it, and as people read it."""
    rows = part1_runs.run_all(list(jobs(settings)), settings["threads"])
    tables = list(part1_tables.all_tables(rows))
    long = part1_tables.long_table(rows)
    claims = {data: judge(select(rows, data=data)) for data in settings["data"]}
    figures = part1_figures.draw_all(rows, options.out / "figures")
    text = markdown(settings, claims, tables)
    long.write(options.out, "part1")
    part1_tables.model_table(rows).write_csv(options.out, "part1_models")
    (options.out / "part1.md").write_text(text + "\n", encoding="utf-8")
    result = {
        "reproduction": "part1",
        "out": str(options.out),
        "settings": settings | constants(),
        "verdicts": {data: [claim.to_dict() for claim in found] for data, found in claims.items()},
        "table": long.records(),
        "figures": [str(path) for path in figures],
        "failed": failures(rows),
        "wall_seconds": time.monotonic() - begun,
    }
    run = {name: result[name] for name in ("settings", "failed", "wall_seconds")}
    arguments.write_json(options.out / "run.json", run | {"versions": arguments.versions()})
    return result, f"{text}\n\nWritten to {options.out} in {result['wall_seconds']:.0f} s."


def jobs(settings: dict) -> Iterable[Job]:
    """Every arm at its default strength."""
    runs = [(name, arm.strength) for name, arm in ARMS.items()]
    for data in settings["data"]:
        for name, strength in (run for run in runs if data in ARMS[run[0]].data):
            yield from split(settings, data, name, LATENTS, strength, settings["cases"])


def split(
    settings: dict, data: str, arm: str, latents: int | None, strength: float, cases: Sequence[str]
) -> Iterable[Job]:
    """One job, or one per case where the arm's tensors differ in shape from case to case."""
    groups = [(case,) for case in cases] if ARMS[arm].per_case else [tuple(cases)]
    for group in groups:
        yield Job(
            data=data,
            arm=arm,
            latents=latents,
            strength=strength,
            cases=group,
            seeds=tuple(settings["seeds"]),
            steps=settings["steps"],
        )


def constants() -> dict:
    """The settings no option changes, with the map from β to α."""
    return {
        "latents": LATENTS,
        "hidden": part1_arms.HIDDEN,
        "noise": part1_arms.NOISE,
        "alpha_at_beta_1": round(part1_arms.alpha(1.0), 12),
        "prior_mean": part1_arms.LOC,
        "threshold_linear": part1_arms.THRESHOLD,
        "l1": ARMS["l1"].strength,
        "train_rows": part1_runs.TRAIN,
        "test_rows": part1_runs.TEST,
        "batch": part1_runs.BATCH,
        "lr": part1_runs.LR,
    }


def markdown(settings: dict, claims: dict[str, list[Claim]], tables: Iterable) -> str:
    """The report: settings, verdicts, tables."""
    fixed = constants()
    lines = [
        "# Part 1: structured priors on toy cases",
        "",
        HOW.format(**settings_text(settings)),
        "",
    ]
    lines += ["## Verdicts", ""]
    for data, found in claims.items():
        lines += [f"*{part1_tables.FAMILY[data]}*", ""]
        lines += [f"- **{claim}** — “{claim.statement}” Rule: {claim.rule}." for claim in found]
        lines += [""]
    lines += ["## Tables", ""]
    lines += [part for table in tables for part in (table.markdown(), "")]
    lines += ["## Settings", "", *(f"- {name}: {value}" for name, value in fixed.items())]
    return "\n".join(lines)


def settings_text(settings: dict) -> dict:
    """What the report's first paragraph names."""
    return {
        "seeds": len(settings["seeds"]),
        "steps": settings["steps"],
        "sigma": part1_arms.NOISE,
        "alpha": part1_arms.alpha(1.0),
        "latents": LATENTS,
        "loc": part1_arms.LOC,
        "denser": sum(row.vae_l0 > row.sae_l0 for row in TABLE.values()),
        "printed": len(TABLE),
    }


HOW = """\
{latents} latents, {steps} steps, {seeds} seeds; cells are means with 95 % t-intervals over seeds.
V-SAEs minimise MSE + α·KL (MSE summed over neurons) with σ = {sigma:g} and β = 1, that is α =
2σ²β = {alpha:g}. Latents have no identity before training: initial weights are drawn alike for
all of them, and a shuffled graph is the true one with latents renamed. Both graph arms therefore
have the *same law*; the second is a repetition of the first, and the difference between them is
the noise of the experiment, not a control of the truth. (Where latents start from an earlier run,
as in `vsae reproduce quickstart`, shuffling is a control.) What a graph prior may show here is
whether coupling of that kind helps at all. The graph prior has the ridge and strength closest (in
KL) to the true Gaussian over features and independent spare latents; a signed Laplacian is
diagonally dominant, which the precision of case 6 is not, so there its closest member is far from
the truth. In cases 1 and 2 features are independent, the graph has no edge, and both graph arms
are the isotropic one. Prior means of rectified latents are fixed at {loc:g}: a learned covariance
can raise them only by a shift that all latents share. Training is short: a log-scale moves by at
most about 1e-3 per step, so learned priors may not have converged; `--steps` says how that
changes a table. The toys' noise has variance 0.01 per neuron: an MSE below that is noise copied
into codes. In the dense family a Gaussian identifies the span of the features at most, except in
case 1 (orthogonal, of different variances: the principal axes): read MCC against its chance
level. In cases 1 and 2 the span is a plane, in which a few atoms lie near any direction, so a
high MCC says little there. In {denser} of the {printed} rows of the document's own table the
V-SAE has more active latents than the SAE, where its headline says comparable or higher sparsity.
For linear codes both priors have the same best ELBO (a linear-Gaussian model absorbs any
covariance into its atoms), so a difference there is one of optimisation or of the encoder; the
entropy of the data is what the best could reach. The prior with learned scales has all of
Cholesky's freedom but correlations."""


def failures(rows: Sequence[dict]) -> list[dict]:
    """Models frozen because they became non-finite, and at which step."""
    names = ("data", "arm", "case", "seed", "strength", "failed_at")
    return [{n: row[n] for n in names} for row in rows if row["failed_at"] is not None]
