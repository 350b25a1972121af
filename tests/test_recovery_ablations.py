"""Ablations take away what they say, and nothing else; verdicts follow from the rows."""

import pytest
import torch
from moved_pairs import contrasted, halved
from torch import Generator

from priors import ExponentialPrior, TruncatedNormalPrior
from toys.reproduce.recovery_ablation_report import (
    ablation_findings,
    ablation_tables,
    by_arm,
    draw_ablations,
)
from toys.reproduce.recovery_ablations import (
    ABLATIONS,
    FACTORS,
    ONE_NOISE,
    ONE_SIZE,
    AblationJob,
    ExponentialRecipe,
    RandomSplits,
    RandomSplitsRecipe,
    ablation_searches,
    ablations,
    best_floor,
)
from toys.reproduce.recovery_data import Draw
from toys.reproduce.recovery_findings import RULE
from toys.reproduce.recovery_plan import moves
from toys.reproduce.recovery_results import Results
from toys.reproduce.recovery_runs import Part
from toys.reproduce.recovery_settings import Settings
from toys.reproduce.recovery_synthetic import SLAB, STILL
from vsae import RecoveryRecipe, RowNoise
from vsae import moves as moved
from vsae.batches import stream

DRAW = Draw(case="data-a", generator=0, rows=10, test=10)
SHORT = RecoveryRecipe(l1_rows=512, slab_rows=512, final_rows=256, batch_size=128, moves=2)


def rows(seed=0):
    generator = Generator().manual_seed(seed)
    codes = (torch.rand(600, 12, generator=generator) < 0.2) * 1.0
    return codes @ torch.randn(12, 8, generator=generator)


def phases_of(name, recipe=SHORT):
    pairs = []
    for run in ABLATIONS[name].recipe(recipe).phases(rows(), latents=12):
        run.run(progress=False)
        pairs.append(run.autoencoder)
    return pairs


def test_one_noise_is_the_floor_of_every_row():
    _, slab, last = phases_of(ONE_NOISE)
    for pair, floor in ((slab, SHORT.noise[1]), (last, SHORT.final_noise)):
        assert not isinstance(pair.model.noise, RowNoise)
        assert float(pair.model.noise()) == pytest.approx(floor)
        assert "noise" not in pair.posterior(rows())
    whole = SHORT.train(rows(), latents=12, progress=False)
    inferred = whole.posterior(rows())["noise"].mean
    assert inferred.std() > 0  # which the recipe has


def test_floors_are_multiplied_where_a_job_says_so():
    job = AblationJob(draw=DRAW, latents=1, recipe=SHORT, arm=ONE_NOISE, strength=2.0)
    louder = job.without()
    assert louder.noise == tuple(2 * floor for floor in SHORT.noise)
    assert louder.final_noise == 2 * SHORT.final_noise


def test_exponential_amplitudes_begin_at_the_means_of_the_recipes():
    first = next(SHORT.phases(rows(), latents=12))
    first.run(progress=False)
    pair = first.autoencoder
    theirs = SHORT.first_prior(pair, rows())
    ours = ABLATIONS["ours-exponential"].recipe(SHORT).first_prior(pair, rows())
    assert isinstance(theirs.slab, TruncatedNormalPrior)
    assert isinstance(ours.slab, ExponentialPrior)
    torch.testing.assert_close(ours.slab().mean, theirs.slab().mean)
    torch.testing.assert_close(ours().probability, theirs().probability)
    law = phases_of("ours-exponential")[-1].model.prior.prior.slab
    assert isinstance(law, ExponentialPrior)  # and they stay exponential


def test_amplitudes_of_a_size_deviate_little_and_those_of_the_recipe_as_they_may():
    """Features here are axes, and their sizes exponential: there is none to find."""
    generator = Generator().manual_seed(3)
    sizes = -torch.rand(600, 8, generator=generator).log()
    x = (torch.rand(600, 8, generator=generator) < 0.2) * sizes
    pairs = {}
    for name, recipe in (("own", SHORT), ("one", ABLATIONS["ours-sized"].recipe(SHORT))):
        slab = recipe.train(x, latents=8, progress=False).model.prior().slab
        pairs[name] = slab.stddev / slab.mean
    assert float(pairs["one"].max()) < ONE_SIZE + 1e-6
    assert float(pairs["own"].median()) > 2 * ONE_SIZE


def test_random_splits_are_as_many_elsewhere():
    """The recipe halves the parent that has taken in a child; here it may be any, and anyhow."""
    _, x, pair = contrasted(free=2)
    with torch.no_grad(), pair.evaluating():
        true = moved.Search(pair, x)
        found = [RandomSplits(pair, x, stream(seed, 0)) for seed in range(8)]
        wanted = true.run(stream(0, 1), None)
        made = [search.run(stream(seed, 1), None) for seed, search in enumerate(found)]
    assert {len(moves.split) for moves in made} == {len(wanted.split)}
    assert all(moves.merged == wanted.merged for moves in made)
    assert len({moves.split for moves in made}) > 1
    fires = true.count >= moved.FEWEST
    assert all(bool(fires[k]) for moves in made for k, _ in moves.split)
    silent = torch.zeros(len(true.atoms), dtype=torch.bool)
    along = torch.stack([search.direction(0, silent) for search in found])
    assert along.std(0).min() > 0.3  # another one every time, where the data have but one
    torch.testing.assert_close(true.direction(0, silent), true.direction(0, silent))


