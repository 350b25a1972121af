"""SAELens's trainers and generator inside ``vsae reproduce recovery``."""

import json

import pytest
import torch

pytest.importorskip("sae_lens")

from toys.recovery_cases import REPORTING
from toys.reproduce import recovery_saelens_plan
from toys.reproduce.recovery_chapters import chapter
from toys.reproduce.recovery_data import Draw, Problem
from toys.reproduce.recovery_results import Results, label
from toys.reproduce.recovery_runs import Part, jobs, searches
from toys.reproduce.recovery_saelens import FIELD_ARMS, PEERS, SAELensJob, converted
from toys.reproduce.recovery_saelens_data import (
    SAELENS_CASES,
    THEIRS,
    installed,
    library,
    quiet,
)
from toys.reproduce.recovery_saelens_plan import BOTH, SEEDS, saelens_jobs, saelens_searches
from toys.reproduce.recovery_scores import scores
from toys.reproduce.recovery_settings import Settings, settings
from toys.reproduce.recovery_synthetic import RecipeJob
from toys.reproduce.recovery_tables import models_table

pytestmark = pytest.mark.float32

TINY = Draw(case="data-a", generator=1, rows=2_048, test=512)


def tiny(arm, **changes):
    fields = {"draw": TINY, "strength": 1.0, "latents": 64, "lr": 1e-2, "seen": 4_096}
    return SAELensJob(arm=arm, batch=128, version=installed(), **(fields | changes))


def trained(arm, problem, tmp_path):
    """An SAE of theirs after some steps, and what their own file of it gives back."""
    job, peer = tiny(arm), PEERS[arm]
    torch.manual_seed(3)
    sae = peer.build(problem, 64, 7)
    job._train(sae, problem)
    pair = converted(sae, None if peer.threshold is None else peer.threshold(sae))
    with quiet():
        sae.save_inference_model(str(tmp_path))
        theirs = library().SAE.load_from_disk(str(tmp_path))
    return pair, theirs


@pytest.mark.parametrize("arm", PEERS)
def test_a_converted_sae_has_the_codes_that_theirs_has_at_inference(arm, tmp_path):
    problem = Problem(TINY)
    pair, theirs = trained(arm, problem, tmp_path)
    with torch.no_grad():
        codes, restored = theirs.encode(problem.test), theirs(problem.test)
        rescaled = getattr(theirs.cfg, "rescale_acts_by_decoder_norm", False)
        norms = 1.0 if rescaled else theirs.W_dec.norm(dim=-1)  # codes of unit atoms already
        ours = pair.encode(problem.test)
    torch.testing.assert_close(ours, codes * norms, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(pair(problem.test), restored, rtol=1e-4, atol=1e-4)
    assert scores(problem, pair)["l0"] == float((codes > 0).sum(-1).double().mean())
    assert 0 < scores(problem, pair)["l0"] < 64
    assert (ours > 0).any(0).sum() > 4  # more than a few latents live: something was compared


def test_a_job_is_a_pure_function_and_scores_as_every_arm(capfd):
    state, job = torch.get_rng_state(), tiny("saelens-batch_topk")
    row, again = job.compute().row, job.compute().row
    assert torch.equal(state, torch.get_rng_state())
    seconds = [r.pop("seconds") for r in (row, again)]
    assert row == again
    assert min(seconds) > 0
    assert row["failed"] is None
    assert row["latents"] == 64
    assert row["arm"] in FIELD_ARMS
    json.dumps(row, allow_nan=False)
    said = capfd.readouterr()
    assert said.out == said.err == ""  # no progress bar, no log


def test_it_learns():
    short, long = (tiny("saelens-topk", seen=n).compute().row for n in (128, 40_000))
    assert long["ev"] > short["ev"] + 0.2
    assert long["mcc"] > short["mcc"]


def test_their_generator_draws_data_a():
    found = Problem(Draw(case=THEIRS, generator=1, rows=4_096, test=8_192))
    again = Problem(Draw(case=THEIRS, generator=1, rows=4_096, test=8_192))
    other = Problem(Draw(case=THEIRS, generator=2, rows=64, test=64))
    ours = Problem(Draw(case="data-a", generator=1, rows=64, test=8_192))
    assert torch.equal(found.train, again.train)
    assert not torch.equal(found.toy.dictionary, other.toy.dictionary)
    x = found.truth.strengths @ found.toy.dictionary + found.toy.bias
    torch.testing.assert_close(found.test, x, rtol=1e-4, atol=1e-4)
    assert found.toy.dictionary.shape == ours.toy.dictionary.shape
    assert found.l0 == pytest.approx(ours.l0, rel=0.05)
    assert found.groups.keys() == ours.groups.keys()
    assert found.toy.overlap().mean() == pytest.approx(ours.toy.overlap().mean().item(), abs=0.02)
    assert list(SAELENS_CASES) == [THEIRS]


def test_the_plan_has_its_arms_and_its_data():
    chosen = settings(smoke=False, seeds=None)
    assert chosen.saelens == installed()
    found = {n: (arm.strengths[0] if arm.chosen else None, 1e-3) for n, arm in FIELD_ARMS.items()}
    looked = list(saelens_searches(chosen))
    assert len(looked) == len(PEERS) * len(chosen.rates)
    assert {job.draw.generator for job in looked} == {chosen.choosing}
    assert set(looked) < set(searches(chosen, "data-a"))
    made = list(saelens_jobs(chosen, found))
    assert set(made) < set(jobs(chosen, "data-a", found))
    theirs = [job for job in made if job.draw.case == THEIRS]
    assert {job.draw.generator for job in theirs} == set(chosen.seeds[:SEEDS])
    assert {job.arm for job in theirs if not isinstance(job, RecipeJob)} == set(BOTH)
    assert {job.arm for job in made if job.draw.case == "data-a"} == set(PEERS)
    assert {job.draw.rows for job in made} == {chosen.rows}


def test_tables_and_report_name_them(monkeypatch):
    chosen = Settings(saelens="6.0", seeds=REPORTING[:1])
    row = tiny("saelens-topk").compute().row | {"cached": False}
    results = Results(chosen, {"data-a": Part(rows=[row])})
    (line,) = models_table(results, "data-a").rows
    assert (
        line["arm"] == label(("saelens-topk", 64, "none", 1.0)) == ("SAELens TopK, k / true L0 = 1")
    )
    assert results.best_of_field("data-a", 64, "mcc")[0][0] == "saelens-topk"
    text = chapter("data-a", results).markdown()
    assert "*SAELens* 6.0: its own trainers" in text
    assert recovery_saelens_plan.saelens_said(chosen) in text
