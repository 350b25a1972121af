"""The part ``sentences``: its jobs, and how it says what they were."""

from collections.abc import Iterator

from toys.reproduce.jobs import Job
from toys.reproduce.part4_part import Part
from toys.reproduce.part4_sentences import ROW_ARMS, SentenceControlJob, SentenceJob
from toys.reproduce.part4_sentences_tables import (
    sentence_figures,
    sentence_findings,
    sentence_tables,
)
from toys.reproduce.part4_settings import Settings

HOW = """\
Rows are sentences, the mean of their tokens' streams, as document B has them; its graph joins
*rows*: training sentences and their 16 nearest by GloVe. It is no prior of a code: the objective
is -ELBO + λ Σ w_ab ‖z_a - z_b‖² over the edges in a batch (`SampleGraphELBO`). *ℓ1* has λ = 0;
*smooth* has no other penalty, and the controller of L0 moves λ; *smooth + ℓ1* has λ = {ratio:g} β;
*shuffled* renames the rows of the graph at random. *Edge batches* are made of both ends of random
edges (`EdgeBatches`): rows are seen in proportion to their degree, which is why ℓ1 is also run with
them. {steps} updates of {batch} rows, otherwise as above; target L0 {target}. Neighbourhoods are
those of the code of each held-out sentence; tr(ZᵀLZ) / ‖Z‖² is over the degree-normalised graph of
the 16 nearest held-out sentences. The rule is the one above."""


def sentence_jobs(chosen: Settings) -> Iterator[Job]:
    """Every arm, every seed; what neighbourhoods are worth without a crosscoder."""
    yield SentenceControlJob(
        stories=chosen.stories,
        latents=chosen.sentence_training.latents,
        target=chosen.sentence_target,
        permutations=chosen.permutations,
    )
    for seed in chosen.seeds:
        for arm in ROW_ARMS:
            yield SentenceJob(
                stories=chosen.stories,
                arm=arm,
                target=chosen.sentence_target,
                seed=seed,
                training=chosen.sentence_training,
                ratio=chosen.ratio,
                permutations=chosen.permutations,
            )


def sentence_how(chosen: Settings) -> str:
    """With the numbers of the run."""
    training = chosen.sentence_training
    return HOW.format(
        ratio=chosen.ratio,
        steps=training.steps,
        batch=training.batch,
        target=chosen.sentence_target,
    )


SENTENCES = Part(
    question="What does a graph over rows buy, and does it meet its edges?",
    how=sentence_how,
    jobs=sentence_jobs,
    tables=sentence_tables,
    findings=lambda settings, rows: list(sentence_findings(settings, rows)),
    figures=sentence_figures,
)
