"""``vsae reproduce recovery-16k``: its sizes, rows drawn on demand, precision, and a tiny run."""

import csv
import json
from dataclasses import replace

import pytest
import torch

from priors import BernoulliPrior, SpikeSlabPrior, TruncatedNormalPrior
from toys.reproduce import recovery_16k
from toys.reproduce.recovery_16k_precision import LEAST, HalfMeanField, difference
from toys.reproduce.recovery_16k_report import over
from toys.reproduce.recovery_16k_runs import Phase
from toys.reproduce.recovery_16k_settings import Settings16k, settings
from toys.reproduce.recovery_16k_world import World, peak_gib
from toys.synth import SYNTH_16K
from vsae import Autoencoder, FixedNoise, LinearDecoder, MeanFieldPosterior, SparseAutoencoder
from vsae.batches import Batches
from vsae.guides import AmortizedGuide
from vsae.recipes.recovery import RecoveryRecipe

CPU = torch.device("cpu")


def test_the_whole_is_the_published_toy_and_eight_times_the_rows_of_data_a_as_costed():
    chosen, small = settings(smoke=False, seeds=None, share=1.0), RecoveryRecipe(slab_rows=600_000)
    assert chosen.recipe.moves == 0
    assert chosen.part_case == chosen.case == SYNTH_16K
    for name in ("l1_rows", "slab_rows", "final_rows", "batch_size"):
        assert getattr(chosen.recipe, name) == 8 * getattr(small, name)
        whole, part = (getattr(r, name) for r in (chosen.recipe, chosen.part_recipe))
        assert abs(part - whole) < chosen.recipe.batch_size  # updates are whole ones
    assert chosen.sample >= chosen.case.features  # first atoms are distinct rows
    assert settings(smoke=False, seeds=3, share=1.0).seeds == (1, 2, 3)


@pytest.mark.parametrize("share", [0.5, 0.01, 1e-6])
def test_a_share_is_one_of_everything_but_of_batches(share):
    chosen = settings(smoke=False, seeds=None, share=share)
    whole, part = chosen.recipe, chosen.part_recipe
    for name in ("l1_rows", "slab_rows", "final_rows"):
        rows, size = getattr(part, name), part.batch_size
        assert rows % size == 0
        assert rows >= size
        assert abs(rows - share * getattr(whole, name)) <= size
    assert part.batch_size == whole.batch_size
    assert chosen.sample >= chosen.first >= whole.batch_size  # phases begin on these
    assert chosen.spread_steps == ({0.5: 50, 0.01: 1, 1e-6: 1}[share], 100)
    assert chosen.sample >= chosen.case.features


@pytest.mark.parametrize("wrong", ["0", "-1", "1.5", "nan"])
def test_a_share_is_in_0_1(wrong, capsys):
    with pytest.raises(SystemExit):
        recovery_16k.main(["--share", wrong])
    assert "expected a number in (0, 1]" in capsys.readouterr().err


@pytest.mark.float32
def test_rows_are_fresh_and_a_function_of_seed_start_and_step():
    chosen = settings(smoke=True, seeds=None, share=1.0)
    world, other = World(chosen, 1, CPU), World(chosen, 2, CPU)
    rows, again, later = world.rows(64, 0), world.rows(64, 0), world.rows(64, 5)
    assert isinstance(rows, Batches)
    steps = [rows(step) for step in range(6)]
    assert torch.equal(again(3), steps[3])  # in any order
    assert torch.equal(later(0), steps[5])
    drawn = torch.cat([*steps, world.sample, world.test])
    fired = drawn[(drawn - world.toy.bias).norm(dim=1) > 1e-4]  # rows of no feature are alike
    assert len(fired) > 0.8 * len(drawn)
    assert len(fired.unique(dim=0)) == len(fired)
    assert not torch.equal(other.rows(64, 0)(0), steps[0])
    x = torch.cat([rows(step) for step in range(40)])
    error = (x.var(0) / len(x) + world.sample.var(0) / len(world.sample)).sqrt()
    assert ((x.mean(0) - world.sample.mean(0)).abs() < 5 * error).all()  # the same law


