"""Which jobs a part is made of; first those by which the field's settings are chosen."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from toys.recovery_cases import RECOVERY_CASES
from toys.reproduce.recovery_arms import ARMS
from toys.reproduce.recovery_cache import Job
from toys.reproduce.recovery_data import Draw
from toys.reproduce.recovery_laws import LAWS, Slab
from toys.reproduce.recovery_saelens import FIELD_ARMS
from toys.reproduce.recovery_settings import Settings
from toys.reproduce.recovery_stories import (
    DATA,
    FIELD,
    RANDOM,
    StoriesFieldJob,
    StoriesRecipeJob,
)
from toys.reproduce.recovery_structure import STRUCTURES
from toys.reproduce.recovery_synthetic import FieldJob, RecipeJob
from toys.reproduce.recovery_text import Reading
from vsae.recipes.recovery import RecoveryRecipe

CALIBRATED = ("data-a", "copula-blocks")
NARROW = ("topk", "batch_topk", "matryoshka")  # arms that are run at the second width, too
WIDE = ("l1", *NARROW, "jumprelu", "hierarchical", "isotropic", "true_covariance")
FAMILIES = ("topk", "batch_topk", "isotropic", "true_covariance")
LEARNED = "learned_covariance"  # on the pilot's three kinds only
HARD = "data-a-hard"

Chosen = Mapping[str, tuple[float | None, float]]
"""Of an arm: the strength, if one is chosen, and the learning rate."""


@dataclass(frozen=True)
class Group:
    """Data on which one choice of settings holds.

    Args:
        name: ``data-a`` or ``families``.
        cases: On which it is made.
        arms: Whose.
    """

    name: str
    cases: tuple[str, ...]
    arms: tuple[str, ...]


def groups(chosen: Settings) -> dict[str, Group]:
    """By name."""
    found = (
        Group("data-a", ("data-a",), WIDE),
        Group("families", chosen.pilot, (*FAMILIES, LEARNED)),
    )
    return {group.name: group for group in found}


def draw(case: str, seed: int, chosen: Settings) -> Draw:
    """The rows of a case."""
    large = is_large(case)
    rows, test = (chosen.rows, chosen.test) if large else (chosen.small_rows, chosen.small_test)
    return Draw(case=case, generator=seed, rows=rows, test=test)


def searches(group: Group, chosen: Settings) -> Iterator[FieldJob]:
    """Every candidate of every arm, on the choosing seed of each case."""
    large = group.name == "data-a"
    for case in group.cases:
        where = draw(case, chosen.choosing, chosen)
        for name in group.arms:
            for strength in ARMS[name].strengths if ARMS[name].chosen else (1.0,):
                for lr in chosen.rates:
                    yield FieldJob(
                        draw=where,
                        arm=name,
                        strength=strength,
                        latents=latents_of(case, chosen),
                        lr=lr,
                        seen=chosen.search if large else chosen.small_search,
                        batch=chosen.batch,
                    )


def best(rows: Sequence[Mapping]) -> dict[str, tuple[float | None, float]]:
    """Per arm the candidate of the greatest MCC + F1, summed over cases: by the truth, as ours."""
    total: dict[str, dict[tuple[float, float], float]] = {}
    for row in rows:
        value = -1.0 if row["failed"] else row["mcc"] + row["f1"]
        sums = total.setdefault(row["arm"], {})
        candidate = (row["strength"], row["lr"])
        sums[candidate] = sums.get(candidate, 0.0) + value
    found = {arm: max(sums, key=lambda c: sums[c]) for arm, sums in total.items()}
    return {
        arm: (strength if FIELD_ARMS[arm].chosen else None, lr)
        for arm, (strength, lr) in found.items()
    }


def is_large(case: str) -> bool:
    """Whether it is Data A, or harder."""
    return RECOVERY_CASES[case].family == "data-a"


def features(case: str) -> int:
    """How many true features a case has; coordinates, of subspaces."""
    return RECOVERY_CASES[case].case.features


def latents_of(case: str, chosen: Settings) -> int:
    """How many latents a case is first run with: as many as features, Data A at its width."""
    return chosen.widths[0] if is_large(case) else features(case)


def field_jobs(
    where: Draw, arm: str, latents: int, found: Chosen, chosen: Settings, *, watch: bool = False
) -> Iterator[FieldJob]:
    """An arm of the field at its chosen settings, at every strength that is not chosen."""
    strength, lr = found[arm]
    large = is_large(where.case)
    for value in ARMS[arm].strengths if strength is None else (strength,):
        yield FieldJob(
            draw=where,
            arm=arm,
            strength=value,
            latents=latents,
            lr=lr,
            seen=chosen.seen if large else chosen.small_seen,
            batch=chosen.batch,
            watch=watch,
        )


def only_l1(recipe: RecoveryRecipe) -> RecoveryRecipe:
    """The first phase alone."""
    return replace(recipe, slab_rows=0)


def long_l1(recipe: RecoveryRecipe) -> RecoveryRecipe:
    """The first phase alone, for as many rows as all three see."""
    return replace(
        recipe, l1_rows=recipe.l1_rows + recipe.slab_rows + recipe.final_rows, slab_rows=0
    )


def data_a(chosen: Settings, found: Chosen) -> Iterator[Job]:
    """Data A at two widths, with every structure at the first; and with harder magnitudes."""
    wide, narrow = chosen.widths
    for seed in chosen.seeds:
        where = draw("data-a", seed, chosen)
        for recipe in (only_l1(chosen.recipe), chosen.recipe):
            yield RecipeJob(draw=where, latents=narrow, recipe=recipe)
        yield RecipeJob(draw=where, latents=wide, recipe=only_l1(chosen.recipe), watch=True)
        for name in STRUCTURES:
            if name != "none":
                yield RecipeJob(draw=where, latents=wide, recipe=chosen.recipe, structure=name)
        yield plain_slab("data-a", seed, chosen)
        for arm in WIDE:
            yield from field_jobs(where, arm, wide, found, chosen, watch=True)
        for arm in NARROW:
            yield from field_jobs(where, arm, narrow, found, chosen)
        yield plain_slab(HARD, seed, chosen)
        for arm in ("topk", "batch_topk"):
            yield from field_jobs(draw(HARD, seed, chosen), arm, wide, found, chosen)


def plain_slab(case: str, seed: int, chosen: Settings) -> RecipeJob:
    """The recipe without structure, at a case's first width; one and the same for every part."""
    data_a = case == "data-a"
    return RecipeJob(
        draw=draw(case, seed, chosen),
        latents=latents_of(case, chosen),
        recipe=chosen.recipe if is_large(case) else chosen.small_recipe,
        keep=chosen.widths[1] if data_a else 0,
        calibrated=case in CALIBRATED,
        watch=data_a,
    )


