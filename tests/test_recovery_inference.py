"""The true model is the truth, guides of it differ in inference alone, verdicts follow the rows."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from toys.copula import CopulaCase, LatentCorrelation
from toys.correlation import Independent
from toys.directions import OrthonormalDirections
from toys.magnitudes import PositiveNormal
from toys.recovery_cases import RECOVERY_CASES, RecoveryCase
from toys.reproduce import recovery_inference
from toys.reproduce.recovery_ablations import OneNoiseRecipe
from toys.reproduce.recovery_arms import k_of
from toys.reproduce.recovery_data import Draw, Problem
from toys.reproduce.recovery_findings import RULE
from toys.reproduce.recovery_inference import (
    EncoderJob,
    best_rate,
    inference_jobs,
    inference_searches,
    time_ratios,
)
from toys.reproduce.recovery_inference_guides import (
    BATCH,
    EMPTY,
    ENCODERS,
    LEAST,
    LINEAR,
    MLP,
    TOPK,
    Encoder,
    oracle,
    refined,
    stopped,
    true_prior,
)
from toys.reproduce.recovery_inference_report import (
    INFERENCE,
    STARTS,
    by_guide,
    draw_inference,
    inference_findings,
    inference_numbers,
    inference_tables,
    label,
)
from toys.reproduce.recovery_results import Results
from toys.reproduce.recovery_runs import Part
from toys.reproduce.recovery_scores import encoded, scores
from toys.reproduce.recovery_settings import Settings, settings
from vsae import Autoencoder, LinearEncoder, RecoveryRecipe, RowNoise, SpikeSlabPosterior
from vsae.errors import NonFiniteLossError
from vsae.guides import AmortizedGuide
from vsae.normalizers import AffineNormalizer

COPULA = Draw(case="copula-independent", generator=0, rows=600, test=300)
RECIPE = RecoveryRecipe()
ONE_NOISE = OneNoiseRecipe(final_noise=0.3)
SHORT = Encoder(name=LINEAR, lr=0.03, seen=512, batch=64, hidden=1)


@pytest.fixture(scope="module")
def problem():
    """Rows are made in the default dtype, which that of a module is not yet."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    found = Problem(COPULA)
    torch.set_default_dtype(default)
    return found


@pytest.fixture
def exact(monkeypatch):
    """Orthonormal features and little noise."""
    case = CopulaCase(
        dependence=LatentCorrelation(structure=Independent(size=8)),
        rate=0.2,
        magnitude=PositiveNormal(loc=1.0, scale=0.05),
        directions=OrthonormalDirections(),
        d_model=8,
        noise=0.05,
    )
    monkeypatch.setitem(RECOVERY_CASES, "exact", RecoveryCase(family="copula", case=case))
    return Problem(Draw(case="exact", generator=0, rows=2_000, test=500))


class Made(Problem):
    """Codes that are given, in units of so much."""

    def __init__(self, codes, scale):
        self.codes = codes
        self.normalizer = AffineNormalizer(torch.zeros(3), scale)


# The true model


@pytest.mark.parametrize("case", ["noise-0.0", "data-a"])
def test_true_codes_are_restored_exactly_where_there_is_no_noise(case):
    """In raw units, with the bias of the rows and without."""
    found = Problem(Draw(case=case, generator=0, rows=400, test=50))
    pair = oracle(found, RECIPE)
    codes = found.truth.strengths / found.normalizer.scale
    torch.testing.assert_close(pair.decode(codes), found.test, atol=1e-5, rtol=1e-5)
    assert torch.equal(pair.W_dec, found.truth.dictionary)
    assert not any(p.requires_grad for p in pair.parameters())


def test_the_prior_has_the_rates_and_moments_of_true_codes(problem):
    law = oracle(problem, RECIPE).model.prior()
    codes = problem.codes / problem.normalizer.scale
    fires = codes > 0
    torch.testing.assert_close(law.probability, fires.double().mean(0))
    torch.testing.assert_close(law.slab.mean, codes.sum(0) / fires.sum(0))
    square = law.slab.variance + law.slab.mean**2
    torch.testing.assert_close(square, codes.square().sum(0) / fires.sum(0))


