"""Redundancy over all pairings of tiny views, and absorption on exact solutions."""

import itertools
import math

import numpy as np
import pytest
import torch
from hierarchy_oracles import normal, sparse_codes, uniform
from hypothesis import given, settings
from hypothesis import strategies as st

from vsae import metrics
from vsae.errors import ConfigError, DataError, ShapeError
from vsae.metrics.absorbing import fully_absorbed

seeds = st.integers(0, 2**31)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def sets_by_hand(codes, k):
    sets = []
    for row in codes.tolist():
        order = sorted(range(len(row)), key=lambda j: (-abs(row[j]), j))[:k]
        sets.append({j for j in order if row[j] != 0})
    return sets


@given(seeds, st.integers(1, 5), st.integers(1, 4))
@settings(max_examples=120)
def test_redundancy_over_all_pairings(seed, items, k):
    """Observed by loops over sets; mean and standard deviation over all N! pairings."""
    first, second = ((sparse_codes(seed + s, items, 6) * 2).round() for s in (0, 10))
    found = metrics.redundancy(first, second, k=k)
    one, other = sets_by_hand(first, k), sets_by_hand(second, k)
    means = [
        np.mean([len(one[n] ^ other[m]) for n, m in enumerate(order)])
        for order in itertools.permutations(range(items))
    ]
    assert found.difference == pytest.approx(means[0], abs=1e-12)
    assert found.chance == pytest.approx(np.mean(means), abs=1e-12)
    assert found.chance_std == pytest.approx(np.std(means), abs=1e-7)
    assert found.shared == pytest.approx(
        np.mean([len(a & b) for a, b in zip(one, other, strict=True)]), abs=1e-12
    )
    n1, n2 = ([sum(j in s for s in view) for j in range(6)] for view in (one, other))
    by_counts = sum(a * b for a, b in zip(n1, n2, strict=True)) / items**2
    assert found.shared_chance == pytest.approx(by_counts, abs=1e-12)
    assert found.sizes == pytest.approx((sum(n1) / items, sum(n2) / items))
    if found.chance > 0:
        assert found.normalised == pytest.approx(means[0] / np.mean(means))


def test_redundancy_ignores_names_signs_and_scale():
    first, second = normal(0, 30, 40), normal(1, 30, 40)
    order, sign = torch.randperm(40, generator=generator()), normal(3, 40).sign()
    one = metrics.redundancy(first, second)
    other = metrics.redundancy(3 * (first * sign)[:, order], 5 * (second * sign)[:, order])
    assert (other.difference, other.normalised) == (one.difference, one.normalised)
    assert other.chance_std == pytest.approx(one.chance_std)
    assert one.sizes == (8.0, 8.0)


def test_equal_codes_count_in_order():
    """300 equal codes: the first 8, so that two such views agree, and so does any that has them."""
    first = torch.zeros(2, 300)
    first[:, :8] = 1.0
    assert metrics.redundancy(torch.ones(2, 300), first).difference == 0.0


def test_views_that_say_nothing_of_each_other_are_at_chance():
    found = metrics.redundancy(normal(0, 400, 60), normal(1, 400, 60))
    assert abs(found.difference - found.chance) < 4.5 * found.chance_std
    assert found.chance_std > 0


def test_coarse_latents_lower_the_difference_but_not_the_normalised_one():
    """E-C13: always-on latents shrink |S1 △ S2|, and chance with it."""
    fine = metrics.redundancy(normal(0, 300, 60), normal(1, 300, 60))
    coarse = torch.full((300, 6), 100.0)
    first, second = (torch.cat([coarse, normal(s, 300, 60)], 1) for s in (0, 1))
    found = metrics.redundancy(first, second)
    assert found.difference < 0.4 * fine.difference
    assert abs(found.normalised - 1) < 4.5 * found.chance_std / found.chance


