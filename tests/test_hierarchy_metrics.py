"""Hierarchies of latents: edges against all dealings of parents, loops and cases by hand."""

import itertools
import math

import numpy as np
import pytest
import torch
from hierarchy_oracles import (
    FOREST,
    all_dealings,
    depth_of,
    normal,
    random_forest,
    sparse_codes,
    uniform,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from vsae import metrics
from vsae.errors import ConfigError, DataError, DTypeError, GraphError, ShapeError
from vsae.metrics.permutation import permutation_moments

seeds = st.integers(0, 2**31)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@given(seeds, st.integers(1, 12))
@settings(max_examples=150)
def test_levels_count_ancestors(seed, latents):
    parents = random_forest(seed, latents)
    assert metrics.levels(parents).tolist() == [depth_of(parents, i) for i in range(latents)]


@given(seeds, st.integers(1, 12))
@settings(max_examples=150)
def test_shuffling_keeps_levels_and_families_sizes(seed, latents):
    parents = random_forest(seed, latents)
    new = metrics.shuffled_parents(parents, generator(seed))
    assert metrics.levels(new).tolist() == metrics.levels(parents).tolist()
    assert new[new >= 0].bincount(minlength=latents).tolist() == (
        parents[parents >= 0].bincount(minlength=latents).tolist()
    )


def test_shuffling_is_uniform_over_dealings():
    """Chi-square over the 24 dealings of four parents; 23 degrees, 1 in 10 000 is 54."""
    parents = torch.tensor([-1, -1, -1, -1, 0, 1, 2, 3])
    g, counts, draws = generator(), {}, 2400
    for _ in range(draws):
        key = tuple(metrics.shuffled_parents(parents, g)[4:].tolist())
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 24
    assert sum((n - 100) ** 2 / 100 for n in counts.values()) < 54


@given(seeds, st.integers(1, 5), st.integers(1, 3))
@settings(max_examples=60)
def test_moments_over_all_permutations(seed, distinct, block):
    copies = torch.randint(1, 3, (distinct,), generator=generator(seed))
    n = min(int(copies.sum()), 6)
    copies = torch.tensor([c for c in _cut(copies.tolist(), n) if c])
    matrix = normal(seed, n, len(copies))
    full = matrix.repeat_interleave(copies, dim=1)
    sums = [
        sum(full[i, p].item() for i, p in enumerate(order))
        for order in itertools.permutations(range(n))
    ]
    mean, variance = permutation_moments(matrix.split(block), copies)
    assert mean == pytest.approx(np.mean(sums), abs=1e-11)
    assert variance == pytest.approx(np.var(sums), abs=1e-10)


def _cut(copies, n):
    for c in copies:
        yield min(c, n)
        n -= min(c, n)


ATOMS, CODES = normal(3, 9, 5), sparse_codes(5, 40, 9)
TRUTH = (uniform(7, 40, 6) < 0.4).double()
TRUE_PARENTS = torch.tensor([-1, -1, 0, 0, 1, 1])
LIKENESS = uniform(8, 9, 6)
DEAD = CODES.clone()
DEAD[:, 4] = 0.0  # a child with children of its own
HOLES = ATOMS.clone()
HOLES[4] = math.nan
HOLES[6] = 0.0


def cosine_of(atoms):
    return lambda p: metrics.parent_child_cosine(atoms, p, generator=generator(), draws=1)


CHANCES = {
    "coverage": (lambda p: metrics.coverage(CODES, p).conditional, range(9)),
    "lift": (lambda p: metrics.coverage(CODES, p).lift, range(9)),
    "coverage, a dead latent": (
        lambda p: metrics.coverage(DEAD, p).conditional,
        {2, 3, 5, 6, 7, 8},
    ),
    "lift, a dead latent": (lambda p: metrics.coverage(DEAD, p).lift, {2, 3, 5, 6}),
    "cosine": (lambda p: cosine_of(ATOMS)(p).child.scores, range(9)),
    "offset": (lambda p: cosine_of(ATOMS)(p).offset.scores, range(9)),
    "cosine, holes": (lambda p: cosine_of(HOLES)(p).child.scores, {2, 3, 5}),
    "family": (
        lambda p: metrics.child_purity(CODES, TRUTH, p, TRUE_PARENTS, LIKENESS).family,
        range(9),
    ),
    "recovery": (
        lambda p: metrics.parent_recovery(ATOMS, p, ATOMS[[1, 0, 2, 4, 6, 7]], TREE),
        range(9),
    ),
}
TREE = torch.tensor([-1, -1, 1, 0, 2, 3])


@pytest.mark.parametrize("name", CHANCES)
def test_chance_is_exact_over_all_dealings(name):
    """Mean and standard deviation of the score over every dealing of every level's parents."""
    score, defined = CHANCES[name]
    found = score(FOREST)
    means = []
    for parents in all_dealings(FOREST, set(defined)):
        other = score(parents)
        means.append(other.share if name == "recovery" else other.mean)
        assert other.chance == pytest.approx(found.chance, rel=1e-12)
    assert len(means) in {144, 36, 6}
    assert np.ptp(means) > 0
    assert found.chance == pytest.approx(np.mean(means), rel=1e-12)
    assert found.chance_std == pytest.approx(np.std(means), rel=1e-9)
    if name != "recovery":
        expected = (found.mean - np.mean(means)) / np.std(means)
        assert found.z == pytest.approx(expected, rel=1e-8)


def test_blocks_of_pairs_change_nothing(monkeypatch):
    whole = metrics.coverage(CODES, FOREST).conditional
    monkeypatch.setattr("vsae.metrics.edge_scores.BLOCK", 1)
    parts = metrics.coverage(CODES, FOREST).conditional
    torch.testing.assert_close(parts.values, whole.values)
    assert parts.chance == pytest.approx(whole.chance, rel=1e-13)
    assert parts.chance_std == pytest.approx(whole.chance_std, rel=1e-10)


@pytest.mark.parametrize("name", ["coverage", "cosine", "family", "recovery"])
def test_renaming_latents_changes_nothing(name):
    order = torch.randperm(9, generator=generator(4))
    renamed = torch.full((9,), -1)
    for latent in range(9):
        if FOREST[order[latent]] >= 0:
            renamed[latent] = (order == FOREST[order[latent]]).nonzero()[0, 0]
    scores = {
        "coverage": lambda o, p: metrics.coverage(CODES[:, o], p).conditional,
        "cosine": lambda o, p: cosine_of(ATOMS[o])(p).child.scores,
        "family": lambda o, p: (
            metrics.child_purity(CODES[:, o], TRUTH, p, TRUE_PARENTS, LIKENESS[o]).family
        ),
        "recovery": lambda o, p: metrics.parent_recovery(
            ATOMS[o], p, ATOMS[[1, 0, 2, 4, 6, 7]], TREE
        ),
    }[name]
    one, other = scores(torch.arange(9), FOREST), scores(order, renamed)
    for field in ("share",) if name == "recovery" else ("mean",):
        assert getattr(other, field) == pytest.approx(getattr(one, field), rel=1e-12)
    assert other.chance == pytest.approx(one.chance, rel=1e-12)
    assert other.chance_std == pytest.approx(one.chance_std, rel=1e-9)


@given(seeds)
@settings(max_examples=100)
def test_recovery_of_known_trees(seed):
    """The truth renamed, flipped and rescaled is found whole; with w wrong parents, 1 - w / E."""
    features = torch.eye(8)
    true = torch.tensor([-1, -1, 0, 0, 1, 1, 1, 2])
    order = torch.randperm(8, generator=generator(seed))
    place = order.argsort()
    parents = torch.where(true[order] >= 0, place[true[order].clamp(min=0)], -1)
    scales = normal(seed, 8)
    atoms = features[order] * (scales + scales.sign())[:, None]
    found = metrics.parent_recovery(atoms, parents, features, true)
    assert (found.share, found.of_all) == (1.0, 1.0)
    assert (found.evaluated, found.true_edges) == (6, 6)
    assert found.chance == pytest.approx((2 * 0.4 + 3 * 0.6 + 1) / 6)  # m / n, level by level
    wrong = parents.clone()
    wrong[place[2]], wrong[place[4]] = place[1], place[0]
    assert metrics.parent_recovery(atoms, wrong, features, true).share == pytest.approx(4 / 6)


def test_recovery_counts_what_is_matched():
    features, true = torch.eye(4), torch.tensor([-1, 0, 0, -1])
    atoms = torch.eye(4)
    atoms[1] = torch.tensor([0.0, 0.6, 0.0, 0.8])  # no feature at 0.7 but 3, which has its own
    found = metrics.parent_recovery(atoms, true, features, true)
    assert (found.evaluated, found.true_edges, found.share, found.of_all) == (1, 2, 1.0, 0.5)
    assert metrics.parent_recovery(atoms, true, features, true, threshold=0.6).evaluated == 2
    flat = metrics.parent_recovery(atoms, torch.full((4,), -1), features, true)
    assert (flat.share, flat.chance, flat.chance_std, flat.of_all) == (0.0, 0.0, 0.0, 0.0)
    none = metrics.parent_recovery(atoms, true, features, torch.full((4,), -1))
    assert all(math.isnan(n) for n in (none.share, none.chance, none.of_all))
    assert (none.evaluated, none.true_edges) == (0, 0)


def test_the_absorbed_child_counts_as_the_childs():
    """Atoms p and (p + c) / √2: cosine 0.7071 with c, hence matched at the default threshold."""
    atoms = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    tree = torch.tensor([-1, 0])
    assert metrics.parent_recovery(atoms, tree, torch.eye(2), tree).evaluated == 1


@given(seeds)
@settings(max_examples=100)
def test_purity_against_loops(seed):
    codes, truth = sparse_codes(seed, 12, 9, 0.25), (uniform(seed, 12, 6) < 0.4).double()
    likeness = uniform(seed + 1, 9, 6)
    found = metrics.child_purity(codes, truth, FOREST, TRUE_PARENTS, likeness)
    fires, values, base, inside = codes != 0, [], [], []
    for child, parent in ((c, p) for c, p in enumerate(FOREST.tolist()) if p >= 0):
        best = max((2, 3, 4, 5), key=lambda f: likeness[child, f].item())
        own, above = fires[:, child], fires[:, parent]
        alive = bool(own.any() and above.any())
        values.append(truth[own, best].mean().item() if alive else math.nan)
        base.append(truth[:, best].mean().item() if alive else math.nan)
        inside.append(truth[above, best].mean().item() if alive else math.nan)
    np.testing.assert_allclose(found.values, values, rtol=1e-12)
    for got, want in ((found.mean, values), (found.chance, base), (found.chance_in_parent, inside)):
        assert got == pytest.approx(np.nanmean(want), rel=1e-12)


def test_chances_of_purity_are_those_of_random_rows():
    """A child that fires on any 2 of 6 rows, or any 2 of its parent's 4: means over all choices."""
    truth = torch.tensor([[1.0, 1], [1, 0], [1, 1], [1, 0], [0, 0], [0, 1]])
    tree, parent = torch.tensor([-1, 0]), [0, 1, 2, 5]

    def purity(rows):
        codes = torch.zeros(6, 2)
        codes[parent, 0] = codes[list(rows), 1] = 1.0
        return metrics.child_purity(codes, truth, tree, tree, torch.eye(2))

    anywhere = [purity(rows) for rows in itertools.combinations(range(6), 2)]
    inside = [purity(rows) for rows in itertools.combinations(parent, 2)]
    assert np.mean([p.mean for p in anywhere]) == pytest.approx(anywhere[0].chance) == 0.5
    assert np.mean([p.mean for p in inside]) == pytest.approx(inside[0].chance_in_parent) == 0.75


def test_purity_without_true_children_is_undefined():
    found = metrics.child_purity(CODES, TRUTH, FOREST, torch.full((6,), -1), LIKENESS)
    assert found.values.isnan().all()
    assert all(math.isnan(n) for n in (found.mean, found.chance, found.chance_in_parent))
    assert found.family.mean == 0.0  # no true child: no edge is in the family


@given(seeds)
@settings(max_examples=50)
def test_similarities(seed):
    codes, truth = sparse_codes(seed, 9, 4), (uniform(seed, 9, 3) < 0.5) * 2.0 - 0.5
    f1 = metrics.f1_similarities(codes, truth)
    for k, f in itertools.product(range(4), range(3)):
        a = {n for n in range(9) if codes[n, k] != 0}
        b = {n for n in range(9) if truth[n, f] > 0}
        assert f1[k, f].item() == pytest.approx(2 * len(a & b) / max(len(a) + len(b), 1))
    one, other = normal(seed, 4, 5), normal(seed + 1, 3, 5)
    cosines = metrics.cosine_similarities(one, other)
    for k, f in itertools.product(range(4), range(3)):
        want = abs(float(one[k] @ other[f])) / math.sqrt(one[k] @ one[k] * (other[f] @ other[f]))
        assert cosines[k, f].item() == pytest.approx(want)


def test_parks_geometry():
    """child = parent + orthogonal offset: the offset's cosine is 0, the child's |p| / |p + o|."""
    parents = torch.tensor([-1, -1, 0, 0, 1, 1])
    basis = torch.eye(6)
    vectors = torch.stack([2 * basis[0], 3 * basis[1], *(torch.zeros(6) for _ in range(4))])
    for child in range(2, 6):
        vectors[child] = vectors[parents[child]] + child * basis[child]
    found = metrics.parent_child_cosine(vectors, parents, generator=generator())
    torch.testing.assert_close(found.offset.scores.values, torch.zeros(4), atol=1e-15, rtol=0)
    lengths = [(2 if c < 4 else 3) for c in range(2, 6)]
    want = [p / math.hypot(p, c) for p, c in zip(lengths, range(2, 6), strict=True)]
    np.testing.assert_allclose(found.child.scores.values, want, rtol=1e-12)
    # under another parent the offset points away from it: shuffling must show
    assert found.offset.scores.chance < -0.2
    assert found.offset.scores.z > 1.0


@given(seeds)
@settings(max_examples=50)
def test_offsets_of_unit_atoms_say_nothing_new(seed):
    atoms = torch.nn.functional.normalize(normal(seed, 9, 4), dim=-1)
    found = metrics.parent_child_cosine(atoms, FOREST, generator=generator(), draws=1)
    cosine = found.child.scores.values
    torch.testing.assert_close(found.offset.scores.values, -((1 - cosine) / 2).sqrt())


def test_raw_cosines_of_shuffled_parents():
    """The draws are the dealings, without edges to the latents that have no direction."""
    found = metrics.parent_child_cosine(HOLES, FOREST, generator=generator(), draws=60)
    assert found.child.scores.values.isnan().tolist() == found.child.null[0].isnan().tolist()
    for distribution in (found.child, found.offset):
        dealt = {
            tuple(np.round(_values(distribution is found.offset, parents), 9))
            for parents in all_dealings(FOREST, {2, 3, 5})
        }
        drawn = {tuple(np.round(d[~d.isnan()].tolist(), 9)) for d in distribution.null}
        assert drawn == dealt
        assert len(dealt) == 3
    defined = found.child.scores.values[~found.child.scores.values.isnan()]
    np.testing.assert_allclose(
        found.child.quantiles((0.25, 0.5)), np.quantile(defined, [0.25, 0.5])
    )


def _values(offset, parents):
    pairs = [(HOLES[c], HOLES[parents[c]]) for c in (2, 3, 5)]
    return [float(torch.cosine_similarity(c - p if offset else c, p, dim=0)) for c, p in pairs]


def test_cosines_ignore_scale():
    scaled = ATOMS * uniform(1, 9, 1).add(0.5)
    one, other = (cosine_of(atoms)(FOREST).child.scores for atoms in (ATOMS, scaled))
    torch.testing.assert_close(one.values, other.values)
    assert one.chance == pytest.approx(other.chance, rel=1e-12)
    twins = torch.ones(2, 3)  # a child equal to its parent: no offset, cosine 0 as stated
    found = metrics.parent_child_cosine(twins, torch.tensor([-1, 0]), generator=generator())
    assert found.offset.scores.mean == 0.0


def test_concept_vectors_are_means_of_the_rows_that_fire():
    x, codes = normal(0, 10, 3), sparse_codes(1, 10, 4)
    codes[:, 2] = 0.0
    found = metrics.concept_vectors(x, codes)
    for latent in (0, 1, 3):
        torch.testing.assert_close(found[latent], x[codes[:, latent] != 0].mean(0))
    assert found[2].isnan().all()
    tree = torch.tensor([-1, 0, 0, 1])
    cosines = metrics.parent_child_cosine(found, tree, generator=generator()).child.scores.values
    assert cosines.isnan().tolist() == [False, True, False]


@given(seeds)
@settings(max_examples=50)
def test_coverage_against_loops(seed):
    codes = sparse_codes(seed, 10, 9, 0.2)
    found = metrics.coverage(codes, FOREST)
    fires = (codes != 0).numpy()
    for i, (child, parent) in enumerate(found.conditional.edges.tolist()):
        own, above = fires[:, child], fires[:, parent]
        want = above[own].mean() if own.any() else math.nan
        np.testing.assert_allclose(found.conditional.values[i], want)
        lift = want / above.mean() if own.any() and above.any() else math.nan
        np.testing.assert_allclose(found.lift.values[i], lift)
    defined = ~found.conditional.values.isnan()
    if defined.any():
        assert found.conditional.mean == pytest.approx(found.conditional.values[defined].mean())


def test_coverage_of_routed_codes_is_one():
    """A child that needs its parent's slot is covered whatever was learned: an H-SAE."""
    codes = sparse_codes(0, 50, 9, 0.6)
    for child in range(2, 9):
        codes[:, child] *= codes[:, FOREST[child]] != 0
    assert metrics.coverage(codes, FOREST).conditional.mean == 1.0
    always = torch.ones(50, 2)
    found = metrics.coverage(always, torch.tensor([-1, 0]))
    assert (found.conditional.mean, found.lift.mean) == (1.0, 1.0)
    assert math.isnan(found.conditional.z)  # one parent: shuffling changes nothing


def test_without_edges_nothing_is_defined():
    roots = torch.full((9,), -1)
    for found in (metrics.coverage(CODES, roots).lift, cosine_of(ATOMS)(roots).child.scores):
        assert found.values.shape == (0,)
        assert all(math.isnan(n) for n in (found.mean, found.chance, found.chance_std, found.z))
    dead = metrics.coverage(torch.zeros(5, 9), FOREST).conditional
    assert dead.values.isnan().all()
    assert math.isnan(dead.mean)
    quantiles = cosine_of(ATOMS)(roots).child.null_quantiles()
    assert all(math.isnan(n) for n in quantiles)


BAD_PARENTS = {
    "hierarchy.dtype": (torch.full((9,), -1.0), DTypeError),
    "hierarchy.shape": (torch.full((8,), -1), ShapeError),
    "hierarchy.out_of_range": (torch.tensor([-1] * 8 + [9]), GraphError),
    "hierarchy.cycle": (torch.tensor([1, 2, 0, -1, -1, -1, -1, -1, -1]), GraphError),
}
CALLS = {
    "coverage": lambda p: metrics.coverage(CODES, p),
    "cosine": lambda p: cosine_of(ATOMS)(p),
    "purity": lambda p: metrics.child_purity(CODES, TRUTH, p, TRUE_PARENTS, LIKENESS),
    "recovery": lambda p: metrics.parent_recovery(ATOMS, p, ATOMS, FOREST),
    "link": lambda p: metrics.functional_link(CODES @ ATOMS, CODES @ ATOMS, CODES, ATOMS, p),
    "probe": lambda p: metrics.parent_child_probe(CODES, CODES, p, generator=generator()),
}


@pytest.mark.parametrize("code", BAD_PARENTS)
@pytest.mark.parametrize("call", CALLS)
def test_bad_parents(code, call):
    parents, kind = BAD_PARENTS[code]
    with pytest.raises(kind) as caught:
        CALLS[call](parents)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "parents", [[0], [-2], [1, 0], [-1, 2, 3, 4, 1], [-1, 0, 1, 2, 3, 4, 7, 6]]
)
def test_no_latent_is_its_own_ancestor(parents):
    with pytest.raises(GraphError) as caught:
        metrics.levels(torch.tensor(parents))
    cycle = parents != [-2]
    assert caught.value.code == ("hierarchy.cycle" if cycle else "hierarchy.out_of_range")
    if cycle:
        assert caught.value.context["latent"] in range(len(parents))


def test_other_shapes_and_numbers():
    wrong = {
        "hierarchy.shape": lambda: metrics.child_purity(
            CODES, TRUTH[:-1], FOREST, TRUE_PARENTS, LIKENESS
        ),
        "data.empty": lambda: metrics.coverage(CODES[:0], FOREST),
        "data.nonfinite": lambda: metrics.coverage(CODES / 0.0, FOREST),
        "recovery.shape": lambda: metrics.parent_recovery(ATOMS, FOREST, ATOMS[:, 1:], FOREST),
        "hierarchy.setting": lambda: metrics.parent_recovery(
            ATOMS, FOREST, ATOMS, FOREST, threshold=1.5
        ),
    }
    for code, call in wrong.items():
        with pytest.raises((DataError, ConfigError)) as caught:
            call()
        assert caught.value.code == code
    with pytest.raises(ConfigError):
        metrics.parent_child_cosine(ATOMS, FOREST, generator=generator(), draws=0)
    partly = ATOMS.clone()
    partly[2, 1] = math.nan
    with pytest.raises(DataError) as caught:
        cosine_of(partly)(FOREST)
    assert caught.value.code == "data.nonfinite"