def test_of_features_that_hardly_fire_the_size_is_that_of_the_others():
    codes = torch.zeros(1_000, 4)
    codes[:300, 0] = torch.linspace(1.0, 3.0, 300)
    codes[:500, 1] = torch.linspace(5.0, 7.0, 500)
    codes[: LEAST - 1, 2] = 100.0
    law = true_prior(Made(codes, 2.0))()
    torch.testing.assert_close(law.slab.mean, torch.tensor([1.0, 3.0, 2.0, 2.0]))
    torch.testing.assert_close(law.probability, torch.tensor([0.3, 0.5, 1e-3, 1e-4]))


def test_the_noise_is_the_recipes(problem):
    pair = oracle(problem, RECIPE)
    assert isinstance(pair.model.noise, RowNoise)
    assert float(pair.model.noise().scale) == pytest.approx(RECIPE.final_noise)
    assert pair.guide.posterior.iterations == RECIPE.iterations
    assert pair.guide.posterior.damping == RECIPE.damping


def test_on_the_true_dictionary_all_iterations_find_nearly_every_firing(problem):
    found = scores(problem, stopped(oracle(problem, RECIPE), 20))
    assert found["mcc"] == pytest.approx(1.0)
    assert found["f1"] > 0.95


# Guides


def test_few_iterations_stay_few_at_evaluation(problem):
    teacher, rows = oracle(problem, RECIPE), problem.test
    evaluated = encoded(teacher, rows).values
    assert torch.equal(encoded(stopped(teacher, 20), rows).values, evaluated)
    one = encoded(stopped(teacher, 1), rows).values
    torch.testing.assert_close(one, stopped(teacher, 1).encode(rows))
    assert not torch.equal(one > 0, evaluated > 0)


def test_where_features_are_orthonormal_one_iteration_is_exact(exact):
    """From the empty code and from anywhere else, under one noise for all rows."""
    teacher, rows = oracle(exact, ONE_NOISE), exact.test
    many = stopped(teacher, 20).posterior(rows)["z"]
    start = AmortizedGuide(SpikeSlabPosterior(LinearEncoder(8, 24)))
    anywhere = Autoencoder(teacher.model, start, teacher.normalizer)
    for pair in (stopped(teacher, 1), refined(teacher, anywhere, 1)):
        one = pair.posterior(rows)["z"]
        torch.testing.assert_close(one.probability, many.probability)
        torch.testing.assert_close(one.mean, many.mean)


def test_there_a_matrix_detects_as_well_as_iterations(exact):
    teacher = oracle(exact, ONE_NOISE)
    own = replace(SHORT, lr=0.1, seen=12_800)
    whole, matrix = (scores(exact, pair)["f1"] for pair in (teacher, own.trained(exact, teacher)))
    assert whole > 0.99
    assert matrix > whole - 0.02


@pytest.mark.parametrize("name", [LINEAR, MLP])
def test_a_distilled_encoder_is_another_guide_of_the_same_model(name, problem):
    teacher = oracle(problem, RECIPE)
    before = {n: value.clone() for n, value in teacher.state_dict().items()}
    pair = replace(SHORT, name=name, hidden=2).trained(problem, teacher)
    assert pair.model is teacher.model
    assert all(torch.equal(value, before[n]) for n, value in teacher.state_dict().items())
    shapes = {tuple(p.shape) for p in pair.guide.posterior.posterior.encoder.parameters()}
    expected = {(32, 192), (192,)} if name == LINEAR else {(32, 128), (128,), (128, 192), (192,)}
    assert shapes == expected


