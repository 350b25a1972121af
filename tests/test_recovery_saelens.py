"""``vsae reproduce recovery`` where SAELens is not installed: nothing of it is planned or named."""

import importlib.util
from dataclasses import replace

import pytest

from toys.reproduce.recovery_chapters import chapter
from toys.reproduce.recovery_results import Results
from toys.reproduce.recovery_runs import Part, jobs, searches
from toys.reproduce.recovery_saelens import FIELD_ARMS, PEERS
from toys.reproduce.recovery_saelens_data import THEIRS, installed
from toys.reproduce.recovery_settings import Settings, settings


@pytest.fixture
def absent(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "sae_lens" else found(name)
    )


def planned(chosen):
    found = {n: (arm.strengths[0] if arm.chosen else None, 1.0) for n, arm in FIELD_ARMS.items()}
    return [*searches(chosen, "data-a"), *jobs(chosen, "data-a", found)]


def test_without_saelens_none_of_its_arms_is_planned(absent):
    chosen = settings(smoke=False, seeds=None)
    assert installed() is None
    assert chosen.saelens is None
    assert chosen.to_dict()["saelens"] is None  # in run.json
    assert not {job.arm for job in planned(chosen)} & set(PEERS)
    assert not [job for job in planned(chosen) if job.draw.case == THEIRS]


def test_without_saelens_the_report_says_so(absent):
    results = Results(settings(smoke=True, seeds=None), {"data-a": Part()})
    text = chapter("data-a", results).markdown()
    assert "*SAELens* is not installed where this was run" in text


def test_our_own_arms_of_the_field_stay_eligible_beside_them():
    """Its arms have the seeds of ours: the best of the field is of both."""
    chosen = replace(Settings(), saelens="6.0")
    rows, seeds = [], {}
    for job in planned(chosen):
        if job.arm in FIELD_ARMS and job.draw.case == "data-a" and job.seen == chosen.seen:
            seeds.setdefault(job.arm, set()).add(job.draw.generator)
            row = {"case": "data-a", "arm": job.arm, "latents": job.latents, "failed": None}
            row |= {"seed": job.draw.generator, "strength": job.strength}
            rows.append(row | {"mcc": 0.9 if job.arm == "topk" else 0.5})
    results = Results(chosen, {"data-a": Part((), {}, rows)})
    assert set(PEERS) < set(seeds)
    assert len(set(map(frozenset, seeds.values()))) == 1
    key, found = results.best_of_field("data-a", chosen.widths[0], "mcc")
    assert key[0] == "topk"
    assert len(found) == chosen.few


def test_its_arms_have_names_of_their_own():
    assert not set(PEERS) & (set(FIELD_ARMS) - set(PEERS))
    assert len({arm.label for arm in FIELD_ARMS.values()}) == len(FIELD_ARMS)