def families(chosen: Settings, found: Chosen) -> Iterator[Job]:
    """Every other case at as many latents as features; the pilot's also at half and twice that."""
    recipe = chosen.small_recipe
    for case in chosen.small:
        for seed in chosen.seeds:
            where, count = draw(case, seed, chosen), features(case)
            yield plain_slab(case, seed, chosen)
            yield RecipeJob(draw=where, latents=count, recipe=long_l1(recipe))
            for arm in FAMILIES if case not in chosen.pilot else (*FAMILIES, LEARNED):
                yield from field_jobs(where, arm, count, found, chosen)
            for factor in chosen.factors if case in chosen.pilot else ():
                latents = int(factor * count)
                yield RecipeJob(draw=where, latents=latents, recipe=long_l1(recipe))
                yield RecipeJob(draw=where, latents=latents, recipe=recipe)
                for arm in FAMILIES:
                    yield from field_jobs(where, arm, latents, found, chosen)


def calibrations(chosen: Settings) -> Iterator[Job]:
    """The jobs of other parts of which calibration is read."""
    for case in CALIBRATED:
        yield from (plain_slab(case, seed, chosen) for seed in chosen.seeds)


def story_searches(chosen: Settings) -> Iterator[StoriesFieldJob]:
    """Every learning rate of every arm of the field, one layer and k, on the choosing seed."""
    layer, k = (values[len(values) // 2] for values in (chosen.layers, chosen.field_ks))
    for arm in FIELD:
        for lr in chosen.story_rates:
            yield field_story(chosen, layer, arm, k, RANDOM, lr, chosen.choosing, searched=True)


def best_rates(rows: Sequence[Mapping]) -> dict[str, float]:
    """Per arm the learning rate of the greatest explained variance on held-out rows."""
    found: dict[str, tuple[float, float]] = {}
    for row in rows:
        value = -1.0 if row["failed"] else row["points"][0]["ev"]
        found[row["arm"]] = max(found.get(row["arm"], (-2.0, 0.0)), (value, row["lr"]))
    return {arm: lr for arm, (_, lr) in found.items()}


def stories(chosen: Settings, rates: Mapping[str, float]) -> Iterator[Job]:
    """Every layer and seed: ours at every last λ, the field at every k, from both starts."""
    for layer in chosen.layers:
        for seed in chosen.readers:
            for end in chosen.ends:
                yield recipe_story(chosen, layer, end, DATA, seed, slabs=end == chosen.end)
            yield recipe_story(chosen, layer, chosen.end, RANDOM, seed)
            for arm in FIELD:
                for k in chosen.field_ks:
                    for start in (DATA, RANDOM):
                        yield field_story(chosen, layer, arm, k, start, rates[arm], seed)


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