def test_views_with_few_or_no_codes(monkeypatch):
    silent = torch.zeros(4, 6)
    found = metrics.redundancy(silent, silent, k=3)
    assert (found.difference, found.chance, found.sizes) == (0.0, 0.0, (0.0, 0.0))
    assert math.isnan(found.normalised)
    first, second = sparse_codes(0, 7, 6), sparse_codes(9, 7, 6)
    whole = metrics.redundancy(first, second, k=3)
    monkeypatch.setattr("vsae.metrics.views.BLOCK", 1)
    parts = metrics.redundancy(first, second, k=3)
    assert parts.chance == pytest.approx(whole.chance, rel=1e-13)
    assert parts.chance_std == pytest.approx(whole.chance_std, rel=1e-10)


def absorbed(child_rate, rows=400):
    """Orthonormal p and c, c only with p: latents p without c, and p + c; exact, one code less."""
    on = uniform(0, rows) < 0.5
    child = on & (uniform(1, rows) < child_rate)
    features = torch.eye(3)[:2]
    truth = torch.stack([on, child], -1).double()
    codes = torch.stack([on & ~child, child], -1).double()
    atoms = torch.stack([features[0], features.sum(0)])
    assert torch.equal(codes @ atoms, truth @ features)
    return truth @ features, codes, atoms, truth, features


def test_the_exact_true_solution_absorbs_nothing():
    x, _, _, truth, features = absorbed(0.4)
    found = metrics.absorption(x, truth, features, truth, features, generator=generator())
    assert found.fraction.tolist() == found.full.tolist() == [0.0, 0.0]
    assert found.f1.tolist() == [1.0, 1.0]
    assert found.main.tolist() == [[True, False], [False, True]]
    assert found.rows.tolist() == truth.sum(0).tolist()
    assert (found.mean_fraction, found.mean_full) == (0.0, 0.0)


@pytest.mark.parametrize("child_rate", [0.05, 0.2, 0.45])
def test_the_exact_absorbed_solution_scores_the_childs_rate(child_rate):
    """Fraction and full absorption of the parent are P(c | p); its recall is 1 - P(c | p)."""
    x, codes, atoms, truth, features = absorbed(child_rate)
    found = metrics.absorption(x, codes, atoms, truth, features, generator=generator())
    rate = float(truth[:, 1].sum() / truth[:, 0].sum())
    assert found.fraction.tolist() == pytest.approx([rate, 0.0])
    assert found.full.tolist() == pytest.approx([rate, 0.0])
    half = truth[200:]
    recall = 1 - float(half[:, 1].sum() / half[:, 0].sum())
    assert found.f1.tolist() == pytest.approx([2 * recall / (1 + recall), 1.0])
    assert found.mean_fraction == pytest.approx(rate / 2)
    scaled = torch.tensor([3.0, 0.2])
    same = metrics.absorption(
        x, codes / scaled, scaled[:, None] * atoms, truth, features, generator=generator()
    )
    torch.testing.assert_close(same.fraction, found.fraction)
    torch.testing.assert_close(same.full, found.full)


def test_one_column_is_the_published_rule_which_frequent_children_pass():
    """Alone, F1 jumps when p + c joins: it counts as the parent's own. A rare child's does not."""
    scores = {}
    for rate in (0.4, 0.03):
        x, codes, atoms, truth, features = absorbed(rate)
        alone = metrics.absorption(
            x, codes, atoms, truth[:, :1], features[:1], generator=generator()
        )
        scores[rate] = alone.fraction.item()
        assert alone.main.sum() == (2 if rate == 0.4 else 1)
    assert scores[0.4] == 0.0
    assert scores[0.03] > 0.0


def test_partial_absorption_is_not_full():
    """The parent's own latent stays on at a tenth: fraction .9 on the child's rows, full 0."""
    x, codes, atoms, truth, features = absorbed(0.3)
    codes = torch.stack([truth[:, 0] - 0.9 * truth[:, 1], truth[:, 1]], -1)
    atoms = torch.stack([features[0], 0.9 * features[0] + features[1]])
    torch.testing.assert_close(codes @ atoms, x)
    found = metrics.absorption(x, codes, atoms, truth, features, generator=generator())
    rate = float(truth[:, 1].sum() / truth[:, 0].sum())
    assert found.fraction[0].item() == pytest.approx(0.9 * rate)
    assert found.full[0].item() == 0.0


