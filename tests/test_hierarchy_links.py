"""Functional links, probes, AUC and inferred parents: loops, enumerations and exact hierarchies."""

import itertools
import math

import numpy as np
import pytest
import torch
from hierarchy_oracles import FOREST, normal, sparse_codes, uniform
from hypothesis import given, settings
from hypothesis import strategies as st

from vsae import metrics
from vsae.errors import ConfigError, DataError, ShapeError

seeds = st.integers(0, 2**31)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def gain_by_hand(x, mean, codes, atoms, child, direction):
    """1 - error with the child's amplitude along ``direction`` over error without the child."""
    with_it = without = 0.0
    for n in range(len(x)):
        z = codes[n, child]
        if z != 0:
            left = x[n] - mean[n] + z * atoms[child]
            without += float(left @ left)
            left = left - z * direction
            with_it += float(left @ left)
    return 1 - with_it / without if without else math.nan


@given(seeds)
@settings(max_examples=50)
def test_link_against_loops(seed):
    codes, atoms = sparse_codes(seed, 8, 9, 0.25), normal(seed + 2, 9, 4)
    x, bias = normal(seed + 3, 8, 4), normal(seed + 4, 4)
    mean = codes @ atoms + bias
    found = metrics.functional_link(x, mean, codes, atoms, FOREST)
    values, others, spread = [], [], []
    for child, parent in found.edges.tolist():
        values.append(gain_by_hand(x, mean, codes, atoms, child, atoms[child]))
        siblings = [s for s in range(9) if FOREST[s] == parent and s != child]
        gains = [gain_by_hand(x, mean, codes, atoms, child, atoms[s]) for s in siblings]
        others.append(np.mean(gains) if gains else math.nan)
        spread.append(np.var(gains) if gains else math.nan)
    np.testing.assert_allclose(found.values, values, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.siblings, others, rtol=1e-9, atol=1e-9)
    defined = ~np.isnan(others)
    if defined.any():
        assert found.mean == pytest.approx(np.nanmean(values), rel=1e-8)
        assert found.chance == pytest.approx(np.mean(np.array(others)[defined]), rel=1e-8)
        want = math.sqrt(np.nansum(spread)) / defined.sum()
        assert found.chance_std == pytest.approx(want, rel=1e-6, abs=1e-9)
        both = np.array(values)[defined] - np.array(others)[defined]
        assert found.excess == pytest.approx(both.mean(), rel=1e-8)


def test_chance_of_links_over_all_choices_of_siblings():
    """Families of 3 and 2: all 2³ · 1² choices of another sibling for every child."""
    parents = torch.tensor([-1, -1, 0, 0, 0, 1, 1])
    codes, atoms, x = sparse_codes(0, 20, 7), normal(1, 7, 4), normal(2, 20, 4)
    mean = codes @ atoms
    found = metrics.functional_link(x, mean, codes, atoms, parents)
    choices = [[s for s in range(7) if parents[s] == parents[c] and s != c] for c in range(2, 7)]
    means = [
        np.mean(
            [
                gain_by_hand(x, mean, codes, atoms, c, atoms[s])
                for c, s in zip(range(2, 7), choice, strict=True)
            ]
        )
        for choice in itertools.product(*choices)
    ]
    assert len(means) == 8
    assert found.chance == pytest.approx(np.mean(means), rel=1e-10)
    assert found.chance_std == pytest.approx(np.std(means), rel=1e-8)


def test_links_of_exact_and_of_idle_children():
    """Coverage is 1 for both children; one completes the reconstruction, the other adds nothing."""
    atoms = torch.eye(4)[:3].clone()
    codes = torch.tensor([[1.0, 2.0, 0.0], [1.0, 0.0, 3.0], [1.0, 0.0, 0.0]])
    x = codes @ atoms
    atoms[2] = 0.0
    x[1] = torch.eye(4)[0] + torch.eye(4)[3]  # something that no latent explains
    tree = torch.tensor([-1, 0, 0])
    assert metrics.coverage(codes, tree).conditional.values.tolist() == [1.0, 1.0]
    found = metrics.functional_link(x, codes @ atoms, codes, atoms, tree)
    assert found.values.tolist() == [1.0, 0.0]
    assert found.mean == 0.5
    only = metrics.functional_link(x, codes @ atoms, codes, atoms, torch.tensor([-1, 0, 1]))
    assert only.siblings.isnan().all()
    assert all(math.isnan(n) for n in (only.chance, only.chance_std, only.excess))
    codes[:, 1] = 0.0
    dead = metrics.functional_link(x, codes @ atoms, codes, atoms, tree)
    assert dead.values.isnan().tolist() == [True, False]
    assert dead.siblings.isnan().tolist() == [True, False]


