"""The part ``layered``: are true features over layers found, and what does a true graph add?"""

from collections.abc import Iterator

from toys.reproduce.jobs import Job
from toys.reproduce.part4_layered_figure import layered_figures
from toys.reproduce.part4_layered_jobs import layered_jobs
from toys.reproduce.part4_layered_tables import layered_findings, layered_tables
from toys.reproduce.part4_part import Part
from toys.reproduce.part4_settings import Settings

HOW = """\
Toys of `toys.layered`: 32 features in 24 dimensions in groups of four that fire together (φ = 0.4),
each in one sixteenth of the rows, a toy per seed. `persistent`: every feature in all five layers,
one direction. `turning`: a feature appears at one layer and vanishes after another, and turns by 15
degrees a layer. `two-models`: half of the features in both of two models, a quarter in each alone.
{latents} latents; every arm at L0 {target:g}, the truth's, by a controller of β or by k. Structure
needs latents that have an identity: every dense arm, ℓ1 too, goes on from an ℓ1 run of
{first_steps} updates whose latents were named after the features that they match best, and has
{steps} more; the graph is the true one of features that fire together, and the shuffled one ties
others. That is more than anybody knows of real data: what it buys is a bound. TopK and BatchTopK
start from random weights and have both. SAEs per layer have the same updates, and each the L0 of
the features that are in its layer; they do not say which latents of several layers are one
feature, so that only the last column compares them. *Rule*: differences of MCC are paired by seed
(toy and weights); better if the 95 % t-interval is wholly above 0, worse if wholly below,
undecided otherwise; an arm whose mean L0 is over a tenth from the target is named. A latent is in
a layer if its norm there is over 0.3 of its greatest."""


def layered_how(settings: Settings) -> str:
    """With the numbers of the run."""
    own = settings.layered
    return HOW.format(
        latents=own.latents,
        target=own.training.target,
        first_steps=own.training.first_steps,
        steps=own.training.steps,
    )


def jobs(settings: Settings) -> Iterator[Job]:
    """Every arm on every case."""
    return layered_jobs(settings.layered, settings.seeds)


LAYERED = Part(
    question="Where the truth is known: are features over layers found?",
    how=layered_how,
    jobs=jobs,
    tables=layered_tables,
    findings=layered_findings,
    figures=layered_figures,
)
