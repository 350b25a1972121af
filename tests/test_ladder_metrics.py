"""Read-outs of levels beside their null models, against loops in numpy."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator

from vsae import metrics
from vsae.errors import VsaeError

CLUSTERS, PER, ROWS = 4, 3, 400


def source(seed=0):
    return Generator().manual_seed(seed)


def nested(seed=0):
    """Rows of one coarse cluster each, in which some of its fine latents fire, noisily."""
    generator = source(seed)
    cluster = torch.randint(CLUSTERS, (ROWS,), generator=generator)
    coarse = torch.nn.functional.one_hot(cluster, CLUSTERS).double()
    allowed = coarse.repeat_interleave(PER, 1)
    fires = (torch.rand(ROWS, CLUSTERS * PER, generator=generator) < 0.6) * allowed
    return fires * torch.rand(fires.shape, generator=generator, dtype=torch.float64), coarse


LABELS = torch.arange(CLUSTERS).repeat_interleave(PER)


def test_correlations_are_numpys_and_nan_where_nothing_varies():
    codes = torch.randn(50, 6)
    codes[:, 2] = 3.0
    found = metrics.code_correlations(codes)
    kept = [0, 1, 3, 4, 5]
    expected = np.corrcoef(codes[:, kept].numpy().T)
    torch.testing.assert_close(found[kept][:, kept], torch.as_tensor(expected))
    assert found[2].isnan().all()
    assert found[:, 2].isnan().all()


def score_by_loops(correlations, labels):
    within, between = [], []
    for i, j in itertools.permutations(range(len(labels)), 2):
        if math.isfinite(correlations[i, j]):
            (within if labels[i] == labels[j] else between).append(correlations[i, j])
    return np.mean(within) - np.mean(between)


def test_the_block_score_is_its_loop_and_beats_dealt_labels():
    codes, _ = nested()
    codes[:, 5] = 0.0  # a dead latent
    correlations = metrics.code_correlations(codes)
    found = metrics.block_score(correlations, LABELS, generator=source())
    expected = score_by_loops(correlations.numpy(), LABELS.numpy())
    assert found.value == pytest.approx(expected, rel=1e-12)
    assert found.beyond
    assert found.value > found.null_high
    assert abs(found.null_mean) < 0.05


def test_the_null_of_the_block_score_is_that_of_all_dealings():
    """Six latents in two clusters: all 720 dealings, against the sampled null."""
    correlations = metrics.code_correlations(torch.randn(12, 6))
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    dealings = [
        score_by_loops(correlations.numpy(), np.array(deal))
        for deal in itertools.permutations(labels.tolist())
    ]
    found = metrics.block_score(correlations, labels, generator=source(), draws=4000)
    assert np.mean(dealings) == pytest.approx(0.0, abs=1e-12)
    assert abs(found.null_mean) < 5 * np.std(dealings) / 4000**0.5
    low, high = np.quantile(dealings, [0.025, 0.975])
    assert np.mean([low <= d <= high for d in dealings]) >= 0.95
    inside = [found.null_low <= d <= found.null_high for d in dealings]
    assert 0.9 < np.mean(inside) <= 1.0


@given(
    st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 3)), min_size=1, max_size=40),
    st.sampled_from([0.6, 0.8, 1.0]),
)
def test_nestedness_is_its_loop(members, share):
    fine, coarse = (torch.tensor(labels) for labels in zip(*members, strict=True))
    known = [(f, c) for f, c in members if f >= 0 and c >= 0]
    if not known:
        with pytest.raises(VsaeError):
            metrics.nestedness(fine, coarse, generator=source(), draws=20)
        return
    contained = []
    for f in {f for f, _ in known}:
        around = [c for g, c in known if g == f]
        contained.append(max(around.count(c) for c in set(around)) >= share * len(around))
    found = metrics.nestedness(fine, coarse, generator=source(), share=share, draws=20)
    assert found.value == pytest.approx(np.mean(contained))
    assert 0 <= found.null_low <= found.null_mean <= found.null_high <= 1


def test_nested_clusters_are_beyond_chance_and_others_are_not():
    fine, coarse = torch.arange(12).repeat(30), torch.arange(4).repeat_interleave(3).repeat(30)
    found = metrics.nestedness(fine, coarse, generator=source())
    assert (found.value, found.null_mean) == (1.0, 0.0)
    mixed = coarse[torch.randperm(360, generator=source(1))]
    assert not metrics.nestedness(fine, mixed, generator=source()).beyond
    alone = metrics.nestedness(torch.arange(360), coarse, generator=source())
    assert (alone.value, alone.null_mean, alone.beyond) == (1.0, 1.0, False)


def test_recruitment_is_its_loop():
    fine, coarse = nested()
    fine[:, 4] = 0.0
    coarse = torch.cat([coarse, torch.zeros(ROWS, 1)], 1)  # a dead fine and a dead coarse latent
    found = metrics.recruitment(fine, coarse, generator=source())
    for j in range(CLUSTERS):
        lifts = []
        for i in range(fine.shape[1]):
            rows = (coarse[:, j] > 0).numpy()
            given_j = (fine[:, i].numpy()[rows] > 0).mean()
            assert found.probability[i, j].item() == pytest.approx(given_j)
            rate = (fine[:, i].numpy() > 0).mean()
            if rate == 0:
                assert found.lift[i, j].isnan()
                continue
            assert found.lift[i, j].item() == pytest.approx(given_j / rate)
            lifts.append(given_j / rate)
        share = np.array(lifts) / sum(lifts)
        share = share[share > 0]
        assert found.effective[j].item() == pytest.approx(np.exp(-(share * np.log(share)).sum()))
    assert found.probability[:, CLUSTERS].isnan().all()
    assert found.effective[CLUSTERS].isnan()
    assert found.mean_effective.value == pytest.approx(found.effective[:CLUSTERS].mean().item())
    assert found.mean_effective.value < found.mean_effective.null_low
    assert found.mean_effective.null_mean > 9  # 11 fine latents fire


def test_independent_levels_recruit_everything():
    fine = (torch.rand(4000, 10) < 0.3).double()
    coarse = (torch.rand(4000, 4) < 0.3).double()
    found = metrics.recruitment(fine, coarse, generator=source())
    assert found.lift.sub(1).abs().max() < 0.25
    assert found.effective.min() > 9.9
    assert not found.mean_effective.beyond


def test_signed_codes_fire_too():
    fine, coarse = nested()
    one = metrics.recruitment(fine, coarse, generator=source())
    two = metrics.recruitment(-fine, coarse, generator=source())
    torch.testing.assert_close(one.lift, two.lift)


def test_coherence_is_the_greatest_cosine():
    atoms = torch.randn(12, 5)
    atoms[3] = 0.0
    unit = np.delete(atoms.numpy(), 3, 0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    expected = max(abs(a @ b) for a, b in itertools.combinations(unit, 2))
    found = metrics.mutual_coherence(atoms, generator=source())
    assert found.value == pytest.approx(expected)
    assert not found.beyond
    twice = metrics.mutual_coherence(torch.cat([atoms, -2 * atoms[:1]]), generator=source())
    assert twice.value == pytest.approx(1.0)
    assert twice.beyond


def test_nulls_are_reproducible_and_leave_the_global_generator_alone():
    codes, coarse = nested()
    state = torch.get_rng_state()
    found = [metrics.recruitment(codes, coarse, generator=source(3)).mean_effective for _ in "ab"]
    assert found[0] == found[1]
    assert torch.equal(state, torch.get_rng_state())


def test_a_statistic_without_signal_is_beyond_its_null_one_time_in_twenty():
    """200 independent labelings; 5 % of them outside, within 4 standard deviations."""
    correlations = metrics.code_correlations(torch.randn(30, 16))
    beyond = 0
    for seed in range(200):
        labels = torch.arange(4).repeat(4)[torch.randperm(16, generator=source(seed))]
        found = metrics.block_score(correlations, labels, generator=source(seed + 1000), draws=200)
        beyond += found.beyond
    assert abs(beyond - 10) < 4 * (200 * 0.05 * 0.95) ** 0.5 + 2  # quantiles of 200 draws: 2 more


@pytest.mark.float32
def test_read_outs_take_float32():
    codes, coarse = (part.float() for part in nested())
    correlations = metrics.code_correlations(codes)
    assert correlations.dtype == torch.float64
    assert metrics.block_score(correlations, LABELS, generator=source()).beyond
    assert metrics.recruitment(codes, coarse, generator=source()).mean_effective.beyond
    assert math.isfinite(metrics.mutual_coherence(codes[:9], generator=source()).value)


LABEL = torch.tensor([0, 0, 1])
BAD = {
    "nulls.draws": [
        lambda: metrics.nestedness(LABEL, LABEL, generator=source(), draws=19),
        lambda: metrics.mutual_coherence(torch.eye(3), generator=source(), draws=0),
    ],
    "nestedness.share": [
        lambda: metrics.nestedness(LABEL, LABEL, generator=source(), share=0.5),
        lambda: metrics.nestedness(LABEL, LABEL, generator=source(), share=1.1),
    ],
    "structure.shape": [
        lambda: metrics.nestedness(LABEL, LABEL[:2], generator=source()),
        lambda: metrics.block_score(torch.eye(4), LABEL, generator=source()),
        lambda: metrics.recruitment(torch.ones(3, 2), torch.ones(4, 2), generator=source()),
    ],
    "data.empty": [
        lambda: metrics.code_correlations(torch.zeros(1, 3)),
        lambda: metrics.recruitment(torch.zeros(3, 2), torch.ones(3, 2), generator=source()),
        lambda: metrics.mutual_coherence(torch.zeros(3, 2), generator=source()),
    ],
}


@pytest.mark.parametrize(("code", "call"), [(c, call) for c in BAD for call in BAD[c]])
def test_bad_input_is_named(code, call):
    with pytest.raises(VsaeError) as raised:
        call()
    assert raised.value.code == code