def test_links_ignore_scale_and_blocks(monkeypatch):
    codes, atoms, x = sparse_codes(0, 20, 9), normal(1, 9, 4), normal(2, 20, 4)
    mean = codes @ atoms
    one = metrics.functional_link(x, mean, codes, atoms, FOREST)
    scale = uniform(3, 9) + 0.5
    moved = metrics.functional_link(
        7 * x, 7 * mean, 7 * codes / scale, scale[:, None] * atoms, FOREST
    )
    torch.testing.assert_close(moved.values, one.values)
    monkeypatch.setattr("vsae.metrics.links.BLOCK", 1)
    parts = metrics.functional_link(x, mean, codes, atoms, FOREST)
    torch.testing.assert_close(parts.siblings, one.siblings, equal_nan=True)
    assert parts.chance_std == pytest.approx(one.chance_std, rel=1e-12)


@given(seeds, st.integers(1, 12), st.integers(1, 4))
def test_auc_counts_pairs(seed, rows, kinds):
    """Over all pairs of a positive and a negative row; few kinds of score make ties."""
    scores = (uniform(seed, rows) * kinds).floor()
    labels = uniform(seed + 1, rows) < 0.5
    wins = [float(a > b) + 0.5 * float(a == b) for a in scores[labels] for b in scores[~labels]]
    got = metrics.auc(scores, labels)
    if not wins:
        assert math.isnan(got)
        return
    assert got == pytest.approx(np.mean(wins), rel=1e-13)
    assert metrics.auc(-scores, labels) == pytest.approx(1 - got, abs=1e-13)
    assert metrics.auc(scores**3 + scores, labels) == got


def probe_by_hand(x, on, child, parent, ridge, minimum):
    """Ridge regression by an augmented least-squares problem, AUC by pairs."""
    half = len(x) // 2
    train = [n for n in range(half) if on[n, parent]]
    test = [n for n in range(half, len(x)) if on[n, parent]]
    labels = [[bool(on[n, child]) for n in rows] for rows in (train, test)]
    if min(min(sum(y), len(y) - sum(y)) for y in labels) < minimum:
        return math.nan
    rows = x[train].numpy() - x[train].numpy().mean(0)
    target = np.array(labels[0], dtype=float) - np.mean(labels[0])
    width = rows.shape[1]
    bonus = math.sqrt(ridge * (rows**2).sum() / width)
    stacked = np.vstack([rows, bonus * np.eye(width)])
    weights = np.linalg.lstsq(stacked, np.append(target, np.zeros(width)), rcond=None)[0]
    scores, y = x[test].numpy() @ weights, np.array(labels[1])
    return np.mean([[(a > b) + 0.5 * (a == b) for b in scores[~y]] for a in scores[y]])


@given(seeds)
@settings(max_examples=25)
def test_probe_against_least_squares(seed):
    x, codes = normal(seed, 60, 4), sparse_codes(seed + 1, 60, 9, 0.6)
    found = metrics.parent_child_probe(
        x, codes, FOREST, generator=generator(seed), ridge=0.1, minimum=4, draws=2
    )
    for i, (child, parent) in enumerate(found.edges.tolist()):
        want = probe_by_hand(x, codes != 0, child, parent, 0.1, 4)
        np.testing.assert_allclose(found.values[i], want, rtol=1e-9)
    assert found.mean == pytest.approx(found.values.nanmean().item(), nan_ok=True)


def test_shuffled_probes_are_probes_of_dealings():
    """Each draw of the null scores one of the two dealings of two parents, edge by edge."""
    x, codes = normal(0, 80, 3), sparse_codes(1, 80, 4, 0.7)
    parents, swapped = torch.tensor([-1, -1, 0, 1]), torch.tensor([-1, -1, 1, 0])
    found = metrics.parent_child_probe(x, codes, parents, generator=generator(), draws=12)
    other = metrics.parent_child_probe(x, codes, swapped, generator=generator())
    seen = {tuple(row.tolist()) for row in found.null}
    assert seen == {tuple(found.values.tolist()), tuple(other.values.tolist())}
    assert found.chance == pytest.approx(found.null.mean().item())
    assert found.chance_std == pytest.approx(found.null.mean(-1).std().item())
    assert math.isnan(other.chance_std)


