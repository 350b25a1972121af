"""The part ``modadd`` of ``vsae reproduce recovery``: scores of planted truth, structure, rules."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Generator

from toys.reproduce.quickstart_structure import prior_covariance
from toys.reproduce.recovery_modadd import CHANCE, ModAddJob, modadd_jobs, overlap
from toys.reproduce.recovery_modadd_arms import (
    ARMS,
    FOUND,
    TRUE,
    Where,
    at_truth,
    begun,
    believed,
    blocks,
    in_slots,
    isotropic,
    l1_pair,
    rings,
    shuffled_blocks,
    shuffled_rings,
)
from toys.reproduce.recovery_modadd_data import Slots, activations
from toys.reproduce.recovery_modadd_findings import modadd_details, modadd_findings
from toys.reproduce.recovery_modadd_scores import (
    block_score,
    blocks_of,
    plane_scores,
    ring_score,
    surrounds,
)
from toys.reproduce.recovery_modadd_settings import NUMBERS, SMOKE, SUMS, ModAddSettings
from toys.reproduce.recovery_modadd_tables import modadd_tables
from toys.reproduce.recovery_results import Results
from toys.reproduce.recovery_runs import Part, count, jobs
from toys.reproduce.recovery_settings import Settings, settings
from toys.rings import Rings
from vsae import metrics

TINY = replace(SMOKE, first_steps=2, dense_steps=2, field_steps=2, coding_steps=1)


def where(seeds=(1, 2), sizes=TINY):
    return Where(network="pizza", stream=NUMBERS, sizes=sizes, seeds=seeds)


def two_rings(per_ring=8):
    """Rings in the planes of the first four of five coordinates, and atoms evenly on them."""
    planes = torch.eye(5, dtype=torch.float64)[:4].unflatten(0, (2, 2))
    truth = Rings(torch.tensor([0.5, 0.5]).double(), torch.tensor([1, 2]), planes)
    turn = 2 * math.pi * torch.arange(per_ring, dtype=torch.float64) / per_ring
    circle = torch.stack([turn.cos(), turn.sin()], 1)
    return truth, torch.einsum("nc,fcd->fnd", circle, planes).flatten(0, 1)


def test_planes_are_found_when_atoms_surround_them():
    truth, atoms = two_rings()
    assert plane_scores(truth, atoms) == pytest.approx(
        {"planarity": 1.0, "in_plane": 1.0, "planes_found": 1.0}
    )
    half = atoms[:12]  # of the second ring four neighbours, less than half a turn
    assert plane_scores(truth, half)["planes_found"] == 0.5
    mixed = atoms[:8] + 0.5 * atoms[8:]  # 1 / 1.25 of the squared norm in the first plane
    found = plane_scores(truth, mixed)
    assert found["planarity"] == pytest.approx(0.8)
    assert found["in_plane"] == found["planes_found"] == 0.0


@pytest.mark.parametrize(
    ("degrees", "all_round"),
    [((0, 120, 240), True), ((0, 90), False), ((0, 90, 179), False), ((150, -150, 10), True)],
)
def test_directions_surround_the_origin_if_no_gap_is_half_a_turn(degrees, all_round):
    angles = torch.tensor(degrees).double().deg2rad()
    assert surrounds(angles) is all_round
    corner = torch.stack([angles.cos(), angles.sin()], 1)  # 0 inside their hull, by hand
    turn = torch.linspace(0, 2 * math.pi, 720).double()
    reach = (torch.stack([turn.cos(), turn.sin()], 1) @ corner.mT).amax(-1)
    assert bool((reach > 0).all()) is all_round


def test_blocks_of_coupled_latents_are_found_and_others_are_not():
    labels = torch.arange(12) // 4
    strength = (labels[:, None] == labels).double()
    strength = strength * (1 + torch.rand(12, 12, generator=Generator().manual_seed(0)))
    found = blocks_of(strength + strength.mT, 3)
    assert metrics.adjusted_rand_index(found, labels) == 1.0
    order = torch.randperm(12, generator=Generator().manual_seed(1))
    again = blocks_of((strength + strength.mT)[order][:, order], 3)
    assert metrics.adjusted_rand_index(again, labels[order]) == 1.0


def ring_codes(atoms, rows=4000):
    """Both rings turn evenly and apart, always on, as those of a network; tuning is of atoms."""
    turn = 2 * math.pi * torch.rand(rows, 2, generator=Generator().manual_seed(0)).double()
    circles = torch.stack([turn.cos(), turn.sin()], -1).flatten(1)
    x = torch.cat([circles, torch.zeros(rows, 1).double()], 1)
    return (x @ atoms.mT - 0.5).relu()


def test_codes_of_true_rings_show_blocks_and_rings_and_dealt_ones_do_not():
    truth, atoms = two_rings()
    codes = ring_codes(atoms)
    assert block_score(truth, atoms, codes) == 1.0
    assert ring_score(truth, atoms, codes) > 0.85
    dealt = [ring_score(truth, atoms, codes, Generator().manual_seed(s)) for s in range(20)]
    assert abs(sum(dealt) / 20) < 0.15
    assert block_score(truth, atoms[:8], codes[:, :8]) is not None
    alone = Rings(truth.shares, truth.frequencies[:1], truth.planes[:1])
    assert block_score(alone, atoms, codes) is None


def test_overlap_is_the_least_angle_between_planes():
    truth, _ = two_rings()
    assert overlap(truth.planes) == pytest.approx(0)
    assert overlap(truth.planes[:1]) == 0
    tilted = torch.tensor([[0.6, 0.0, 0.8, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 0.0]]).double()
    assert overlap(torch.stack([truth.planes[0], tilted])) == pytest.approx(0.6)


@pytest.mark.float32
def test_slots_lie_on_the_rings_and_neighbours_are_tied():
    found = activations("pizza", NUMBERS, 2_800)
    slots = Slots(found, 50)  # 8 on each of 6 rings, 2 spare
    assert slots.sizes == (8,) * 6 + (1, 1)
    shares = found.rings.planarity(slots.atoms[:48])
    torch.testing.assert_close(
        shares[torch.arange(48), slots.labels[:48]], torch.ones(48).double(), atol=1e-5, rtol=0
    )
    tied = torch.from_numpy(slots.ring.adjacency().toarray())
    assert torch.equal(tied.sum(0)[:48], torch.full((48,), 2.0).to(tied.dtype))
    assert not tied[48:].any()
    close = (slots.atoms @ slots.atoms.mT)[tied > 0]
    torch.testing.assert_close(close, torch.full_like(close, math.cos(math.pi / 4)))


@pytest.mark.float32
def test_latents_are_put_into_the_slots_they_are_most_like():
    one = where()
    slots = one.slots
    order = torch.randperm(48, generator=Generator().manual_seed(0))
    pair = l1_pair(one, 1.0)
    with torch.no_grad():
        pair.model.decoder.W_dec.copy_(slots.atoms[order])
        pair.guide.posterior.encoder.b_enc.copy_(order.float() / 100)
    new = in_slots(one, pair, slots)
    torch.testing.assert_close(new.W_dec, slots.atoms)
    torch.testing.assert_close(new.b_enc, torch.arange(48).float() / 100)
    x = one.found.test[:7]
    torch.testing.assert_close(new.forward(x), pair.forward(x))  # the same model
    assert torch.equal(at_truth(l1_pair(one, 1.0), slots).W_dec, slots.atoms)


@pytest.mark.float32
def test_priors_differ_in_what_they_tie_and_in_nothing_else():
    one = where()
    belief, labels = believed(one)[1], one.slots.labels
    plain, true, dealt = (
        prior_covariance(make(one, belief, 1)) for make in (isotropic, rings, shuffled_rings)
    )
    for covariance in (plain, true, dealt):
        assert float(covariance.diagonal().mean()) == pytest.approx(belief.scale**2, rel=1e-3)
    inside = labels[:, None] == labels
    off = ~torch.eye(48, dtype=torch.bool)
    assert not plain[off].any()
    assert bool((true[inside & off] > 0).all())
    torch.testing.assert_close(true[~inside], torch.zeros_like(true[~inside]), atol=1e-5, rtol=0)
    assert bool((dealt[~inside] > 1e-3).any())
    torch.testing.assert_close(
        torch.linalg.eigvalsh(true), torch.linalg.eigvalsh(dealt), rtol=1e-3, atol=1e-3
    )
    again = prior_covariance(shuffled_rings(one, belief, 2))
    assert not torch.allclose(again, dealt, atol=1e-3)  # each seed ties others
    groups = [make(one, belief, 1) for make in (blocks, shuffled_blocks)]
    for prior, ties in zip(groups, (True, False), strict=True):
        with torch.no_grad():
            for parameter in prior.parameters():
                parameter.add_(0.3)
        covariance = prior_covariance(prior)
        assert bool(covariance[~inside].abs().max() < 1e-5) is ties


@pytest.mark.float32
def test_both_starts_are_of_every_seed_and_training_is_not_switched_off():
    one, before = where(), torch.get_rng_state()
    starts = begun(one).starts
    assert torch.equal(torch.get_rng_state(), before)
    for pair in starts[TRUE]:  # held there, while the encoder learns
        torch.testing.assert_close(pair.W_dec, one.slots.atoms)
        assert not torch.equal(pair.W_enc, one.slots.atoms.mT)
    assert [len(pairs) for pairs in starts.values()] == [2, 2]
    assert not torch.equal(starts[FOUND][0].W_dec, starts[FOUND][1].W_dec)
    begun.cache_clear()
    believed(where())  # what it needs is trained first, with gradients


@pytest.mark.float32
@pytest.mark.parametrize("arm", ["ours-coding", "rings-shuffled"])
def test_a_job_is_a_pure_function_of_its_fields(arm):
    job = ModAddJob(where=where(seeds=(1,)), arm=arm)
    torch.manual_seed(5)
    one = job.compute()
    begun.cache_clear()
    torch.manual_seed(6)
    two = job.compute()
    assert one.row["models"] == two.row["models"]
    assert all(torch.equal(one.tensors[name], two.tensors[name]) for name in one.tensors)


def test_the_reported_run_has_every_network_stream_and_arm():
    chosen = Settings()
    planned = jobs(chosen, "modadd", {})
    assert len(planned) == count(chosen, "modadd")
    assert {(j.where.network, j.where.stream) for j in planned} == {
        (network, stream) for network in chosen.modadd.networks for stream in (NUMBERS, SUMS)
    }
    assert {"unconverged", "pizza"} < set(chosen.modadd.networks)
    assert {j.arm for j in planned} == {CHANCE, *ARMS}
    assert all(j.where.seeds == chosen.seeds for j in planned)
    assert ModAddSettings().latents < 59
    assert settings(smoke=True, seeds=None).modadd == SMOKE


# Rules


def planted_results(*, true_gain=0.2, planarity=0.5, shuffled_l0=16.0):
    """Rows as a run leaves them, numbers set."""
    chosen = replace(
        Settings(), modadd=ModAddSettings(networks=("pizza",), streams=(NUMBERS,), noises=(0.8,))
    )
    rows = []
    for job in modadd_jobs(chosen.modadd, chosen.seeds):
        row = {"network": "pizza", "stream": NUMBERS, "arm": job.arm, "failed": None}
        row |= {"updates": job.where.sizes.dense_steps, "seconds": 1.0, "cached": False}
        row["models"] = []
        if job.arm == CHANCE:
            row |= job.compute().row | {"cached": False}
            for model in row["models"]:
                model["planarity"] = 0.4 + 1e-3 * model["seed"]
        dense = job.arm not in ("topk", "batch_topk", "ours-coding")
        for seed in chosen.seeds if job.arm != CHANCE else ():
            for start in (FOUND, TRUE) if dense else ("random",):
                own = {"start": start, "strength": 0.8, "seed": seed, "ev": 0.9}
                own |= {"seen": 7, "l0": shuffled_l0 if "shuffled" in job.arm else 16.0}
                gain = true_gain if job.arm in ("rings", "blocks") else 0.0
                own["planarity"] = planarity + gain + 2e-3 * seed
                own |= {"in_plane": 0.0, "planes_found": 0.0, "blocks": 0.1 * seed + gain}
                own |= {"ring": 0.5, "ring_dealt": 0.0, "dead": 0.0, "accuracy": None}
                own["elbo"] = -100.0 - (start == TRUE) if dense else None
                row["models"].append(own)
        rows.append(row)
    return Results(chosen, {"modadd": Part((), {}, rows)})


def sentences(results):
    return [*modadd_findings(results), *modadd_details(results)]


@pytest.mark.float32
def test_sentences_follow_the_numbers():
    said = sentences(planted_results())
    against = [s for s in said if "against random data points" in s]
    assert against
    assert all("better on 1, worse on 0 of 1 streams" in s for s in against)
    shuffled = [s for s in said if "against shuffled" in s and not s.startswith("After")]
    assert len(shuffled) == 2 * 2 * 2  # rings and blocks, two starts, two scores
    assert all("better on 1, worse on 0 of 1 streams, mean 0.2" in s for s in shuffled)
    assert all("0 of 1 streams left out" in s for s in shuffled)
    assert sum("planarity is the score that decides" in s for s in said) == 1
    unlike = sentences(planted_results(shuffled_l0=18.0))
    unlike = [s for s in unlike if "against shuffled" in s]
    assert unlike
    assert all("not decided; 1 of 1 streams left out" in s for s in unlike)
    assert any(s.startswith("After 900 updates") for s in said)
    assert all("worse on 1" in s for s in said if "ELBO against that" in s)
    nothing = sentences(planted_results(true_gain=0.0, planarity=0.3))
    shuffled = [s for s in nothing if "against shuffled" in s]
    assert all("better on 0, worse on 0 of 1" in s for s in shuffled)
    against = [s for s in nothing if "against random data points" in s]
    assert all("better on 0, worse on 1 of 1" in s for s in against)
    ahead = modadd_findings(planted_results())
    assert ahead
    assert not any(f"from {TRUE}" in s or s.startswith("After") for s in ahead)
    assert not any("against random data points" in s for s in ahead)


@pytest.mark.float32
def test_tables_have_an_arm_a_row_and_a_stream_a_column():
    tables = modadd_tables(planted_results())
    planarity = {row["arm"]: row["pizza, numbers"].mean for row in tables["modadd_planarity"].rows}
    assert planarity["random data points"] == pytest.approx(0.403)
    assert planarity["V-SAE, true rings, σ = 0.8"] == pytest.approx(0.706)
    assert planarity["V-SAE, rings shuffled, σ = 0.8"] == pytest.approx(0.506)
    gains = {row["arm"]: row["pizza, numbers"].mean for row in tables["modadd_true_elbo"].rows}
    assert set(gains.values()) == {-1.0}
    seen = {row["arm"]: row["rows seen"] for row in tables["modadd_planarity"].rows}
    assert seen["random data points"] is None
    assert set(seen.values()) == {None, 7}
    blocks_found = {row["arm"]: row["pizza, numbers"] for row in tables["modadd_blocks"].rows}
    assert blocks_found["random data points"].mean > 0.0  # by construction, not by training
    (network,) = tables["modadd_networks"].rows
    assert network["key frequencies"] == "17, 3, 15, 25, 6, 29"
    assert len(tables["modadd_long_planarity"].rows) == 2


@pytest.mark.float32
def test_the_smoke_run_of_the_part(tmp_path):
    from toys.reproduce import recovery

    out = ["--part", "modadd", "--smoke", "--threads", "1", "--out", str(tmp_path)]
    assert recovery.main([*out, "--seeds", "1"]) == 0
    assert (tmp_path / "figures" / "modadd" / "modadd_planes.png").stat().st_size > 10_000
    assert (tmp_path / "tables" / "modadd" / "modadd_planarity.csv").is_file()
    text = (tmp_path / "modadd.md").read_text(encoding="utf-8")
    assert "Networks that add modulo 59" in text
    kept = {path.name for path in (tmp_path / "jobs").iterdir()}
    assert recovery.main([*out, "--seeds", "1"]) == 0  # all of it from the folder
    assert {path.name for path in (tmp_path / "jobs").iterdir()} == kept
