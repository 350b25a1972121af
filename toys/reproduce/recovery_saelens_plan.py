"""The jobs that SAELens is needed for, and what the report says of it."""

from collections.abc import Iterator, Mapping

from toys.reproduce.jobs import Job
from toys.reproduce.recovery_data import Draw
from toys.reproduce.recovery_saelens import PEERS, SAELensJob
from toys.reproduce.recovery_saelens_data import THEIRS
from toys.reproduce.recovery_settings import Settings
from toys.reproduce.recovery_synthetic import FieldJob, RecipeJob

SEEDS = 3  # of the data that it draws itself
BOTH = ("batch_topk", "saelens-batch_topk")  # the architecture on that data, ours and theirs


def saelens_searches(chosen: Settings) -> Iterator[SAELensJob]:
    """Every learning rate of every arm, on the choosing seed; nothing where it is not installed."""
    where = _draw("data-a", chosen.choosing, chosen)
    for arm in PEERS if chosen.saelens else ():
        for lr in chosen.rates:
            yield _job(where, arm, 1.0, lr, chosen.search, chosen)


def saelens_jobs(
    chosen: Settings, found: Mapping[str, tuple[float | None, float]]
) -> Iterator[Job]:
    """Its arms on Data A; ours and both BatchTopK on the same law as it draws it."""
    if not chosen.saelens:
        return
    for seed in chosen.seeds[: chosen.few]:  # as many as our own arms of the field have
        for arm in PEERS:
            yield from _arm(_draw("data-a", seed, chosen), arm, found, chosen)
    for seed in chosen.seeds[:SEEDS]:
        where, latents = _draw(THEIRS, seed, chosen), chosen.widths[0]
        yield RecipeJob(draw=where, latents=latents, recipe=chosen.recipe)
        for arm in BOTH:
            yield from _arm(where, arm, found, chosen)


def _arm(
    where: Draw, arm: str, found: Mapping[str, tuple[float | None, float]], chosen: Settings
) -> Iterator[Job]:
    lr = found[arm][1]
    if arm in PEERS:
        for strength in PEERS[arm].strengths:
            yield _job(where, arm, strength, lr, chosen.seen, chosen)
        return
    yield FieldJob(
        draw=where,
        arm=arm,
        strength=1.0,
        latents=chosen.widths[0],
        lr=lr,
        seen=chosen.seen,
        batch=chosen.batch,
    )


def _job(
    where: Draw, arm: str, strength: float, lr: float, seen: int, chosen: Settings
) -> SAELensJob:
    assert chosen.saelens is not None
    return SAELensJob(
        draw=where,
        arm=arm,
        strength=strength,
        latents=chosen.widths[0],
        lr=lr,
        seen=seen,
        batch=chosen.batch,
        version=chosen.saelens,
    )


def _draw(case: str, seed: int, chosen: Settings) -> Draw:
    return Draw(case=case, generator=seed, rows=chosen.rows, test=chosen.test)


def saelens_said(chosen: Settings) -> str:
    """Whether its trainers and its generator took part, for the report."""
    if not chosen.saelens:
        return (
            "*SAELens* is not installed where this was run: its trainers and its generator took "
            "no part. `pip install vsae[peers]` adds them to Data A."
        )
    return (
        f"*SAELens* {chosen.saelens}: its own trainers on the same rows of Data A, batches and "
        "schedule as of the field's arms, scored by the same code; k by the true L0, the learning "
        "rate chosen as theirs are. All else is at its defaults, and so not tuned as our arms of "
        "the field are: its ℓ1 and JumpReLU have one sparsity coefficient, the default, where "
        "ours have the best of three; warm-up of the coefficient, threshold and bandwidth, weight "
        "of the auxiliary loss and the decoder's first norm are as it sets them; its rows are raw, "
        "where ours are centred and scaled. Its arms show what its defaults score here, not what "
        f"they could. On `{THEIRS}` it draws toy and rows."
    )