@pytest.mark.float32
def test_half_products_move_little_and_only_products():
    found = difference(CPU)
    assert found.small == (found.flipped <= LEAST)
    assert 0 < found.code < 0.01  # 2⁻⁸ is the rounding of a bfloat16
    assert found.flipped < LEAST
    rough = difference(CPU, floor=0.3)
    assert rough.code < 0.01


@pytest.mark.float32
def test_the_half_guide_is_the_same_guide_in_another_precision():
    decoder, sigma = LinearDecoder(24, 12), FixedNoise(0.05)
    prior = SpikeSlabPrior(
        BernoulliPrior(24, rate=0.05), TruncatedNormalPrior(24, loc=1.0, scale=0.25)
    )
    guide = AmortizedGuide(MeanFieldPosterior(decoder, prior, sigma, iterations=7))
    pair = Autoencoder(SparseAutoencoder(decoder, prior, noise=sigma), guide)
    x = pair.W_dec[:8].detach()
    exact = pair.guide.posterior(x)["z"].mean
    half = HalfMeanField.of(pair)
    assert half.posterior.decoder is pair.model.decoder
    assert half.posterior.iterations == pair.guide.posterior.iterations
    found = half.posterior(x)["z"].mean
    assert found.dtype == torch.float32
    assert 0 < (found - exact).abs().max() < 0.05


def test_hours_follow_from_the_rate():
    phase = Phase("a", "b", batch=10, steps=4, whole=400, seconds=36.0, setup=3600.0)
    assert phase.rows_per_second == pytest.approx(40 / 36)
    assert phase.hours() == pytest.approx(2.0)
    assert phase.hours(800) == pytest.approx(3.0)


def test_memory_that_cannot_be_told_apart_is_left_out():
    assert peak_gib(CPU) is None
    assert over([None, None]) is None
    assert over([1.0, None, 3.0]).mean == 2.0


@pytest.mark.float32
def test_smoke_run_writes_everything_it_promises(tmp_path, capsys):
    out, state, threads = tmp_path / "r", torch.get_rng_state(), torch.get_num_threads()
    call = ["--smoke", "--threads", "1", "--json", "--device", "cpu", "--out", str(out)]
    assert recovery_16k.main(call) == 0
    assert torch.equal(state, torch.get_rng_state())
    assert torch.get_num_threads() == threads
    result = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert result["ok"] is True
    assert result["bfloat16"] is False
    for stem, records in result["tables"].items():
        with (out / "tables" / f"{stem}.csv").open(newline="", encoding="utf-8") as file:
            assert len(list(csv.DictReader(file))) == len(records)
    ours, field = result["tables"]["models"]
    assert ours["peak memory, GiB"] is field["peak memory, GiB"] is None
    report = (out / "recovery-16k.md").read_text(encoding="utf-8")
    assert "which was not tuned at this size" in report
    assert "true dictionary (96 dimensions), not at this size" in report
    chosen = settings(smoke=True, seeds=None, share=1.0)
    recipe = chosen.recipe
    assert ours["rows seen"] == recipe.l1_rows + recipe.slab_rows + recipe.final_rows
    assert field["rows seen"] == chosen.seen
    phases = [row["phase"] for row in result["tables"]["cost"]]
    assert phases == ["directions", "ℓ1", "slab", "final", "all", "published length"]
    shown = json.loads((out / "figures" / "cosines.json").read_text(encoding="utf-8"))
    assert set(shown["best_cosine"]) == {ours["arm"], field["arm"]}
    assert (out / "figures" / "cosines.png").stat().st_size > 5_000
    saved = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert saved["tables"] == result["tables"]
    assert saved["settings"]["share"] == 1.0
    assert replace(Settings16k(), share=0.5).to_dict()["share"] == 0.5
