"""Which jobs the words are made of; first those by which the field's learning rates are chosen."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from toys.reproduce.flat_matched import at_l0
from toys.reproduce.jobs import Job
from toys.reproduce.recovery_settings import Settings
from toys.reproduce.recovery_words import (
    WordsCodingJob,
    WordsControlJob,
    WordsFieldJob,
    WordsSlabJob,
)
from toys.reproduce.recovery_words_arms import WORD_ARMS, WORDS
from toys.reproduce.recovery_words_data import Split

CHOSEN_AT = 8.0  # the L0 at which learning rates are chosen
COUNTED = ("topk", "batch_topk", "matryoshka", "hierarchical")  # arms whose L0 is their knob


def word_searches(chosen: Settings) -> Iterator[WordsFieldJob]:
    """Every learning rate on the choosing seed: whole sweeps, the middle where the knob is k."""
    for arm in chosen.words.arms:
        for lr in chosen.words.rates:
            made = list(sweep(chosen, arm, lr, chosen.choosing))
            yield from made[1:2] if arm in COUNTED else made


def best_word_rates(rows: Sequence[Mapping], l0: float = CHOSEN_AT) -> dict[str, float]:
    """Per arm the learning rate of the greatest explained variance of held-out words at an L0.

    Where the knob is k that of the one strength that was tried. Otherwise a sweep that does not
    reach the L0 loses to one that does; among those that do not, the first wins.
    """
    sweeps: dict[str, dict[float, list[tuple[float, float]]]] = {}
    for row in rows:
        points = sweeps.setdefault(row["arm"], {}).setdefault(row["lr"], [])
        points += [(model["l0"], model["ev"]) for model in row["models"]]
    return {
        arm: max(found, key=lambda lr: _reached(arm, found[lr], l0))
        for arm, found in sweeps.items()
    }


def _reached(arm: str, points: Sequence[tuple[float, float]], l0: float) -> float:
    # no point at all: training failed
    value = points[0][1] if points and arm in COUNTED else at_l0(points, l0)
    return -float("inf") if value is None else value


def word_jobs(chosen: Settings, rates: Mapping[str, float]) -> Iterator[Job]:
    """Every model, of every seed."""
    own = chosen.words
    for seed in chosen.seeds:
        where = Split(seed=seed, least=own.least)
        for k in own.ks:
            recipe = replace(own.coding, k=k)
            yield WordsCodingJob(split=where, recipe=recipe, latents=own.latents)
            yield WordsControlJob(split=where, k=k, latents=own.latents)
        yield WordsSlabJob(
            split=where,
            recipe=own.slab,
            structures=own.gates,
            latents=own.latents,
            levels=own.levels,
        )
        for arm in chosen.words.arms:
            yield from sweep(chosen, arm, rates[arm], seed)


def sweep(chosen: Settings, arm: str, lr: float, seed: int) -> Iterator[WordsFieldJob]:
    """An arm of the field at all its strengths."""
    own = chosen.words
    for strength in WORD_ARMS[arm].strengths[WORDS]:
        yield WordsFieldJob(
            split=Split(seed=seed, least=own.least),
            arm=arm,
            strength=strength,
            latents=own.latents,
            lr=lr,
            seen=own.seen,
            batch=own.batch,
        )
