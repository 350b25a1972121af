"""Which jobs a part is made of; first those by which the field's settings are chosen."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from toys.recovery_cases import PART1, RECOVERY_CASES
from toys.reproduce.jobs import Job
from toys.reproduce.recovery_arms import ARMS
from toys.reproduce.recovery_ceiling import CeilingJob
from toys.reproduce.recovery_data import Draw
from toys.reproduce.recovery_saelens import FIELD_ARMS
from toys.reproduce.recovery_settings import Settings
from toys.reproduce.recovery_structure import STRUCTURES
from toys.reproduce.recovery_synthetic import FieldJob, RecipeJob
from vsae.recipes.recovery import RecoveryRecipe

CALIBRATED = ("data-a", "copula-blocks")
NARROW = ("topk", "batch_topk", "matryoshka")  # arms that are run at the second width, too
WIDE = ("l1", *NARROW, "jumprelu", "hierarchical", "isotropic", "true_covariance")
FAMILIES = ("topk", "batch_topk")
COVARIANCES = ("isotropic", "true_covariance", "learned_covariance")  # where pairs are correlated

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
        Group("families", chosen.pilot, (*FAMILIES, *COVARIANCES)),
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
    """An arm of the field at its chosen settings.

    A strength that is not chosen is the last one, that of the true L0; every one where watched.
    """
    strength, lr = found[arm]
    large = is_large(where.case)
    several = ARMS[arm].strengths if watch else ARMS[arm].strengths[-1:]
    for value in several if strength is None else (strength,):
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
    """Data A at two widths, with every structure at the first."""
    wide, narrow = chosen.widths
    for seed in chosen.seeds:
        where = draw("data-a", seed, chosen)
        yield CeilingJob(draw=where, keep=narrow)
        yield plain_slab("data-a", seed, chosen)
        yield RecipeJob(draw=where, latents=wide, recipe=only_l1(chosen.recipe), watch=True)
    for seed in chosen.seeds[: chosen.structured]:
        yield from structured(draw("data-a", seed, chosen), wide, chosen.recipe)
    for seed in chosen.seeds[: chosen.few]:
        where = draw("data-a", seed, chosen)
        for arm in WIDE:
            yield from field_jobs(where, arm, wide, found, chosen, watch=True)
        for recipe in (only_l1(chosen.recipe), chosen.recipe):
            yield RecipeJob(draw=where, latents=narrow, recipe=recipe)
        for arm in NARROW:
            yield from field_jobs(where, arm, narrow, found, chosen)


def structured(where: Draw, latents: int, recipe: RecoveryRecipe) -> Iterator[RecipeJob]:
    """Structure that is learned, while latents move too, and given where they are what they are."""
    still = replace(recipe, moves=0)
    for name in ("learned", "shuffled"):
        yield RecipeJob(draw=where, latents=latents, recipe=recipe, structure=name)
    for name in STRUCTURES:
        yield RecipeJob(draw=where, latents=latents, recipe=still, structure=name)


def moves(chosen: Settings) -> Iterator[RecipeJob]:
    """The recipe and the same without moves, on every seed of Data A and of the copulas."""
    for case in ("data-a", *copulas(chosen)):
        for seed in chosen.seeds:
            job = plain_slab(case, seed, chosen)
            still = replace(job.recipe, moves=0)
            yield job
            yield RecipeJob(draw=job.draw, latents=job.latents, recipe=still)


def copulas(chosen: Settings) -> list[str]:
    """The cases that are copulas."""
    return [case for case in chosen.small if RECOVERY_CASES[case].family == "copula"]


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
        for seed in chosen.seeds_of(case):
            where, count = draw(case, seed, chosen), features(case)
            yield plain_slab(case, seed, chosen)
            yield RecipeJob(draw=where, latents=count, recipe=long_l1(recipe))
            for arm in (*FAMILIES, *COVARIANCES) if correlated(case, chosen) else FAMILIES:
                yield from field_jobs(where, arm, count, found, chosen)
            wider = case in chosen.pilot and seed in chosen.seeds[: chosen.few]
            for factor in chosen.factors if wider else ():
                latents = int(factor * count)
                yield RecipeJob(draw=where, latents=latents, recipe=long_l1(recipe))
                yield RecipeJob(draw=where, latents=latents, recipe=recipe)
                for arm in FAMILIES:
                    yield from field_jobs(where, arm, latents, found, chosen)


def correlated(case: str, chosen: Settings) -> bool:
    """Whether Gaussian covariances are tried on a case, too."""
    return case in chosen.pilot or RECOVERY_CASES[case].family == PART1


def calibrations(chosen: Settings) -> Iterator[Job]:
    """The jobs of other parts of which calibration is read."""
    for case in CALIBRATED:
        yield from (plain_slab(case, seed, chosen) for seed in chosen.seeds)
