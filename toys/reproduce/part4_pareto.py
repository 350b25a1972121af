"""The part ``pareto``: between ℓ1 alone and a graph alone, over the whole range of strengths."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from matplotlib.figure import Figure

from toys.reproduce.jobs import Job
from toys.reproduce.part4_compare import MARGIN, NEAR, chosen, missed
from toys.reproduce.part4_part import Part, Rows
from toys.reproduce.part4_settings import Settings
from toys.reproduce.part4_tokens_figures import save
from toys.reproduce.part4_tokens_plan import token_job
from toys.reproduce.tables import Cell, Table, number
from vsae import plots

ENDS = ("l1", "graph", "isotropic")
"""ω = 0; without ℓ1; and the isotropic prior without ℓ1."""

HOW = """\
Tokens as above, graph + ℓ1: -log p = ½ ω zᵀΛz + ‖z‖₁ with ω of {ratios}, ℓ1 alone (ω = 0) and the
graph alone; and the isotropic prior alone, whose strength β the controller moves to every L0 of
{frontier}. First seed. As β falls to 0 every arm is the one without a penalty: this is about sparse
codes. *Rule*: the isotropic prior's failure is one of strength
if at any target of L0 its R² comes within {margin:g} of ℓ1's; it is the prior's if at none. A
mixture is better than ℓ1 where its R² is by more than {margin:g} higher. Two models are compared
where the L0 they reached differ by at most {near:.0f} %, or where the one of more active latents is
the worse all the same. One seed has no interval."""


def pareto_jobs(options: Settings) -> Iterator[Job]:
    """Those at the targets of ``tokens`` are its own."""
    seed = options.seeds[0]
    for target in options.frontier:
        for arm in ENDS:
            yield token_job(options, arm, target, seed)
        for ratio in options.ratios:
            yield token_job(options, "mixed", target, seed, ratio=ratio)


def lines(settings: Settings, rows: Rows) -> dict[str, list[Mapping]]:
    """The frontier of each mixture, by its label, from ℓ1 alone to the graph alone."""
    found = {"ℓ1 alone": chosen(rows, arm="l1")}
    for ratio in settings.ratios:
        found[f"ω = {ratio:g}"] = chosen(rows, arm="mixed", ratio=ratio)
    found |= {"graph alone": chosen(rows, arm="graph")}
    found |= {"isotropic alone": chosen(rows, arm="isotropic")}
    return {label: mine for label, mine in found.items() if mine}


def pareto_tables(settings: Settings, rows: Rows) -> Mapping[str, Table]:
    """A line per model."""
    table: list[dict[str, Cell]] = [
        {
            "prior": label,
            "target L0": row["target"],
            "L0": row["l0"],
            "R²": row["r2"],
            "R², raw": row["r2_raw"],
            "never active": row["dead"],
            "zᵀLz / ‖z‖²": row["rough"],
            "β": row["beta"],
        }
        for label, mine in lines(settings, rows).items()
        for row in mine
    ]
    return {"pareto": Table("Explained variance against L0, first seed", table)}


def comparable(row: Mapping, other: Mapping) -> bool:
    """Whether L0 is nearly the same, or the denser is the worse all the same.

    Example:
        >>> one, many = {"l0": 16.0, "r2": 0.5}, {"l0": 20.0, "r2": 0.6}
        >>> comparable(one, many), comparable(one, many | {"r2": 0.4})
        (False, True)
    """
    near = abs(row["l0"] - other["l0"]) <= NEAR * max(row["l0"], other["l0"])
    fewer, more = sorted((row, other), key=lambda model: model["l0"])
    return near or more["r2"] < fewer["r2"]


def pareto_findings(settings: Settings, rows: Rows) -> list[str]:
    """Each frontier against ℓ1's."""
    found = lines(settings, rows)
    base = {row["target"]: row for row in found.get("ℓ1 alone", ())}
    said = []
    for label, mine in found.items():
        if label == "ℓ1 alone":
            continue
        gaps, apart = [], []
        for row in mine:
            other = base.get(row["target"])
            if other is None or not comparable(row, other):
                apart.append(row["target"])
            else:
                gaps.append((row["target"], row["r2"] - other["r2"]))
        late = [f"{number(m['l0'])} for {m['target']}" for m in mine if missed([m], m["target"])]
        said.append(_said(label, gaps, apart) + (f" L0 was {', '.join(late)}." if late else ""))
    return said


def _said(label: str, gaps: list[tuple[int, float]], apart: list[int]) -> str:
    listed = ", ".join(f"{number(gap)} at {target}" for target, gap in gaps)
    tail = f" Not comparable at {', '.join(map(str, apart))}." if apart else ""
    if not gaps:
        return f"{label} against ℓ1: **undecided**.{tail}"
    if label == "isotropic alone":
        strength = any(gap >= -MARGIN for _, gap in gaps)
        verdict = "its strength" if strength else "the prior, at every strength"
        says = f"Why does the isotropic prior fail? **{verdict}** that gives these L0"
        return f"{says} (R² minus ℓ1's: {listed}).{tail}"
    better = sum(gap > MARGIN for _, gap in gaps)
    worse = sum(gap < -MARGIN for _, gap in gaps)
    verdict = f"better at {better}, worse at {worse} of {len(gaps)} values of L0"
    return f"{label} against ℓ1: **{verdict}** (R² difference {listed}).{tail}"


def pareto_figures(settings: Settings, rows: Rows, folder: Path) -> list[Path]:
    """R² against L0."""
    arms = {
        label: [plots.FrontierPoint(row["l0"], row["r2"]) for row in mine if row["l0"] > 0]
        for label, mine in lines(settings, rows).items()
    }
    arms = {label: points for label, points in arms.items() if points}
    if not arms:
        return []
    figure = Figure(figsize=(8, 5.2), layout="constrained")
    plots.pareto_frontier(figure.subplots(), arms, label="R² of held-out tokens, all layers")
    return [save(figure, folder / "pareto.png")]


def pareto_how(options: Settings) -> str:
    """With the numbers of the run."""
    return HOW.format(
        ratios=", ".join(f"{ratio:g}" for ratio in options.ratios),
        frontier=", ".join(map(str, options.frontier)),
        margin=MARGIN,
        near=100 * NEAR,
    )


PARETO = Part(
    question="Is there a mixture of graph and ℓ1 that beats ℓ1?",
    how=pareto_how,
    jobs=pareto_jobs,
    tables=pareto_tables,
    findings=pareto_findings,
    figures=pareto_figures,
)