def test_chance_of_absorption_over_all_dealings_of_directions():
    """Means over all 3! dealings of the other latents' atoms; z < 4.5 over 400 draws."""
    x, codes, atoms, truth, features = absorbed(0.3)
    codes = torch.cat([codes, (uniform(5, 400, 2) < 0.3).double()], -1)
    atoms = torch.cat([atoms, torch.eye(3)[1:]])
    found = metrics.absorption(x, codes, atoms, truth, features, generator=generator(), draws=400)
    assert found.main[0].tolist() == [True, False, False, False]
    means = []
    for order in itertools.permutations((1, 2, 3)):
        dealt = torch.nn.functional.normalize(atoms[[0, *order]], dim=-1)
        rows = truth[:, 0] > 0
        sized = codes[rows] * atoms.norm(dim=-1)
        part = metrics.absorption_fraction(x[rows], sized, dealt, features[0], found.main[0])
        means.append(part.mean().item())
    error = 4.5 * np.std(means) / math.sqrt(400)
    assert abs(found.chance_fraction[0].item() - np.mean(means)) < error
    assert found.fraction[0].item() > found.chance_fraction[0].item()


def test_full_absorption_by_hand():
    """Absorbed; main on; share .3; nearly across; a negative projection; carried by a negative."""
    cosine = torch.tensor([1.0, 0.7, 0.02, -0.5])
    codes = torch.zeros(6, 4)
    codes[0, 1] = codes[1, 0] = codes[1, 1] = 1.0
    codes[2, 1], codes[3, 2], codes[5, 3] = 0.3 / 0.7, 50.0, -1.0
    projection = torch.tensor([1.0, 1.0, 1.0, 1.0, -1.0, 1.0])
    main = torch.tensor([True, False, False, False])
    got = fully_absorbed(projection, codes, cosine, main)
    # the last has a share of .5 but its direction is none of the feature's: cos < .025
    assert got.tolist() == [True, False, False, False, False, False]


def test_features_that_cannot_be_probed_are_undefined():
    x, codes, atoms, truth, features = absorbed(0.3)
    truth = torch.cat([truth, torch.zeros(400, 1), torch.ones(400, 1), truth[:, :1]], -1)
    truth[200:, 4] = 0.0  # on in the first half only
    features = torch.cat([features, torch.eye(3)])
    found = metrics.absorption(x, codes, atoms, truth, features, generator=generator())
    for field in (found.fraction, found.full, found.f1, found.chance_fraction):
        assert field.isnan().tolist() == [False, False, True, True, True]
    assert not found.main[2:].any()
    assert found.mean_fraction == pytest.approx(found.fraction[:2].mean().item())
    dead = metrics.absorption(
        x, 0 * codes, atoms, truth[:, :2], features[:2], generator=generator()
    )
    assert dead.fraction.tolist() == dead.f1.tolist() == [0.0, 0.0]  # missed, not absorbed


def test_a_split_feature_has_two_main_latents():
    """Two latents of one feature, each on half of its rows: F1 jumps from 2/3 to 1, then stops."""
    present = uniform(0, 400) < 0.5
    side = uniform(1, 400) < 0.5
    codes = torch.stack([present & side, present & ~side, uniform(2, 400) < 0.3], -1).double()
    found = metrics.main_latents(codes, present)
    assert sorted(found.latents.tolist()) == [0, 1]
    assert found.f1[1] == 1.0
    recall = float((codes[200:, found.latents[0]]).sum() / present[200:].sum())
    assert found.f1[0] == pytest.approx(2 * recall / (1 + recall))
    assert metrics.main_latents(codes, present, limit=1).latents.shape == (1,)
    assert metrics.main_latents(codes, present, jump=0.9).latents.shape == (1,)


