"""The part ``probe``: what a crosscoder's latents do in the network it was read from."""

from collections.abc import Iterator

from toys.reproduce.jobs import Job
from toys.reproduce.part4_part import Part
from toys.reproduce.part4_probe_arms import LABELS
from toys.reproduce.part4_probe_figure import probe_figures
from toys.reproduce.part4_probe_jobs import probe_jobs
from toys.reproduce.part4_probe_tables import probe_findings, probe_tables
from toys.reproduce.part4_settings import Settings

HOW = """\
Crosscoders of all layers of stories260K ({arms}; {latents} latents, L0 {target:g}, {steps} updates,
{stories} stories, one in ten held out; first seed). A latent is switched off in the model's program
(`vsae.ablated`: *do*(z = 0), the other latents as they were); what that takes out of a layer's
reconstruction is taken out of the network's stream there, one layer at a time, on held-out stories,
and the network runs on (`toys.causal_probe`). Asked are the {asked} latents whose firing says most
surely, on training rows, which token is read. Two controls: another latent of equal frequency,
drawn among the five nearest; and, on the same rows with the same lengths, the direction of that
other latent. *Rule*: log ratios of KL per row on which a latent fires, paired over latents; more if
the 95 % t-interval is wholly above 0, less if wholly below. Latents are those of one run, so that
intervals are over latents, not over seeds. The cosine says whether the change that the network
makes of it one layer on is the one that the latent's own atom there says."""


def probe_how(settings: Settings) -> str:
    """With the numbers of the run."""
    own = settings.probe
    return HOW.format(
        arms=" and ".join(LABELS[arm] for arm in own.arms),
        latents=own.latents,
        target=own.training.target,
        steps=own.training.first_steps + own.training.steps,
        stories=own.stories,
        asked=own.asked,
    )


def jobs(settings: Settings) -> Iterator[Job]:
    """Every crosscoder."""
    return probe_jobs(settings.probe, settings.seeds)


PROBE = Part(
    question="What do latents do in the network?",
    how=probe_how,
    jobs=jobs,
    tables=probe_tables,
    findings=probe_findings,
    figures=probe_figures,
)
