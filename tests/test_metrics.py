"""Metrics against their definitions written out, and against cases worked by hand."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vsae import metrics
from vsae.errors import DataError

seeds = st.integers(0, 2**31)


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(seeds)
def test_reconstruction(seed):
    x, mean = normal(seed, 2, 9, 4)
    a, b = x.numpy(), mean.numpy()
    assert metrics.mse(x, mean).item() == pytest.approx(np.mean((a - b) ** 2), rel=1e-13)
    ev = 1 - ((a - b) ** 2).sum() / ((a - a.mean(0)) ** 2).sum()
    assert metrics.explained_variance(x, mean).item() == pytest.approx(ev, rel=1e-12, abs=1e-12)
    assert metrics.explained_variance(x, x).item() == 1
    centre = x.mean(0).expand(9, 4)
    assert metrics.explained_variance(x, centre).item() == pytest.approx(0, abs=1e-13)


@given(seeds)
def test_activity(seed):
    codes = normal(seed, 9, 6).relu() * (normal(seed + 1, 6) > 0)
    c = codes.numpy()
    assert metrics.l0(codes).item() == pytest.approx((c > 0).sum() / 9)
    assert metrics.dead_fraction(codes).item() == pytest.approx(np.mean([not any(k) for k in c.T]))
    np.testing.assert_allclose(metrics.activation_frequency(codes), (c > 0).mean(0), rtol=1e-14)
    values = [k[k > 0].mean() if any(k > 0) else 0.0 for k in c.T]
    np.testing.assert_allclose(metrics.activation_value(codes), values, rtol=1e-13)
    # density is mean frequency, and death is something else
    density = metrics.activation_frequency(codes).mean() * 6
    torch.testing.assert_close(density, metrics.l0(codes))


def test_a_rare_latent_is_not_dead():
    codes = torch.zeros(1000, 2)
    codes[3, 0] = 1.0
    assert metrics.dead_fraction(codes).item() == 0.5
    assert 1 - metrics.activation_frequency(codes).mean().item() == 0.9995


def test_thresholds_count_signed_codes():
    codes = torch.tensor([[-2.0, 0.1, 0.0]])
    assert metrics.l0(codes).item() == 2
    assert metrics.l0(codes, threshold=0.5).item() == 1


def test_replicas_are_measured_one_by_one():
    codes = torch.randn(3, 20, 5).relu()
    for r in range(3):
        torch.testing.assert_close(metrics.l0(codes)[r], metrics.l0(codes[r]))
        torch.testing.assert_close(metrics.dead_fraction(codes)[r], metrics.dead_fraction(codes[r]))


def test_active_units_compare_signal_with_noise():
    mean = torch.stack([normal(0, 500), 0.01 * normal(1, 500)], -1)
    assert metrics.active_units(mean, torch.full((500, 2), 0.1)).item() == 1
    assert metrics.active_units(1e6 * mean, torch.full((500, 2), 0.1e12)).item() == 1  # any units
    assert metrics.active_units(mean, torch.zeros(500, 2)).item() == 2  # a point


@given(seeds, st.integers(1, 5), st.integers(1, 5))
def test_mcc_is_the_best_of_all_matchings(seed, latents, features):
    atoms, truth = normal(seed, latents, 3), normal(seed + 1, features, 3)
    a, f = (v / v.norm(dim=-1, keepdim=True) for v in (atoms, truth))
    cosine = (a @ f.T).abs()
    if latents > features:
        cosine = cosine.T
    few, many = cosine.shape
    best = max(
        np.mean([cosine[i, p[i]].item() for i in range(few)])
        for p in itertools.permutations(range(many), few)
    )
    assert metrics.mean_correlation_coefficient(atoms, truth) == pytest.approx(best, rel=1e-12)


def test_mcc_ignores_sign_scale_and_order():
    features = normal(0, 10, 16)
    moved = -3.0 * features[torch.randperm(10)]
    assert metrics.mean_correlation_coefficient(moved, features) == pytest.approx(1)
    assert metrics.uniqueness(moved, features) == 1
    assert metrics.uniqueness(features[:1].expand(10, -1), features) == 0.1
    assert metrics.mean_correlation_coefficient(normal(42, 10, 256), normal(43, 10, 256)) < 0.3


def test_latent_f1_by_hand():
    features = torch.eye(2)
    atoms = torch.tensor([[1.0, 0.1], [0.1, -1.0]])  # matched to 0 and to 1
    truth = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    codes = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    found = metrics.latent_f1(atoms, features, codes, truth)
    # latent 0: one hit, one false alarm, one miss; latent 1: undefined, hence 0
    assert found.precision == 0.25
    assert found.recall == 0.25
    assert found.f1 == 0.25


def test_absorption_of_the_exact_absorbed_solution():
    """True orthonormal parent p and child c; latent 0 fires on p without c, latent 1 = p + c."""
    parent, child = torch.eye(3)[0], torch.eye(3)[1]
    atoms = torch.stack([parent, (parent + child) / math.sqrt(2)])
    x = torch.stack([parent, parent + child, 2 * parent + child])
    codes = torch.tensor([[1.0, 0.0], [0.0, math.sqrt(2)], [1.0, math.sqrt(2)]])
    main = torch.tensor([True, False])
    got = metrics.absorption_fraction(x, codes, atoms, parent, main)
    torch.testing.assert_close(got, torch.tensor([0.0, 1.0, 0.5]))


@given(seeds, st.integers(1, 6))
def test_retrieval_against_loops(seed, k):
    scores, relevance = normal(seed, 7, 7), (normal(seed + 1, 7, 7) * 2).round().clamp(min=0)
    ndcg, precision = [], []
    for n in range(7):
        others = [j for j in range(7) if j != n]
        ranked = sorted(others, key=lambda j: -scores[n, j])[:k]
        gains = [relevance[n, j].item() for j in ranked]
        ideal = sorted((relevance[n, j].item() for j in others), reverse=True)[:k]
        dcg, best = (sum(g / math.log2(r + 2) for r, g in enumerate(v)) for v in (gains, ideal))
        ndcg.append(dcg / best if best else 0.0)
        precision.append(sum(g > 0 for g in gains) / k)
    np.testing.assert_allclose(metrics.ndcg_at_k(scores, relevance, k=k), ndcg, rtol=1e-12)
    np.testing.assert_allclose(metrics.precision_at_k(scores, relevance, k=k), precision)


def test_chance_of_a_random_ranking():
    """Mean precision of random scores is mean(#relevant) / (N - 1); z < 4.5."""
    relevance = (normal(0, 400, 400) > 1).double().fill_diagonal_(0)
    got = metrics.precision_at_k(normal(1, 400, 400), relevance, k=20)
    chance = relevance.sum(-1).mean() / 399
    assert abs(got.mean() - chance) < 4.5 * got.std() / 20


def test_recovered_losses():
    assert metrics.loss_recovered(clean=2.0, replaced=2.0, ablated=6.0) == 1
    assert metrics.loss_recovered(clean=2.0, replaced=6.0, ablated=6.0) == 0
    assert metrics.kl_recovered(replaced=0.0, ablated=4.0) == 1


@pytest.mark.parametrize("call", [metrics.l0, metrics.dead_fraction, metrics.activation_value])
def test_no_rows(call):
    with pytest.raises(DataError) as caught:
        call(torch.zeros(0, 3))
    assert caught.value.code == "data.empty"


def test_impossible_rankings():
    for k in (0, 4):
        with pytest.raises(DataError) as caught:
            metrics.precision_at_k(torch.eye(4), torch.eye(4), k=k)
        assert caught.value.code == "retrieval.shape"


def test_sums_are_in_float64():
    """Ten million float32 terms: a float32 sum would be off in the third digit."""
    x = torch.full((1_000_000, 10), 0.1, dtype=torch.float32)
    mean = torch.zeros(1, dtype=torch.float32).expand(1_000_000, 10)
    assert metrics.mse(x, mean).item() == pytest.approx(np.float64(np.float32(0.1)) ** 2, rel=1e-12)