def test_children_are_told_under_their_own_parents_only():
    """x says which child is on only where its parent is: elsewhere children fire at random."""
    g = generator(1)
    root = torch.rand(4000, generator=g) < 0.5
    side = torch.randn(4000, 2, generator=g)
    noise = torch.rand(4000, 2, generator=g) < 0.5
    first = torch.where(root, side[:, 0] > 0, noise[:, 0])
    second = torch.where(root, noise[:, 1], side[:, 1] > 0)
    codes = torch.stack([root, ~root, first, second], -1).double()
    found = metrics.parent_child_probe(
        side, codes, torch.tensor([-1, -1, 0, 1]), generator=generator(), draws=20
    )
    assert (found.values > 0.99).all()
    wrong = metrics.parent_child_probe(
        side, codes, torch.tensor([-1, -1, 1, 0]), generator=generator()
    )
    # a rank statistic of chance: standard deviation sqrt((n1 + n0 + 1) / 12 n1 n0), n1 = n0 = 500
    assert (wrong.values - 0.5).abs().max() < 4.5 * math.sqrt(1001 / 12) / 500
    assert found.mean > found.chance


def test_probes_without_rows_of_both_kinds():
    codes = torch.ones(40, 2)  # the child is always on where its parent is
    found = metrics.parent_child_probe(
        normal(0, 40, 3), codes, torch.tensor([-1, 0]), generator=generator()
    )
    assert found.values.isnan().all()
    assert all(math.isnan(n) for n in (found.mean, found.chance))
    still = metrics.parent_child_probe(
        torch.ones(40, 3),
        torch.stack([torch.ones(40), torch.arange(40) % 2.0], -1),
        torch.tensor([-1, 0]),
        generator=generator(),
    )
    assert still.mean == 0.5  # activations that do not vary say nothing
    roots = metrics.parent_child_probe(
        normal(0, 40, 3), codes, torch.tensor([-1, -1]), generator=generator()
    )
    assert roots.values.shape == (0,)
    assert math.isnan(roots.mean)


def parents_by_hand(codes, threshold, level, minimum):
    fires = [{n for n in range(len(codes)) if codes[n, k] != 0} for k in range(codes.shape[1])]
    found = []
    for c, own in enumerate(fires):
        able = [
            (-len(own & other), len(other), p)
            for p, other in enumerate(fires)
            if len(other) > len(own) >= minimum
            and (level is None or level[p] < level[c])
            and len(own & other) / len(own) >= threshold - 1e-12
        ]
        found.append(min(able)[2] if able else -1)
    return found


@given(seeds, st.sampled_from([0.3, 0.5, 0.75, 1.0]), st.booleans())
@settings(max_examples=150)
def test_inferred_parents_against_loops(seed, threshold, nested):
    codes = sparse_codes(seed, 12, 7) * (uniform(seed + 2, 7) < 0.9)
    codes = codes * (uniform(seed + 3, 12, 7) < uniform(seed + 4, 7))
    level = torch.tensor([2, 0, 1, 0, 2, 1, 1]) if nested else None
    found = metrics.infer_parents(codes, threshold=threshold, level=level, minimum=2)
    assert found.parents.tolist() == parents_by_hand(codes, threshold, level, 2)
    assert metrics.levels(found.parents).max() < 7  # and no cycle
    assert found.coverage.isnan().tolist() == (found.parents < 0).tolist()
    values = metrics.coverage(codes, found.parents).conditional.values
    torch.testing.assert_close(found.coverage[found.parents >= 0], values)
    asked = int(((codes != 0).sum(0) >= 2).sum())
    assert found.share == pytest.approx(len(values) / asked if asked else math.nan, nan_ok=True)


def test_an_exact_hierarchy_is_read_off():
    """Three levels, each gated by its parent: the nearest ancestor, not the root."""
    fires = torch.zeros(400, 9)
    free = uniform(0, 400, 9) < torch.tensor([0.5, 0.5, 0.4, 0.4, 0.4, 0.4, 0.5, 0.5, 0.5])
    for latent in range(9):
        above = fires[:, FOREST[latent]] if FOREST[latent] >= 0 else 1.0
        fires[:, latent] = free[:, latent] * above
    found = metrics.infer_parents(fires)
    assert found.parents.tolist() == FOREST.tolist()
    assert found.share == pytest.approx(7 / 9)
    assert found.chance < 1e-6
    assert metrics.coverage(fires, found.parents).conditional.mean == 1.0