def test_random_splits_merge_what_is_one_feature():
    features, x, pair = halved()
    optimizer = torch.optim.Adam([pair.W_dec])
    RandomSplitsRecipe().move(pair, x, optimizer=optimizer, seed=0, most=0)
    assert float(pair.W_dec[0].detach() @ features[0]) > 0.999


def test_recipes_keep_their_settings():
    for kind in (ExponentialRecipe, RandomSplitsRecipe):
        (name,) = [n for n, a in ABLATIONS.items() if type(a.recipe(SHORT)) is kind]
        left = ABLATIONS[name].recipe(SHORT)
        assert {f: getattr(left, f) for f in SHORT.__dataclass_fields__} == vars(SHORT)


def test_the_recipe_and_no_moves_are_those_of_another_part():
    chosen = Settings()
    planned = list(ablations(chosen, {ONE_NOISE: 2.0}))
    seeds = chosen.seeds[: chosen.structured]
    assert len(planned) == len(seeds) * (2 + len(ABLATIONS))
    shared = [job for job in planned if not isinstance(job, AblationJob)]
    assert set(shared) <= set(moves(chosen))
    assert {job.strength for job in planned if getattr(job, "arm", "") == ONE_NOISE} == {2.0}
    searched = list(ablation_searches(chosen))
    assert [job.strength for job in searched] == list(FACTORS)
    assert {job.draw.generator for job in searched} == {chosen.choosing}
    assert {job.recipe for job in searched} == {chosen.recipe}  # at full length


def test_a_floor_that_fails_is_never_chosen():
    row = {"failed": None, "mcc": 0.5, "f1": 0.2}
    tried = [
        row | {"strength": 1.0},
        row | {"strength": 2.0, "f1": 0.3},
        row | {"strength": 4.0, "failed": "not finite"},
    ]
    assert best_floor(tried) == {ONE_NOISE: 2.0}


def made_up(worse):
    """Every arm loses so much MCC, the same on every seed but for .001; F1 and share nothing."""
    found = []
    for seed in (1, 2, 3):
        for name in (SLAB, STILL, *ABLATIONS):
            loss = worse if name in ABLATIONS else 0.0
            found.append(
                {"arm": name, "seed": seed, "failed": None, "strength": 2.0, "l0": 7.0}
                | {"mcc": 0.9 - loss + 0.001 * seed * (loss > 0), "f1": 0.9, "share": 0.8}
                | {
                    "f1_trimmed": None,
                    "chance": 0.3,
                    "levels": {"roots": {"share": 0.5}},
                    "seen": 10,
                }
                | {"seconds": 1.0}
            )
    found.append({"arm": SLAB, "seed": 4, "failed": "not finite"})
    return Results(Settings(), {"ablations": Part((), {}, found)})


def without(results, keep):
    """The same with the models that are kept."""
    part = results.parts["ablations"]
    rows = [row for row in part.rows if keep(row)]
    return Results(results.settings, {"ablations": Part((), {}, rows)})


@pytest.mark.parametrize(
    "keep",
    [
        lambda row: False,
        lambda row: row["arm"] != SLAB,
        lambda row: (row["arm"] == SLAB) == (row["seed"] == 1),
    ],
    ids=["nothing", "no recipe", "no seed in common"],
)
def test_what_failed_is_not_compared(keep, tmp_path):
    left = without(made_up(0.1), keep)
    assert list(ablation_findings(left)) == [RULE]
    lines = ablation_tables(left)["ablations"].rows
    assert not any("MCC − recipe" in line for line in lines)
    (picture,) = draw_ablations(left, tmp_path)
    assert picture.stat().st_size > 1_000


def test_findings_are_differences_to_the_recipe():
    _, *said = ablation_findings(made_up(0.1))
    assert len(said) == 1 + len(ABLATIONS)
    assert "No moves (L0 7 ± 0), against the recipe (L0 7 ± 0): mcc identical" in said[0]
    assert all("mcc worse (-0.098" in sentence for sentence in said[1:])
    assert [s for s in said if "floors × 2" in s] == [s for s in said if s.startswith("One noise")]
    table = ablation_tables(made_up(0.1))["ablations"]
    lines = [dict(row) for row in table.rows]
    assert len(lines) == 2 + len(ABLATIONS)
    assert "MCC − recipe" not in lines[0]
    assert all(line["chance MCC"].mean == pytest.approx(0.3) for line in lines)
    assert lines[2]["MCC − recipe"].mean == pytest.approx(-0.098)
    assert len(by_arm(made_up(0.1))[SLAB]) == 3  # what failed is no seed