def test_topk_learns_its_encoder_and_keeps_the_dictionary(problem):
    teacher = oracle(problem, RECIPE)
    pair = replace(SHORT, name=TOPK).trained(problem, teacher)
    assert torch.equal(pair.W_dec, problem.toy.dictionary)
    assert torch.equal(pair.b_dec, teacher.b_dec)
    assert not torch.allclose(pair.W_enc.mT, pair.W_dec, atol=1e-3)
    fires = (encoded(pair, problem.test).values != 0).sum(-1)
    assert fires.max() == k_of(problem, 1.0) == round(problem.l0)


def test_batch_topk_keeps_the_dictionary_too_and_rows_differ_in_how_many_fire(problem):
    teacher = oracle(problem, RECIPE)
    pair = replace(SHORT, name=BATCH).trained(problem, teacher)
    assert torch.equal(pair.W_dec, problem.toy.dictionary)
    fires = (encoded(pair, problem.test).values != 0).sum(-1)
    assert fires.unique().numel() > 2
    assert fires.max() <= min(4 * k_of(problem, 1.0), len(teacher.W_dec))


def test_random_state_is_left_alone(problem):
    teacher = oracle(problem, RECIPE)
    before = torch.get_rng_state()
    for name in ENCODERS:
        replace(SHORT, name=name, seen=64).trained(problem, teacher)
    assert torch.equal(torch.get_rng_state(), before)


# Jobs


class Slow(Autoencoder):
    """Encodes in a time that is known."""

    def __init__(self, clock, cost):
        nn.Module.__init__(self)
        self.clock, self.cost = clock, cost

    def encode(self, x):
        self.clock[0] += self.cost.pop(0)