def test_thresholds_are_met_exactly():
    """Nine of ten rows is 0.9 of them, and 7 of 25 is 0.28, whatever 0.28 * 25 is in floats."""
    codes = torch.zeros(20, 2)
    codes[:10, 1] = codes[1:16, 0] = 1.0
    assert metrics.infer_parents(codes, threshold=0.9).parents.tolist() == [-1, 0]
    assert metrics.infer_parents(codes, threshold=0.91).parents.tolist() == [-1, -1]
    assert metrics.infer_parents(codes, minimum=11).parents.tolist() == [-1, -1]
    assert 0.28 * 25 > 7
    codes = torch.zeros(60, 2)
    codes[:25, 1] = codes[18:58, 0] = 1.0  # 7 of 25
    assert metrics.infer_parents(codes, threshold=0.28).parents.tolist() == [-1, 0]


@pytest.mark.parametrize("nested", [False, True])
def test_chance_of_a_parent_among_independent_latents(nested):
    """Firings drawn anew under each child, at fixed rates; z < 4.5 over 3000 hierarchies."""
    counts, rows, threshold = torch.tensor([3, 5, 12, 15, 15, 20]), 25, 0.8
    level = torch.tensor([2, 1, 0, 1, 0, 1])
    codes = torch.zeros(rows, 6)
    for latent, count in enumerate(counts.tolist()):
        codes[:count, latent] = 1.0
    found = metrics.infer_parents(
        codes, threshold=threshold, level=level if nested else None, minimum=4
    )
    draws, g = 3000, generator(1)
    links = torch.zeros(draws)
    for child in range(1, 6):
        able = counts > counts[child]
        if nested:
            able &= level < level[child]
        size = (draws, int(counts[child]), 6)
        hits = (torch.rand(size, generator=g) < counts / rows).sum(1)
        links += ((hits >= threshold * counts[child] - 1e-9) & able).any(-1)
    share = links / 5
    assert share.std() > 0
    assert abs(found.chance - share.mean()) < 4.5 * share.std() / math.sqrt(draws)


def test_a_latent_that_is_always_on_is_everyones_parent():
    """Coverage alone gives false parents: all are, and chance says so."""
    codes = (uniform(0, 200, 5) < 0.4).double()
    codes[:, 0] = 1.0
    found = metrics.infer_parents(codes)
    assert found.parents.tolist() == [-1, 0, 0, 0, 0]
    assert found.share == found.chance == 0.8
    few = metrics.infer_parents(codes, minimum=500)
    assert math.isnan(few.share)
    assert math.isnan(few.chance)


X, CODES = normal(0, 20, 4), sparse_codes(1, 20, 9)
ATOMS = normal(2, 9, 4)
WRONG = {
    "x of other rows": lambda: metrics.functional_link(X[1:], X[1:], CODES, ATOMS, FOREST),
    "mean of other rows": lambda: metrics.functional_link(X, X[1:], CODES, ATOMS, FOREST),
    "atoms of other width": lambda: metrics.functional_link(X, X, CODES, ATOMS[:, 1:], FOREST),
    "codes of other rows": lambda: metrics.parent_child_probe(
        X, CODES[1:], FOREST, generator=generator()
    ),
    "levels of other latents": lambda: metrics.infer_parents(CODES, level=torch.zeros(3)),
    "x of other rows, concepts": lambda: metrics.concept_vectors(X[1:], CODES),
    "labels of other rows": lambda: metrics.f1_similarities(CODES, CODES[1:]),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_shapes(name):
    with pytest.raises(ShapeError) as caught:
        WRONG[name]()
    assert caught.value.code == "hierarchy.shape"


def probed(**settings):
    return metrics.parent_child_probe(X, CODES, FOREST, generator=generator(), **settings)


IMPOSSIBLE = {
    "ridge": lambda: probed(ridge=0.0),
    "minimum": lambda: probed(minimum=0),
    "draws": lambda: probed(draws=0),
    "threshold": lambda: metrics.infer_parents(CODES, threshold=1.1),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_settings_that_cannot_be_meant(name):
    with pytest.raises(ConfigError) as caught:
        IMPOSSIBLE[name]()
    assert caught.value.code == "hierarchy.setting"
    assert name in caught.value.context


def test_non_finite_input():
    bad = X.clone()
    bad[3, 2] = math.nan
    calls = (
        lambda: metrics.functional_link(bad, X, CODES, ATOMS, FOREST),
        lambda: metrics.functional_link(X, bad, CODES, ATOMS, FOREST),
        lambda: metrics.parent_child_probe(bad, CODES, FOREST, generator=generator()),
        lambda: metrics.infer_parents(bad),
        lambda: metrics.auc(bad[:, 2], bad[:, 0] > 0),
    )
    for call in calls:
        with pytest.raises(DataError) as caught:
            call()
        assert caught.value.code == "data.nonfinite"
