"""A run: of each part first the choices, then all jobs, in worker processes, from the cache."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from toys.reproduce import recovery_plan as plan
from toys.reproduce.recovery_cache import Job, fetch_all
from toys.reproduce.recovery_saelens import FIELD_ARMS
from toys.reproduce.recovery_saelens_plan import saelens_jobs, saelens_searches
from toys.reproduce.recovery_settings import Settings
from toys.reproduce.recovery_stories import FIELD


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
        found = {part: choose(part, rows) for part, rows in searched.items()}
        planned = {part: jobs(chosen, part, found[part]) for part in parts}
        everything = [job for made in planned.values() for job in made]
        bar.total = len(first) + len(set(everything))  # parts share jobs
        bar.set_description("models")
        rows = fetch_all(everything, folder, threads, bar)
    return {
        part: Part(searched[part], found[part], [rows[job] for job in planned[part]])
        for part in parts
    }


def searches(chosen: Settings, name: str) -> list[Job]:
    """Of a part; none for a part without arms of the field."""
    if name == "stories":
        return list(plan.story_searches(chosen))
    group = plan.groups(chosen).get(name)
    own = [] if group is None else list(plan.searches(group, chosen))
    return [*own, *saelens_searches(chosen)] if name == "data-a" else own


def choose(name: str, searched: Sequence[Mapping]) -> dict:
    """What the search says."""
    return plan.best_rates(searched) if name == "stories" else plan.best(searched)


def jobs(chosen: Settings, name: str, found: Mapping) -> list[Job]:
    """Of a part, each once."""
    made = {
        "data-a": lambda: [*plan.data_a(chosen, found), *saelens_jobs(chosen, found)],
        "families": lambda: plan.families(chosen, found),
        "stories": lambda: plan.stories(chosen, found),
        "calibration": lambda: plan.calibrations(chosen),
    }[name]()
    return list(dict.fromkeys(made))


def count(chosen: Settings, name: str) -> int:
    """How many jobs a part has, whatever is chosen."""
    any_rate = dict.fromkeys(FIELD, 1.0)
    any_choice = {
        n: (arm.strengths[0] if arm.chosen else None, 1.0) for n, arm in FIELD_ARMS.items()
    }
    found = any_rate if name == "stories" else any_choice
    return len(searches(chosen, name)) + len(jobs(chosen, name, found))
