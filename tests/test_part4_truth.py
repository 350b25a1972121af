"""Parts of ``vsae reproduce part4`` where the truth is known: planted truth, structure, rules."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from toys.modadd import ModAdd
from toys.reproduce import part4
from toys.reproduce.part4_layered_arms import ARMS as LAYERED_ARMS
from toys.reproduce.part4_layered_arms import Where as LayeredWhere
from toys.reproduce.part4_layered_arms import begun
from toys.reproduce.part4_layered_data import order, over_latents, world
from toys.reproduce.part4_layered_jobs import LayeredJob, layered_jobs
from toys.reproduce.part4_layered_scores import diff_scores, model_scores
from toys.reproduce.part4_layered_settings import CASES, TWO_MODELS, LayeredSettings, layered_smoke
from toys.reproduce.part4_layered_tables import layered_findings, layered_tables
from toys.reproduce.part4_modadd_arms import ARMS as MODADD_ARMS
from toys.reproduce.part4_modadd_arms import FOUND, TRUE, at_truth, l1_pair, shuffled_blocks
from toys.reproduce.part4_modadd_arms import Where as ModAddWhere
from toys.reproduce.part4_modadd_arms import begun as modadd_begun
from toys.reproduce.part4_modadd_data import Slots, streams
from toys.reproduce.part4_modadd_jobs import CHANCE, modadd_jobs
from toys.reproduce.part4_modadd_scores import plane_scores
from toys.reproduce.part4_modadd_settings import ModAddSettings, modadd_smoke
from toys.reproduce.part4_modadd_tables import modadd_findings, modadd_tables
from toys.reproduce.part4_probe_arms import partners, token_f1
from toys.reproduce.part4_probe_jobs import ASKED, OTHER, SWAPPED, swapped
from toys.reproduce.part4_probe_tables import log_ratios, probe_findings, probe_tables
from toys.reproduce.part4_settings import Settings
from toys.reproduce.part4_truth_training import renamed, size_of, started
from toys.reproduce.quickstart_structure import Belief
from vsae import ablation, l1_crosscoder, topk_crosscoder, variational_crosscoder


@pytest.fixture(autouse=True)
def forgotten():
    """What is kept has the default dtype of the test that made it."""
    for kept in (world, streams, begun, modadd_begun):
        kept.cache_clear()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(seed, *shape):
    return torch.randn(*shape, generator=generator(seed))


# The toys


def small(case="turning", seed=3):
    return world(case, seed, replace(layered_smoke(), rows=60, held=50))


def test_the_graph_ties_features_that_fire_together_and_the_control_ties_others():
    own = small()
    tied = own.truth.adjacency().toarray() > 0
    groups = np.arange(48) // 4
    expected = (groups[:, None] == groups) & ~np.eye(48, dtype=bool)
    expected[32:] = expected[:, 32:] = False
    np.testing.assert_array_equal(tied, expected)
    dealt = own.shuffled.adjacency().toarray() > 0
    assert not dealt[32:].any()  # spare latents stay alone in both
    np.testing.assert_array_equal(np.sort(dealt.sum(0)), np.sort(tied.sum(0)))
    assert (dealt & tied).sum() < tied.sum() / 2
    spectra = [
        np.linalg.eigvalsh(graph.laplacian().toarray()) for graph in (own.truth, own.shuffled)
    ]
    np.testing.assert_allclose(*spectra, atol=1e-12)
    assert over_latents(own.toy.flat.graph, 32).num_nodes == 32


@pytest.mark.parametrize("case", CASES)
def test_features_of_a_group_fire_together_in_every_case(case):
    codes = small(case).toy.flat.law.sample(40_000, generator(1)) > 0
    found = np.corrcoef(codes.numpy().T.astype(float))
    same = (np.arange(32) // 4)[:, None] == np.arange(32) // 4
    off = ~np.eye(32, dtype=bool)
    assert found[same & off].mean() == pytest.approx(0.4, abs=0.02)
    assert abs(found[~same].mean()) < 0.01


@given(st.integers(0, 2**31))
@hypothesis(max_examples=25)
def test_latents_are_named_after_their_features(seed):
    own = small()
    shuffle = torch.randperm(48, generator=generator(seed))
    atoms = torch.cat([own.toy.dictionary, normal(seed, 16, own.toy.dictionary.shape[1])])
    names = order(-2 * atoms[shuffle], own.toy.dictionary)
    assert torch.equal(shuffle[names][:32], torch.arange(32))
    assert sorted(names.tolist()) == list(range(48))


def test_the_truth_has_full_marks_and_noise_has_not():
    own = small()
    pair = l1_crosscoder(own.toy.layers, 48, l1=1.0, normalizer=own.normalizer)
    low = model_scores(own, pair)
    with torch.no_grad():
        atoms = own.toy.dictionary / own.scales
        pair.model.decoder.W_dec.copy_(torch.cat([atoms, atoms[:16]]))
        pair.model.decoder.project()
    high = model_scores(own, pair)
    for name in ("mcc", "mcc_layers", "matched", "presence_auc", "presence_exact"):
        assert high[name] == pytest.approx(1.0), name
        assert low[name] is None or low[name] < 0.9
    assert high["angle_error"] == pytest.approx(0.0, abs=1e-4)


def test_two_models_are_told_apart_by_norms():
    own = small(TWO_MODELS)
    truth = own.toy.dictionary
    assert diff_scores(truth, own) == pytest.approx(
        {
            "diff_right": 1.0,
            "false_exclusive": 0.0,
            "missed_exclusive": 0.0,
            "exclusive_found": 1.0,
            "shared_found": 1.0,
        }
    )
    presence = own.toy.presence
    shrunk = truth.view(32, 2, -1).clone()
    victim = int(presence.all(1).nonzero()[0])
    shrunk[victim, 1] *= 0.25  # below 0.3 of the other: told exclusive, and still matched
    found = diff_scores(shrunk.flatten(1), own)
    assert found["false_exclusive"] == pytest.approx(1 / int(presence.all(1).sum()))
    assert found["missed_exclusive"] == 0.0
    assert found["diff_right"] == pytest.approx(31 / 32)


@pytest.mark.parametrize("latents", [8])
def test_renamed_and_started_models_are_the_same(latents):
    torch.manual_seed(0)
    old, x = l1_crosscoder((3, 2), latents, l1=1.0), normal(1, 20, 5)
    with torch.no_grad():
        old.guide.posterior.encoder.b_enc.copy_(normal(2, latents))
        old.model.decoder.b_dec.copy_(normal(3, 5))
    names = torch.randperm(latents, generator=generator(4))
    new = renamed(l1_crosscoder((3, 2), latents, l1=1.0), old, names)
    torch.testing.assert_close(new(x), old(x))
    torch.testing.assert_close(new.encode(x), old.encode(x)[:, names])
    for fresh in (
        l1_crosscoder((3, 2), latents, l1=2.0),
        variational_crosscoder(
            (3, 2), small_prior(latents), noise=0.3, link=torch.nn.ReLU(), scale=0.2
        ),
    ):
        again = started(fresh, new)
        torch.testing.assert_close(again(x), old(x))
        torch.testing.assert_close(again.encode(x), new.encode(x))
    codes = old.encode(x).detach()
    assert size_of(old, x) == pytest.approx(float(codes[codes > 0].square().mean().sqrt()))


def small_prior(latents):
    from priors import IsotropicPrior

    return IsotropicPrior(latents)


@pytest.mark.float32
def test_arms_go_on_from_the_same_named_run_and_tie_what_they_say():
    where = LayeredWhere(case="turning", sizes=layered_smoke(), seeds=(1, 2))
    one, two = begun(where)
    assert (one.seed, two.seed) == (1, 2)
    for own, first in zip(where.worlds, (one, two), strict=True):
        names = order(own.raw(first.pair.W_dec), own.toy.dictionary)
        assert torch.equal(names[:32], torch.arange(32))
    done = LAYERED_ARMS["v-graph"][1](where)
    assert [model.seed for model in done] == [1, 2]
    for own, model in zip(where.worlds, done, strict=True):
        assert model.pair.model.prior.laplacian.graphs[0] == own.truth
    assert LAYERED_ARMS["topk"][1](where)[0].beta is None


@pytest.mark.float32
def test_a_job_is_a_pure_function_of_its_fields():
    where = LayeredWhere(case=TWO_MODELS, sizes=layered_smoke(), seeds=(1,))
    job = LayeredJob(where=where, arm="l1-graph")
    torch.manual_seed(5)
    one = job.compute().row
    begun.cache_clear()
    torch.manual_seed(6)
    two = job.compute().row
    assert one["models"] == two["models"]


# Networks that add


def test_slots_lie_in_their_planes_in_every_layer():
    found = streams("two-blocks", 2_800)
    slots = Slots(found, 50)
    each, count = slots.each, found.count
    shares = found.planarity(slots.atoms[: each * count])
    own = shares[torch.arange(each * count), :, slots.labels[: each * count]]
    torch.testing.assert_close(own, torch.ones_like(own))
    assert len(slots.labels.unique()) == count + 50 - each * count
    tied = torch.from_numpy(slots.ring.adjacency().toarray()) > 0
    assert torch.equal(tied.sum(0)[: each * count], torch.full((each * count,), 2))
    assert not tied[:, each * count :].any()
    order = torch.randperm(50, generator=generator(1))
    assert torch.equal(order[slots.order(3 * slots.atoms[order])], torch.arange(50))


def test_waves_are_the_least_squares_fit_of_each_frequency():
    found = streams("two-blocks", 2_800)
    at = found.planes.kinds.index("sum")
    model = ModAdd.load("two-blocks")
    a, b = model.pairs().mT.double()
    turn = 2 * math.pi * found.planes.frequencies[at] * (a + b) / model.modulus
    design = torch.stack([torch.ones_like(turn), turn.cos(), turn.sin()], 1).numpy()
    x = found.normalizer(found.all.flatten(1)).double().numpy()
    fit = np.linalg.lstsq(design, x, rcond=None)[0][1:]
    np.testing.assert_allclose(found.waves()[at].flatten(1).numpy(), fit, atol=1e-8)


@given(st.integers(0, 2**31))
@hypothesis(max_examples=40)
def test_plane_scores_against_loops(seed):
    shares = torch.rand(9, 3, 4, generator=generator(seed), dtype=torch.float64)
    present = torch.rand(9, 3, generator=generator(seed + 1)) < 0.7
    found = plane_scores(shares, present, 0.8, generator(seed))
    inside, best, every, same, several = [], [], [], [], 0
    for k in range(9):
        mine = [layer for layer in range(3) if present[k, layer]]
        best += [float(shares[k, layer].max()) for layer in mine]
        inside += [float(shares[k, layer].max()) > 0.8 for layer in mine]
        if mine:
            every.append(all(float(shares[k, layer].max()) > 0.8 for layer in mine))
        if len(mine) > 1:
            several += 1
            same.append(len({int(shares[k, layer].argmax()) for layer in mine}) == 1)
    expected = {"planarity": best, "in_plane": inside, "in_plane_all": every, "consistent": same}
    for name, values in expected.items():
        if values:
            assert found[name] == pytest.approx(np.mean(values)), name
        else:
            assert math.isnan(found[name])
    assert found["several"] == pytest.approx(several / 9)


def test_planes_that_agree_are_above_chance_and_dealt_ones_are_not():
    planes = torch.arange(40) % 8
    shares = torch.nn.functional.one_hot(planes, 8).double()[:, None].expand(40, 3, 8)
    everywhere = torch.ones(40, 3, dtype=torch.bool)
    found = plane_scores(shares, everywhere, 0.9, generator())
    assert (found["consistent"], found["in_plane_all"]) == (1.0, 1.0)
    assert found["consistent_dealt"] == pytest.approx(1 / 64, abs=0.02)
    apart = shares.clone()
    apart[:, 1] = shares[torch.randperm(40, generator=generator(1)), 1]
    assert plane_scores(apart, everywhere, 0.9, generator())["consistent"] < 0.4


def modadd_where():
    return ModAddWhere(network="two-blocks", sizes=modadd_smoke(), seeds=(1, 2))


@pytest.mark.float32
def test_shuffled_blocks_have_the_same_sizes_and_other_members():
    where, belief = modadd_where(), Belief(mean=-1.0, scale=1.0)
    labels = where.slots.labels
    dealt = [shuffled_blocks(where, belief, seed) for seed in (1, 2)]
    covariances = []
    for prior in dealt:
        with torch.no_grad():
            for parameter in prior.parameters():
                parameter.add_(0.3)
        draws = prior().precision.unwhiten(torch.eye(60))
        covariances.append((draws.mT @ draws).abs() > 1e-6)
    sizes = [np.sort(c.sum(0).numpy()) for c in covariances]
    inside = labels[:, None] == labels
    np.testing.assert_array_equal(sizes[0], np.sort(inside.sum(0).numpy()))
    np.testing.assert_array_equal(sizes[0], sizes[1])
    assert not torch.equal(covariances[0], inside)
    assert not torch.equal(covariances[0], covariances[1])


@pytest.mark.float32
def test_the_true_start_has_its_atoms_on_the_planes():
    where = modadd_where()
    pair = at_truth(l1_pair(where, 1), where.slots)
    count = where.slots.each * where.found.count
    shares = where.found.planarity(pair.W_dec[:count]).amax(-1)
    torch.testing.assert_close(shares, torch.ones_like(shares), atol=1e-5, rtol=0)
    size = pair.model.decoder.norm.size(pair.model.decoder.layer_norms())
    torch.testing.assert_close(size, torch.ones_like(size))
    done = MODADD_ARMS["blocks"][1](where)
    assert list(done) == [FOUND, TRUE]
    assert [[one.seed for one in found] for found in done.values()] == [[1, 2], [1, 2]]


# The causal probe


@given(st.integers(0, 2**31))
@hypothesis(max_examples=40)
def test_token_f1_against_loops(seed):
    fires = torch.rand(30, 4, generator=generator(seed)) < 0.3
    tokens = torch.randint(5, (30,), generator=generator(seed + 1))
    found, token = token_f1(fires, tokens, 5)
    for k in range(4):
        scores = []
        for t in range(5):
            hits = int((fires[:, k] & (tokens == t)).sum())
            total = int(fires[:, k].sum()) + int((tokens == t).sum())
            scores.append(2 * hits / total if total else 0.0)
        assert found[k] == pytest.approx(max(scores))
        assert scores[int(token[k])] == pytest.approx(max(scores))


def test_partners_are_free_each_once_and_of_near_frequency():
    rate = torch.logspace(-3, -0.5, 40, dtype=torch.float64)
    asked = torch.tensor([3, 10, 30])
    free = torch.ones(40, dtype=torch.bool)
    free[asked] = False
    found = partners(asked, rate, free, seed=0)
    assert len(set(found.tolist())) == 3
    assert not set(found.tolist()) & set(asked.tolist())
    assert int((found - asked).abs().max()) <= 5
    draws = {tuple(partners(asked, rate, free, seed=s).tolist()) for s in range(20)}
    assert len(draws) > 5


@pytest.mark.parametrize("preset", ["l1", "topk"])
def test_swapped_has_the_latents_lengths_and_the_others_direction(preset):
    torch.manual_seed(0)
    pair = l1_crosscoder((4, 4), 12, l1=1.0) if preset == "l1" else topk_crosscoder((4, 4), 12, k=5)
    x = normal(1, 30, 2, 4)
    latent, other = int(pair.encode(x).count_nonzero(0).argmax()), 7
    took = x - ablation(pair, [latent])(x)
    instead = x - swapped(pair, latent, other)(x)
    torch.testing.assert_close(instead.norm(dim=-1), took.norm(dim=-1))
    fires = pair.encode(x)[:, latent] != 0
    assert 0 < int(fires.sum()) < 30
    atoms = pair.W_dec.detach()[other].view(2, 4)
    cosine = torch.nn.functional.cosine_similarity(instead[fires], atoms, dim=-1)
    torch.testing.assert_close(cosine, torch.ones_like(cosine))
    assert float(instead[~fires].abs().max()) < 1e-12


# Rules


def layered_rows(*, gain=0.1, l0=2.0, failed=()):
    rows = []
    for job in layered_jobs(LayeredSettings(cases=("turning", TWO_MODELS)), (0, 1, 2)):
        row = {"case": job.where.case, "arm": job.arm, "models": [], "seconds": 1.0}
        row |= {"failed": "nan" if job.arm in failed else None}
        for seed in (0, 1, 2):
            better = gain * (1 + 0.01 * seed) if job.arm == "v-graph" else 0.0
            own = {"seed": seed, "l0": 2.0, "ev": 0.5 + 0.1 * seed, "dead": 0.0}
            own |= {"mcc": 0.7 + 0.05 * seed + better, "mcc_layers": 0.9, "presence_f1": None}
            own |= {"false_exclusive": 0.1, "missed_exclusive": 0.0, "angle_error": 1.0}
            if job.arm == "v-shuffled":
                own["l0"] = l0
            row["models"].append(own)
        rows.append(row)
    return rows


def layered_chosen():
    return Settings(layered=LayeredSettings(cases=("turning", TWO_MODELS)))


def said_of(findings, start):
    (found,) = [sentence for sentence in findings if sentence.startswith(start)]
    return found


def test_the_toys_sentences_follow_the_numbers():
    versus = "True features found (MCC), variational, true graph against variational, graph"
    found = said_of(layered_findings(layered_chosen(), layered_rows()), versus)
    assert found.count("**better**") == 2
    assert "missed" not in found
    worse = layered_findings(layered_chosen(), layered_rows(gain=-0.1))
    assert said_of(worse, versus).count("**worse**") == 2
    tied = layered_findings(layered_chosen(), layered_rows(gain=0.0))
    assert said_of(tied, versus).count("**the same**") == 2
    late = layered_findings(layered_chosen(), layered_rows(l0=2.3))
    assert said_of(late, versus).count("target L0 missed by variational, graph shuffled") == 2
    without = layered_findings(layered_chosen(), layered_rows(failed=("v-graph",)))
    assert not [sentence for sentence in without if sentence.startswith(versus)]
    assert any("greatest mean MCC on turning is that of variational, true" in s for s in
               layered_findings(layered_chosen(), layered_rows()))  # fmt: skip
    assert sum(s.startswith("Two models") for s in worse) == 2
    assert layered_findings(layered_chosen(), []) == []


def test_the_toys_tables_have_an_arm_a_line():
    tables = layered_tables(layered_chosen(), layered_rows(failed=("graph",)))
    arms = [row["arm"] for row in tables["layered_found"].rows if row["case"] == "turning"]
    assert len(arms) == len(LAYERED_ARMS) + 2 - 1
    assert {row["case"] for row in tables["layered_where"].rows} == {"turning"}
    assert {row["case"] for row in tables["layered_diff"].rows} == {TWO_MODELS}
    (line,) = [
        row
        for row in tables["layered_differences"].rows
        if (row["case"], row["arm"], row["minus"])
        == ("turning", "variational, true graph", "variational, graph shuffled")
    ]
    assert line["MCC"].mean == pytest.approx(0.101)
    assert all(not table.rows for table in layered_tables(layered_chosen(), [])
               .values() if table.title[0] != "P")  # fmt: skip


def modadd_rows(*, gain=0.1, planarity=0.8):
    rows = []
    for job in modadd_jobs(ModAddSettings(networks=("two-blocks",)), (0, 1, 2)):
        row = {"network": "two-blocks", "arm": job.arm, "failed": None, "seconds": 1.0}
        row["models"] = []
        starts = (FOUND, TRUE)
        if job.arm in ("topk", "batch_topk"):
            starts = ("random",)
        if job.arm == CHANCE:
            starts = ("random data points",)
            row["planes"] = [{"of": "sum", "frequency": 3, "shares": [0.1, 0.4]}]
        for seed in (0, 1, 2):
            for start in starts:
                better = gain * (1 + 0.01 * seed) if job.arm == "blocks" else 0.0
                value = 0.5 if job.arm == CHANCE else planarity + better
                own = {"start": start, "seed": seed, "planarity": value + 0.03 * seed}
                own |= {"in_plane": 0.1, "consistent": 0.3, "consistent_dealt": 0.1}
                own |= {} if job.arm == CHANCE else {"l0": 12.0 if job.arm == "rings" else 16.0}
                row["models"].append(own | {"planarity_layers": [0.5, None]})
        rows.append(row)
    return rows


def test_the_networks_sentences_follow_the_numbers():
    chosen = Settings(modadd=ModAddSettings(networks=("two-blocks",)))
    found = modadd_findings(chosen, modadd_rows())
    versus = "variational, true blocks against variational, blocks shuffled, from ℓ1 run"
    assert "planarity: **better**" in said_of(found, versus)
    assert "in a plane: **the same**" in said_of(found, versus)
    worse = modadd_findings(chosen, modadd_rows(gain=-0.1))
    assert "planarity: **worse**" in said_of(worse, versus)
    data = said_of(found, "two-blocks: planarity against random data points")
    assert "better: " in data
    assert "ℓ1" in data.split("better: ")[1]
    low = modadd_findings(chosen, modadd_rows(gain=0.0, planarity=0.2))
    assert "worse: " in said_of(low, "two-blocks: planarity against random data points")
    assert "0.2" in said_of(found, "two-blocks: share of latents with one plane")
    late = said_of(found, "The target of L0, 16, was missed by")
    assert late.count("variational, true rings from") == 2
    assert "true blocks" not in late
    tables = modadd_tables(chosen, modadd_rows())
    assert len(tables["modadd_scores"].rows) == 1 + 2 + 2 * (len(MODADD_ARMS) - 2)
    assert tables["modadd_layers"].rows[0]["layer 2"] is None
    assert tables["modadd_planes"].rows[0]["layer 2"] == 0.4
    assert modadd_findings(chosen, []) == []


def probe_row(*, swap=0.5, failed=None):
    lines = []
    for latent in range(6):
        for kind in (ASKED, OTHER, SWAPPED):
            factor = {ASKED: 1.0, OTHER: 2.0 ** (-1) ** latent, SWAPPED: swap}[kind]
            own = {"kind": kind, "pair": latent, "latent": latent, "rows": 5, "rate": 0.1}
            own |= {"f1": 0.5, "token": "a", "kl": [factor * (latent + 1.0)] * 2, "ce": [0.1, 0.2]}
            own |= {"cosine": [[1.0, 0.6], [None, 1.0]], "carried": [[1.0, 0.5], [None, 1.0]]}
            lines.append(own | {"needed": [0.5, 0.5]})
    lines.append({"kind": ASKED, "pair": 6, "latent": 6, "rows": 0})  # never fired on held-out rows
    return {"arm": "l1", "failed": failed, "ev": 0.5, "l0": 16.0, "seconds": 1.0, "models": lines}


def test_the_probes_sentences_follow_the_numbers():
    row = probe_row()
    assert log_ratios(row, SWAPPED, 0).mean == pytest.approx(math.log10(2))
    found = probe_findings(Settings(), [row])
    direction = "Is it the latent's direction that matters (ℓ1)?"
    assert said_of(found, direction).count("**more** (KL times 2)") == 2
    assert said_of(found, "Do latents of tokens").count("**undecided**") == 2
    less = probe_findings(Settings(), [probe_row(swap=4.0)])
    assert said_of(less, direction).count("**less**") == 2
    assert "0.6" in said_of(found, "Without a latent of a token")
    assert probe_findings(Settings(), [probe_row(failed="nan")]) == []
    tables = probe_tables(Settings(), [row])
    assert [line["latents"] for line in tables["probe_effects"].rows] == [6, 6, 6]
    assert tables["probe_carried"].rows[0]["cosine"].mean == pytest.approx(0.6)


# The run


@pytest.mark.float32
@pytest.mark.parametrize("part", ["layered", "modadd", "probe"])
def test_the_smoke_run_of_each_part_and_its_cache(part, tmp_path, capsys):
    options = ["--part", part, "--smoke", "--threads", "1", "--out", str(tmp_path), "--json"]
    assert part4.main(options) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["findings"][part]
    assert first["failed"] == []
    assert all(name.startswith(part) for name in first["tables"])
    assert len(first["figures"]) >= 1
    kept = {path.name for path in (tmp_path / "jobs").iterdir()}
    assert part4.main(options) == 0  # all of it from the folder
    again = json.loads(capsys.readouterr().out)
    assert again["models"]["found"] == again["models"]["all"]
    assert again["tables"] == first["tables"]
    assert {path.name for path in (tmp_path / "jobs").iterdir()} == kept
