"""Which jobs the stories are made of; first those by which learning rates are chosen."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from toys.reproduce.jobs import Job
from toys.reproduce.recovery_laws import LAWS, Slab
from toys.reproduce.recovery_recommended import StoriesRecommendedJob
from toys.reproduce.recovery_settings import Settings
from toys.reproduce.recovery_stories import (
    DATA,
    FIELD,
    RANDOM,
    StoriesFieldJob,
    StoriesRecipeJob,
)
from toys.reproduce.recovery_text import Reading


def story_searches(chosen: Settings) -> Iterator[StoriesFieldJob]:
    """Every learning rate of every arm of the field, one layer and k, on the choosing seed."""
    k = chosen.field_ks[-1]
    for arm in FIELD:
        for lr in chosen.story_rates:
            yield field_story(
                chosen, chosen.middle, arm, k, DATA, lr, chosen.choosing, searched=True
            )


def best_rates(rows: Sequence[Mapping]) -> dict[str, float]:
    """Per arm the learning rate of the greatest explained variance on held-out rows."""
    found: dict[str, tuple[float, float]] = {}
    for row in rows:
        value = -math.inf if row["failed"] else row["points"][0]["ev"]
        candidate = (value, row["lr"])
        found[row["arm"]] = max(found.get(row["arm"], candidate), candidate)
    return {arm: lr for arm, (_, lr) in found.items()}


def stories(chosen: Settings, rates: Mapping[str, float]) -> Iterator[Job]:
    """Every layer and seed from the same data points; on the layer in the middle more."""
    few, batch_topk = chosen.readers[: chosen.few], rates["batch_topk"]
    for layer, seed in itertools.product(chosen.layers, chosen.readers):
        for k in chosen.recommended_ks:
            yield recommended_story(chosen, layer, k, seed)
        for k in chosen.field_ks:
            yield field_story(chosen, layer, "batch_topk", k, DATA, batch_topk, seed)
    for layer, seed in itertools.product(chosen.layers, few):
        yield recipe_story(chosen, layer, chosen.end, DATA, seed, slabs=True)
    for seed in few:
        for k in chosen.field_ks:
            yield field_story(
                chosen, chosen.middle, "matryoshka", k, DATA, rates["matryoshka"], seed
            )
        yield from middle_stories(chosen, batch_topk, seed)


def middle_stories(chosen: Settings, lr: float, seed: int) -> Iterator[Job]:
    """More of both frontiers, random starts, and other lengths of training."""
    layer = chosen.middle
    yield recipe_story(chosen, layer, chosen.end, RANDOM, seed)
    for k in chosen.recommended_more:
        yield recommended_story(chosen, layer, k, seed)
    for k in chosen.field_more:
        yield field_story(chosen, layer, "batch_topk", k, DATA, lr, seed)
    for k in chosen.field_ks:
        yield field_story(chosen, layer, "batch_topk", k, RANDOM, lr, seed)
    for length in chosen.lengths:
        for k in chosen.field_ks:
            job = field_story(chosen, layer, "batch_topk", k, DATA, lr, seed)
            yield replace(job, length=length)
    for length in chosen.our_lengths:
        for k in chosen.recommended_ks:
            yield replace(recommended_story(chosen, layer, k, seed), length=length)


def recommended_story(chosen: Settings, layer: int, k: int, seed: int) -> StoriesRecommendedJob:
    """One model of the recommended recipe."""
    return StoriesRecommendedJob(
        reading=Reading(layer=layer, stories=chosen.stories),
        recipe=replace(chosen.recommended, k=k),
        latents=chosen.story_latents,
        seed=seed,
    )


def field_story(
    chosen: Settings,
    layer: int,
    arm: str,
    k: int,
    start: str,
    lr: float,
    seed: int,
    *,
    searched: bool = False,
) -> StoriesFieldJob:
    """One model of the field."""
    return StoriesFieldJob(
        reading=Reading(layer=layer, stories=chosen.stories),
        arm=arm,
        k=k,
        start=start,
        latents=chosen.story_latents,
        lr=lr,
        seen=chosen.story_search if searched else chosen.story_seen,
        batch=chosen.batch,
        seed=seed,
    )


def recipe_story(
    chosen: Settings, layer: int, end: float, start: str, seed: int, *, slabs: bool = False
) -> StoriesRecipeJob:
    """One model of ours, and slabs of every law and noise after it if asked for."""
    recipe, rows, lr = chosen.recipe, chosen.slab_rows, chosen.slab_lr
    first = max(end, recipe.l1[0])
    shape, batch = chosen.slab_shape, recipe.batch_size
    follow = [
        Slab(law=law, noise=noise, shape=shape, rows=rows, batch=batch, lr=lr)
        for law in LAWS
        for noise in chosen.noises
    ]
    return StoriesRecipeJob(
        reading=Reading(layer=layer, stories=chosen.stories),
        recipe=replace(recipe, l1=(first, end), l1_rows=chosen.story_rows, slab_rows=0),
        start=start,
        latents=chosen.story_latents,
        ks=chosen.ks,
        slabs=tuple(follow) if slabs else (),
        seed=seed,
    )