def test_times_are_medians_of_rounds_and_the_first_does_not_count(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(recovery_inference.time, "process_time", lambda: clock[0])
    base, fast = (EMPTY, 20), (LINEAR, 0)
    guides = {base: Slow(clock, [9.0, 2.0, 4.0, 2.0]), fast: Slow(clock, [9.0, 1.0, 1.0, 1.0])}
    assert time_ratios(guides, torch.zeros(1), base, 3) == {base: 1.0, fast: 0.5}


def smoke_job():
    chosen = settings(smoke=True, seeds=None)
    (job,) = (j for j in inference_jobs(chosen, {}) if j.draw.case == "copula-blocks")
    return replace(job, draw=replace(job.draw, generator=0))


@pytest.mark.float32
def test_the_smoke_job_ends_in_finite_models():
    job = smoke_job()
    row = job.compute().row
    assert (row["case"], row["seed"], row["arm"], row["failed"]) == (
        "copula-blocks", 0, "inference", None,
    )  # fmt: skip
    keys = [(model["start"], model["iterations"]) for model in row["models"]]
    alone, more = [(name, 0) for name in ENCODERS], [(LINEAR, 1), (MLP, 1)]
    assert sorted(keys) == sorted([(EMPTY, 1), (EMPTY, 3), *alone, *more])
    for model in row["models"]:
        field = model["start"] in (TOPK, BATCH)
        missing = {name for name, value in model.items() if value is None}
        assert missing <= {"failed", "lr", "seen", "gap", "f1_trimmed"}, missing
        assert (model["gap"] is None) == field
        assert math.isfinite(model["f1"] + model["ev"] + model["time"])
        assert model["mcc"] == pytest.approx(1.0)
        assert model["failed"] is None
    (whole,) = (m for m in row["models"] if (m["start"], m["iterations"]) == (EMPTY, 3))
    assert (whole["gap"], whole["time"]) == (0.0, 1.0)
    assert row["seconds"] == pytest.approx(sum(model["seconds"] for model in row["models"]))


@pytest.mark.float32
def test_an_encoder_that_fails_takes_nothing_else_with_it(monkeypatch):
    def diverges(own, found, teacher):
        raise NonFiniteLossError("not finite at step 0", code="loss.nonfinite")

    monkeypatch.setitem(ENCODERS, LINEAR, diverges)
    job = replace(smoke_job(), iterations=(1,))
    job = replace(job, encoders=tuple(e for e in job.encoders if e.name != MLP))
    failed = {(m["start"], m["iterations"]): m["failed"] for m in job.compute().row["models"]}
    assert failed == {(EMPTY, 1): None, (LINEAR, 0): "not finite at step 0"} | dict.fromkeys(
        ((TOPK, 0), (BATCH, 0))
    )
    alone = EncoderJob(draw=job.draw, recipe=job.recipe, encoder=job.encoders[0]).compute().row
    assert (alone["failed"], alone["arm"]) == ("not finite at step 0", LINEAR)
    assert "f1" not in alone


def test_every_reported_seed_has_a_job_and_searches_are_on_the_choosing_seed():
    chosen = Settings()
    own = chosen.inference
    rates = {case: dict.fromkeys(ENCODERS, 0.5) for case in own.cases}
    planned = list(inference_jobs(chosen, rates))
    seeds = {case: [j.draw.generator for j in planned if j.draw.case == case] for case in own.cases}
    assert seeds.pop("data-a") == list(chosen.seeds[: chosen.structured])
    assert all(of == list(chosen.seeds) for of in seeds.values())
    assert {encoder.lr for job in planned for encoder in job.encoders} == {0.5}
    assert {tuple(e.name for e in job.encoders) for job in planned} == {tuple(ENCODERS)}
    searched = list(inference_searches(chosen))
    tried = 2 * (len(own.rates) + len(own.topk_rates))
    assert len({job.name for job in searched}) == len(searched) == len(own.cases) * tried
    assert {job.draw.generator for job in searched} == {chosen.choosing}
    seen = [{(j.draw.case, e.seen) for j in planned for e in j.encoders}]
    seen.append({(job.draw.case, job.encoder.seen) for job in searched})
    assert seen[0] == seen[1]  # chosen after as many rows as are reported
    assert ("data-a", own.seen) in seen[0]


def test_without_a_choice_encoders_have_the_first_rates():
    own = Settings().inference
    first = next(inference_jobs(Settings(), {}))
    lrs = {encoder.name: encoder.lr for encoder in first.encoders}
    assert lrs == dict.fromkeys((LINEAR, MLP), own.rates[0]) | dict.fromkeys(
        (TOPK, BATCH), own.topk_rates[0]
    )


def test_the_rate_of_the_greatest_f1_and_explained_variance_is_chosen_case_by_case():
    tried = [
        {"case": case, "arm": LINEAR, "lr": lr, "failed": failed, "f1": f1, "ev": ev}
        for case, lr, f1, ev, failed in (
            ("one", 0.1, 0.5, 0.9, None),
            ("one", 0.2, 0.9, 0.8, None),
            ("one", 0.3, 1.0, -13.0, None),
            ("one", 0.4, 1.0, 1.0, "not finite"),
            ("one", 0.5, 1.0, None, None),
            ("two", 0.1, 0.6, 0.8, None),
            ("two", 0.2, 0.5, 0.8, None),
        )
    ]
    assert best_rate(tried) == {"one": {LINEAR: 0.2}, "two": {LINEAR: 0.1}}


# What is told

LOSS = {(LINEAR, 0): 0.2, (LINEAR, 1): 0.1, (MLP, 0): 0.05, (MLP, 1): 0.0, (TOPK, 0): 0.3}


def model(key, loss, seed):
    """Loses so much F1 on every seed, but for .001."""
    known = {"start": key[0], "iterations": key[1], "failed": None}
    known |= {"lr": 0.01} if key in LOSS and not key[1] else {}
    known |= {"f1": 0.9 - loss + 0.001 * seed * (loss > 0), "precision": 0.8, "recall": 0.7}
    known |= {"l0": 7.0, "f1_trimmed": None, "ev": 0.9, "dead": 0.0, "seconds": 3.0}
    return known | {"gap": None if key[0] == TOPK else 10 * loss, "time": 0.5}


def made_up(seeds=(1, 2, 3)):
    rows = []
    for seed in seeds:
        known = {(EMPTY, 20): 0.0, (EMPTY, 1): 0.4} | LOSS
        models = [model(key, loss, seed) for key, loss in known.items()]
        if seed == 3:
            models[2] = {"start": LINEAR, "iterations": 0, "failed": "not finite", "seconds": 1.0}
        row = {"case": "data-a", "seed": seed, "arm": "inference", "failed": None}
        rows.append(row | {"true_l0": 6.8, "seconds": 9.0, "models": models})
    searched = [{"case": "data-a", "arm": LINEAR, "lr": 0.01, "failed": None, "f1": 0.5}]
    return Results(
        Settings(), {"inference": Part([searched[0] | {"seconds": 1.0}], {}, rows[::-1])}
    )


def test_findings_say_what_rows_say():
    rule, few, linear, mlp, topk, errors, lost = inference_findings(made_up())
    assert rule == RULE
    assert few.startswith("data-a, 20 iterations (F1 0.9 ± 0) against 1 iteration (F1 0.502")
    assert "the linear encoder alone (F1 0.702" in linear
    assert "better (0.199" in linear
    assert "; 2 seeds), gap 2 ± 0 nats a row, about 0.5 ± 0 of its time" in linear
    assert "the linear encoder, then 1 iteration (F1 0.802" in linear
    assert "then 1 iteration (F1 0.9 ± 0): identical" in mlp
    assert "better (0.298" in topk
    assert "gap" not in topk
    assert "20 iterations 0.8 ± 0 and 0.7 ± 0" in errors
    assert lost == "data-a, left out, not finite: the linear encoder alone, seed 3."


def test_tables_have_a_line_per_guide_and_differences_by_seed():
    table = inference_tables(made_up())["inference_data_a"]
    assert "true L0 6.8" in table.title
    lines = {str(line["guide"]): dict(line) for line in table.rows}
    assert list(lines) == [label(key) for key in ((EMPTY, 1), (EMPTY, 20), *LOSS)]
    assert lines[label((LINEAR, 0))]["seeds"] == 2
    assert lines[label((LINEAR, 1))]["seeds"] == 3
    assert "F1 − 20 iterations" not in lines["20 iterations"]
    assert lines["1 iteration"]["F1 − 20 iterations"].mean == pytest.approx(-0.398)
    assert lines[label((TOPK, 0))]["gap, nats a row"] is None
    assert lines[label((TOPK, 0))]["lr"] == 0.01
    assert "lr" not in lines["20 iterations"]
    assert not inference_tables(made_up())["inference_copula_blocks"].rows
    (tried,) = inference_tables(made_up())["inference_rates"].rows
    assert (tried["encoder"], tried["lr"], tried["F1"]) == ("the linear encoder alone", 0.01, 0.5)


def test_models_are_in_order_and_failed_ones_left_out():
    found = by_guide(made_up(), "data-a")
    assert list(found) == [(EMPTY, 1), (EMPTY, 20), *LOSS]
    assert [m["seed"] for m in found[EMPTY, 20]] == [1, 2, 3]
    assert [m["seed"] for m in found[LINEAR, 0]] == [1, 2]
    assert not by_guide(made_up(), "copula-blocks")


@pytest.mark.parametrize("seeds", [(), (1,), (1, 2, 3)])
def test_the_figure_shows_the_means(seeds, tmp_path):
    pictures = draw_inference(made_up(seeds), tmp_path)
    assert len(pictures) == bool(seeds)
    for picture in pictures:
        assert picture.stat().st_size > 1_000
        assert picture.with_suffix(".json").exists()


def test_nothing_is_said_of_nothing():
    nothing = Results(Settings(), {"inference": Part()})
    assert list(inference_findings(nothing)) == [RULE]
    assert not any(table.rows for table in inference_tables(nothing).values())


def test_the_method_has_all_its_numbers():
    known = inference_numbers(Settings()) | {"choosing": 0, "seeds": "1, 2", "first": "1"}
    text = INFERENCE.format(**known)
    assert "{" not in text
    assert set(STARTS) == {EMPTY, *ENCODERS}
