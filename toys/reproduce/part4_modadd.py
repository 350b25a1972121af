"""The part ``modadd``: crosscoders of networks that add, and the planes that are the truth."""

from collections.abc import Iterator

from toys.reproduce.jobs import Job
from toys.reproduce.part4_modadd_figure import modadd_figures
from toys.reproduce.part4_modadd_jobs import modadd_jobs
from toys.reproduce.part4_modadd_tables import modadd_findings, modadd_tables
from toys.reproduce.part4_part import Part
from toys.reproduce.part4_settings import Settings

HOW = """\
Networks of two and three blocks that add modulo 59 (`toys.modadd_layers`): the last token's stream
after every block, of all inputs, {rows} of them for training; {latents} latents. The truth is in
the planes of every layer: one frequency of one function of the numbers, a, b, a + b or a − b. A
*block* is the latents of one plane over all layers, a *ring* those in their order around it. Every
arm is at L0 {target:g}. Dense arms go on from an ℓ1 run of {first_steps} updates, its latents put
into the slots of the planes that they match best, for {steps} more; and, to see whether they stay,
from atoms on the true planes, held there for the first {first_steps}. Shuffled structure is the
same of other latents. An atom is in a layer if its norm there is over 0.3 of its greatest, and in a
plane if over {inside:g} of its squared norm in the layer is; *one plane in all layers* is of
latents in several layers, beside what dealing each layer's planes among the latents gives. *Rule*:
differences paired by seed; better if the 95 % t-interval is wholly above 0, worse if wholly below;
planarity, the mean share of an atom in its best plane, is the score that decides, and contrasts are
not corrected for how many there are. Planes of two functions, and some of one, nearly coincide in a
layer (table): which of them a latent is in, and whether it is one in all layers, is then not well
defined. Planarity takes the best and suffers least."""


def modadd_how(settings: Settings) -> str:
    """With the numbers of the run."""
    own = settings.modadd
    return HOW.format(
        rows=own.rows,
        latents=own.latents,
        target=own.training.target,
        first_steps=own.training.first_steps,
        steps=own.training.steps,
        inside=own.inside,
    )


def jobs(settings: Settings) -> Iterator[Job]:
    """Every arm on every network."""
    return modadd_jobs(settings.modadd, settings.seeds)


MODADD = Part(
    question="Do crosscoders of networks that add find the planes, over all layers?",
    how=modadd_how,
    jobs=jobs,
    tables=modadd_tables,
    findings=modadd_findings,
    figures=modadd_figures,
)