@given(seeds)
@settings(max_examples=60)
def test_one_latent_probes_against_every_threshold(seed):
    """Best correlated latent by numpy; the cut of the best F1 on one half, scored on the other."""
    present = uniform(seed, 24) < 0.5
    codes = (sparse_codes(seed + 1, 24, 4) * 2).round() + present[:, None] * uniform(seed + 2, 4)
    codes = codes * (uniform(seed + 3, 24, 4) < 0.7)
    found = metrics.main_latents(codes, present, limit=1)
    y, z = present.numpy(), codes.abs().numpy()
    if not (y[:12].any() and not y[:12].all() and y[12:].any()):
        assert found.latents.shape == (0,)
        return
    with np.errstate(invalid="ignore", divide="ignore"):
        r = [np.corrcoef(z[:12, k], y[:12])[0, 1] for k in range(4)]
    r = np.nan_to_num(r)
    if max(r) <= 1e-12:
        assert max(r) < 1e-9
        return
    assert r[found.latents.item()] == pytest.approx(max(r))
    value = codes[:, found.latents.item()].numpy()
    if np.cov(value[:12], y[:12])[0, 1] < 0:
        value = -value
    cuts = sorted(set(value[:12]), reverse=True)
    scores = [f1(value[:12] >= cut, y[:12]) for cut in cuts]
    best = [i for i, s in enumerate(scores) if s >= max(scores) - 1e-12]
    middle = [(cuts[i] + cuts[i + 1]) / 2 if i + 1 < len(cuts) else -math.inf for i in best]
    possible = [f1(value[12:] >= cut, y[12:]) for cut in middle]
    assert any(found.f1[0] == pytest.approx(p) for p in possible)


def f1(guess, truth):
    return 2 * (guess & truth).sum() / (guess.sum() + truth.sum())


def test_main_latents_ignore_scale_and_order():
    present = uniform(0, 200) < 0.4
    codes = sparse_codes(1, 200, 12) + present[:, None] * uniform(2, 12) * 2
    one = metrics.main_latents(codes, present)
    order, scale = torch.randperm(12, generator=generator()), uniform(3, 12) + 0.1
    other = metrics.main_latents((codes * scale)[:, order], present)
    assert order[other.latents].tolist() == one.latents.tolist()
    assert other.f1 == pytest.approx(one.f1)


X, CODES, ATOMS = normal(0, 20, 4), sparse_codes(1, 20, 6), normal(2, 6, 4)
ON, FEATURES = (uniform(3, 20, 3) < 0.5).double(), normal(4, 3, 4)


def absorption(x=X, codes=CODES, atoms=ATOMS, on=ON, features=FEATURES, draws=1, jump=0.03):
    return metrics.absorption(
        x, codes, atoms, on, features, generator=generator(), draws=draws, jump=jump
    )


WRONG = {
    "codes": lambda: absorption(codes=CODES[1:]),
    "atoms": lambda: absorption(atoms=ATOMS[1:]),
    "truth": lambda: absorption(on=ON[:, 1:]),
    "features": lambda: absorption(features=FEATURES[:, 1:]),
    "second": lambda: metrics.redundancy(CODES, CODES[:, 1:], k=2),
    "present": lambda: metrics.main_latents(CODES, ON[1:, 0] > 0),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_shapes(name):
    with pytest.raises(ShapeError) as caught:
        WRONG[name]()
    assert caught.value.code == "hierarchy.shape"
    assert caught.value.context["name"] == name


IMPOSSIBLE = {
    "k": lambda: metrics.redundancy(CODES, CODES, k=7),
    "draws": lambda: absorption(draws=0),
    "jump": lambda: absorption(jump=-0.1),
    "limit": lambda: metrics.main_latents(CODES, ON[:, 0] > 0, limit=0),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_settings_that_cannot_be_meant(name):
    with pytest.raises(ConfigError) as caught:
        IMPOSSIBLE[name]()
    assert caught.value.code == "hierarchy.setting"
    assert name in caught.value.context


def test_non_finite_or_no_rows():
    bad = X.clone()
    bad[2, 1] = math.inf
    for call, code in (
        (lambda: absorption(x=bad), "data.nonfinite"),
        (lambda: metrics.redundancy(bad, X, k=2), "data.nonfinite"),
        (lambda: metrics.redundancy(X[:0], X[:0], k=2), "data.empty"),
    ):
        with pytest.raises(DataError) as caught:
            call()
        assert caught.value.code == code
