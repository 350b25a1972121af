"""The part ``tokens``: its jobs, and how it says what they were."""

from collections.abc import Iterator

from toys.reproduce.jobs import Job
from toys.reproduce.part4_arms import ARMS, LOC, NOISE, OTHERS, RIDGE
from toys.reproduce.part4_compare import rule
from toys.reproduce.part4_neighbours import RELEVANT
from toys.reproduce.part4_part import Part
from toys.reproduce.part4_settings import Settings
from toys.reproduce.part4_tokens import ControlJob, TokenJob
from toys.reproduce.part4_tokens_figures import token_figures
from toys.reproduce.part4_tokens_findings import token_findings
from toys.reproduce.part4_tokens_tables import token_tables

HOW = """\
Rows are tokens: the streams after all {layers} blocks of a 260 000-parameter story-telling model,
each layer centred and of E‖x‖² = d. Crosscoders have {latents} latents whose atoms have size 1 in
the sum of their norms over layers; {steps} updates of {batch} rows by Adam (learning rate {lr:g} to
the end, at lower ones codes no longer answer β), the same for all arms; CPU seconds are shown. β,
the weight of the penalty, is moved by a controller until {targets} latents fire on average
(`TargetL0`, rate {rate:g}). No learning rate was searched for, and no arm is trained to the end:
under a penalty the error is still falling. All metrics are of held-out stories; intervals are 95 %
t-intervals over {seeds} seeds.

*Deterministic* arms have ReLU codes that pay a prior's -log density: none; ℓ1; isotropic, ½‖z‖²;
graph, ½ zᵀΛz with Λ = {ridge:g} I + {strength:g} L, L degree-normalised, so that Λ has a diagonal
of 1 as the isotropic has; graph + ℓ1, ½ ω zᵀΛz + ‖z‖₁ with ω = {ratio:g}. *KL* arms have
rectified Gaussian codes under N({loc:g}, Λ⁻¹) and σ = {noise:g}. Two deterministic arms, *low
mean*, have that prior's -log density, ½ (z - m)ᵀΛ(z - m) at m = {loc:g}: for codes ≥ 0 a low mean
alone brings a linear penalty, ℓ1 itself where Λ = I, and about a tenth of it where every latent has
ties. TopK has as many latents as the target says. *The graph* ties latents active in sentences that
GloVe has near each other: the
16-nearest-neighbour graph of training sentences, lifted through the codes of {graph_rows} training
rows, each cut to the target's number of greatest entries; {neighbours} neighbours per latent. It is
made from the arm's own codes after {joins} % of the updates; before the first the precision is its
diagonal. *Shuffled*: the same, its latents renamed at random among those with neighbours (dead
ones have none, and would pay less).

*Neighbourhoods*: a held-out sentence's code is the mean over its tokens; relevant are its
{relevant} nearest held-out sentences by GloVe, as much as their cosine for NDCG (chance is exact,
the null renames sentences at random). GloVe is also what the graph was made of, on other sentences.
*Layers* of a latent are exp H of its shares, over the latents that fire: of its encoder's variance,
of what masking a layer changes, of its atom's norms. zᵀLz / ‖z‖² is 1 for codes without ties.

*Rule*: {rule}"""


def token_job(
    chosen: Settings,
    arm: str,
    target: int,
    seed: int,
    *,
    ratio: float | None = None,
) -> TokenJob:
    """One arm; equal jobs of several parts are one. The network is run for the first seed."""
    first = seed == chosen.seeds[0] and target in chosen.targets
    return TokenJob(
        stories=chosen.stories,
        arm=arm,
        target=target,
        seed=seed,
        training=chosen.training,
        targets=chosen.targets,
        ratio=chosen.ratio if ratio is None else ratio,
        network=first and arm in ARMS,
        ranked=target in chosen.targets,
        permutations=chosen.permutations,
    )


def control_job(chosen: Settings) -> ControlJob:
    """What neighbourhoods are worth without a crosscoder; one and the same for every part."""
    return ControlJob(
        stories=chosen.stories,
        latents=chosen.training.latents,
        targets=chosen.targets,
        permutations=chosen.permutations,
    )


def token_jobs(chosen: Settings) -> Iterator[Job]:
    """The factorial, the controls, and other graphs for one seed."""
    yield control_job(chosen)
    for seed in chosen.seeds:
        for target in chosen.targets:
            for arm in ARMS:
                if arm != "none" or target == chosen.targets[-1]:  # it has no target
                    yield token_job(chosen, arm, target, seed)
    for arm in OTHERS:
        yield token_job(chosen, arm, chosen.targets[-1], chosen.seeds[0])


def token_how(chosen: Settings) -> str:
    """With the numbers of the run."""
    training = chosen.training
    return HOW.format(
        layers=5,
        latents=training.latents,
        steps=training.steps,
        batch=training.batch,
        lr=training.lr,
        targets=" or ".join(map(str, chosen.targets)),
        rate=training.rate,
        seeds=len(chosen.seeds),
        ridge=RIDGE,
        strength=1 - RIDGE,
        ratio=chosen.ratio,
        loc=LOC,
        noise=NOISE,
        graph_rows=training.graph_rows,
        neighbours=training.neighbours,
        joins=", ".join(f"{100 * share:g}" for share in training.joins),
        relevant=RELEVANT,
        rule=rule(),
    )


TOKENS = Part(
    question="What do priors buy where every arm has one L0?",
    how=token_how,
    jobs=token_jobs,
    tables=token_tables,
    findings=token_findings,
    figures=token_figures,
)
