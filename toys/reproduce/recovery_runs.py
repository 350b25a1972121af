"""A run: of each part first the choices, then all jobs, in worker processes, from the cache."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from toys.reproduce import recovery_plan as plan
from toys.reproduce import recovery_story_plan as story_plan
from toys.reproduce.jobs import Job, fetch_all
from toys.reproduce.recovery_ablations import ablation_searches, ablations, best_floor
from toys.reproduce.recovery_absorption import (
    absorption_jobs,
    absorption_searches,
    best_absorption_rates,
)
from toys.reproduce.recovery_absorption_arms import ABSORPTION_ARMS
from toys.reproduce.recovery_absorption_cases import ABSORPTION_CASES
from toys.reproduce.recovery_gates import gates_jobs
from toys.reproduce.recovery_inference import (
    best_rate,
    inference_jobs,
    inference_searches,
)
from toys.reproduce.recovery_modadd import modadd_jobs
from toys.reproduce.recovery_saelens import FIELD_ARMS
from toys.reproduce.recovery_saelens_plan import saelens_jobs, saelens_searches
from toys.reproduce.recovery_settings import Settings
from toys.reproduce.recovery_stories import FIELD
from toys.reproduce.recovery_words_arms import WORD_ARMS
from toys.reproduce.recovery_words_plan import best_word_rates, word_jobs, word_searches


@dataclass(frozen=True, eq=False)
class Part:
    """What a part found.

    Args:
        searched: Rows by which the field's settings were chosen.
        chosen: Those settings, by arm.
        rows: Rows of results.
    """

    searched: Sequence[Mapping] = ()
    chosen: Mapping = field(default_factory=dict)
    rows: Sequence[Mapping] = ()


def run_all(chosen: Settings, parts: Sequence[str], folder: Path, threads: int) -> dict[str, Part]:
    """Everything trained and measured, by part: first all choices, then all that follows."""
    asked = {part: searches(chosen, part) for part in parts}
    total = sum(count(chosen, part) for part in parts)
    with tqdm(total=total, unit="model", desc="choices", mininterval=0.5) as bar:
        first = fetch_all([job for made in asked.values() for job in made], folder, threads, bar)
        searched = {part: [first[job] for job in made] for part, made in asked.items()}
        found = {part: PLANS[part].choose(rows) for part, rows in searched.items()}
        planned = {part: jobs(chosen, part, found[part]) for part in parts}
        everything = [job for made in planned.values() for job in made]
        bar.total = len(first) + len(set(everything))  # parts share jobs
        bar.set_description("models")
        rows = fetch_all(everything, folder, threads, bar)
    return {
        part: Part(searched[part], found[part], [rows[job] for job in planned[part]])
        for part in parts
    }


@dataclass(frozen=True)
class Plan:
    """What a part is made of.

    Args:
        jobs: All models, given the field's settings by arm.
        searches: Those by which these settings are chosen.
        choose: What the searches say.
        anything: Settings of the right form, to count jobs by.
    """

    jobs: Callable[[Settings, Mapping], Iterable[Job]]
    searches: Callable[[Settings], Iterable[Job]] = lambda chosen: ()
    choose: Callable[[Sequence[Mapping]], dict] = lambda rows: {}
    anything: Mapping = field(default_factory=dict)


_TRUTH = {n: (arm.strengths[0] if arm.chosen else None, 1.0) for n, arm in FIELD_ARMS.items()}
_KNOWN = {
    name: {
        arm: (own.of(case)[0] if own.chosen else None, 1.0)
        for arm, own in ABSORPTION_ARMS.items()
        if own.of(case)
    }
    for name, case in ABSORPTION_CASES.items()
}

PLANS = {
    "data-a": Plan(
        jobs=lambda chosen, found: [*plan.data_a(chosen, found), *saelens_jobs(chosen, found)],
        searches=lambda chosen: [
            *plan.searches(plan.groups(chosen)["data-a"], chosen),
            *saelens_searches(chosen),
        ],
        choose=plan.best,
        anything=_TRUTH,
    ),
    "moves": Plan(jobs=lambda chosen, _: plan.moves(chosen)),
    "ablations": Plan(jobs=ablations, searches=ablation_searches, choose=best_floor),
    "families": Plan(
        jobs=plan.families,
        searches=lambda chosen: plan.searches(plan.groups(chosen)["families"], chosen),
        choose=plan.best,
        anything=_TRUTH,
    ),
    "gates": Plan(jobs=lambda chosen, _: gates_jobs(chosen)),
    "absorption": Plan(
        jobs=absorption_jobs,
        searches=absorption_searches,
        choose=best_absorption_rates,
        anything=_KNOWN,
    ),
    "inference": Plan(jobs=inference_jobs, searches=inference_searches, choose=best_rate),
    "stories": Plan(
        jobs=story_plan.stories,
        searches=story_plan.story_searches,
        choose=story_plan.best_rates,
        anything=dict.fromkeys(FIELD, 1.0),
    ),
    "calibration": Plan(jobs=lambda chosen, _: plan.calibrations(chosen)),
    "words": Plan(
        jobs=word_jobs,
        searches=word_searches,
        choose=best_word_rates,
        anything=dict.fromkeys(WORD_ARMS, 1.0),
    ),
    "modadd": Plan(jobs=lambda chosen, _: modadd_jobs(chosen.modadd, chosen.seeds)),
}
"""By part."""


def searches(chosen: Settings, name: str) -> list[Job]:
    """Of a part; none for a part without arms of the field."""
    return list(PLANS[name].searches(chosen))


def jobs(chosen: Settings, name: str, found: Mapping) -> list[Job]:
    """Of a part, each once."""
    return list(dict.fromkeys(PLANS[name].jobs(chosen, found)))


def count(chosen: Settings, name: str) -> int:
    """How many jobs a part has, whatever is chosen."""
    return len(searches(chosen, name)) + len(jobs(chosen, name, PLANS[name].anything))
