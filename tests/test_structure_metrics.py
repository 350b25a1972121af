"""Structure recovered, against loops over pairs and over all renamings of a few nodes."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vsae import metrics
from vsae.errors import ConfigError, DataError
from vsae.metrics.relabelling import overlap_moments

seeds = st.integers(0, 2**31)
few = settings(max_examples=100)


def rng(seed):
    return torch.Generator().manual_seed(seed)


def normal(seed, *shape):
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


def graph(seed, nodes, least=-2):
    """Whole weights from least to 2, most of them 0, loops included."""
    weights = torch.randint(least, 3, (nodes, nodes), generator=rng(seed))
    return weights * (torch.rand(nodes, nodes, generator=rng(seed + 1)) < 0.4)


@given(seeds, st.integers(1, 5), st.integers(1, 5), st.sampled_from([0.0, 0.4, 0.8]))
def test_matching_is_the_best_of_all(seed, latents, features, threshold):
    atoms, truth = normal(seed, latents, 3), normal(seed + 1, features, 3)
    unit = [v / v.norm(dim=-1, keepdim=True) for v in (atoms, truth)]
    cosine = (unit[0] @ unit[1].T).abs()
    if latents <= features:
        ways = ([*enumerate(p)] for p in itertools.permutations(range(features), latents))
    else:
        ways = (
            [(k, f) for f, k in enumerate(p)]
            for p in itertools.permutations(range(latents), features)
        )
    best = max(ways, key=lambda way: sum(cosine[k, f].item() for k, f in way))
    kept = {f: k for k, f in best if cosine[k, f] >= threshold}
    found = metrics.match(atoms, truth, threshold=threshold)
    assert found.latents.tolist() == [kept.get(f, -1) for f in range(features)]
    assert found.matched.tolist() == sorted(kept)
    assert found.unmatched_features == features - len(kept)
    assert found.unmatched_latents == latents - len(kept)
    for f in range(features):
        if f in kept:
            assert found.cosines[f].item() == pytest.approx(cosine[kept[f], f].item())
        else:
            assert found.cosines[f].isnan()


def test_structure_of_latents_is_that_of_their_features():
    """12 features; 9 have a latent, turned, scaled and shuffled among 5 latents that are none."""
    features = torch.linalg.qr(normal(0, 32, 32)).Q
    order = torch.randperm(14, generator=rng(1))
    atoms = torch.cat([-3 * features[:9], features[12:17]])[order]
    found = metrics.match(atoms, features[:12])
    assert found.matched.tolist() == list(range(9))
    assert (found.unmatched_features, found.unmatched_latents) == (3, 5)
    edges = graph(2, 17, least=0)
    of_latents = torch.cat([edges[:9], edges[12:]])[:, [*range(9), *range(12, 17)]][order][:, order]
    of_features, labels = edges[:12, :12], torch.arange(12) // 3
    assert torch.equal(found.of_latents(of_latents), found.of_features(of_features))
    sparse = found.of_latents(of_latents.to_sparse())
    assert torch.equal(sparse.to_dense(), found.of_features(of_features))
    assert found.of_features(labels).tolist() == labels[:9].tolist()
    recovered = metrics.edge_recovery(found.of_latents(of_latents), found.of_features(of_features))
    assert (recovered.f1, recovered.average_precision) == (1, 1)
    unmatched = metrics.edge_recovery(of_latents[:12, :12], of_features)
    assert unmatched.f1 < 0.7


def loops(weights, truth):
    """Edge recovery written out over a list of pairs of (strength, whether true)."""
    found = {i for i, w in enumerate(weights) if w}
    true = {i for i, t in enumerate(truth) if t}
    hits = len(found & true)
    ap, last = 0.0, 0.0
    for least in sorted({abs(w) for w in weights}, reverse=True):  # as edges count those from here
        taken = {i for i, w in enumerate(weights) if abs(w) >= least}
        recall = len(taken & true) / len(true) if true else math.nan
        ap += (recall - last) * len(taken & true) / len(taken)
        last = recall
    ratio = [(hits, len(found)), (hits, len(true)), (2 * hits, len(found) + len(true))]
    return [a / b if b else math.nan for a, b in ratio] + [ap]


def scores(found):
    return [found.precision, found.recall, found.f1, found.average_precision]


@given(seeds, st.integers(2, 6))
def test_edges_against_loops(seed, nodes):
    weights, truth = graph(seed, nodes), graph(seed + 2, nodes, least=0)
    pairs = list(itertools.permutations(range(nodes), 2))
    w, t = ([m[i, j].item() for i, j in pairs] for m in (weights, truth))
    found = metrics.edge_recovery(weights.double(), truth > 0)
    assert scores(found) == pytest.approx(loops(w, t), nan_ok=True)
    counts = (sum(map(bool, w)), sum(map(bool, t)), len(pairs))
    assert (found.found_edges, found.true_edges, found.pairs) == counts


@few
@given(seeds, st.integers(2, 6))
def test_undirected_edges_are_scored_as_unordered_pairs(seed, nodes):
    weights, truth = (m.triu(1) + m.triu(1).T for m in (graph(seed, nodes), graph(seed + 2, nodes)))
    pairs = list(itertools.combinations(range(nodes), 2))
    w, t = ([m[i, j].item() for i, j in pairs] for m in (weights, truth))
    assert scores(metrics.edge_recovery(weights, truth)) == pytest.approx(loops(w, t), nan_ok=True)


@few
@given(seeds)
def test_a_list_of_edges_is_as_good_as_a_matrix(seed):
    weights, truth = graph(seed, 6), graph(seed + 2, 6)
    edges = weights.nonzero().T
    halves = weights[tuple(edges)].double().repeat(2) / 2
    listed = torch.sparse_coo_tensor(edges.repeat(1, 2), halves, (6, 6), check_invariants=True)
    np.testing.assert_equal(
        vars(metrics.edge_recovery(listed, truth.to_sparse())),
        vars(metrics.edge_recovery(weights, truth)),
    )


@few
@given(seeds, st.integers(2, 5), st.booleans())
def test_chance_is_the_mean_over_all_renamings(seed, nodes, mirrored):
    weights, truth = graph(seed, nodes, least=0), graph(seed + 2, nodes, least=0)
    if mirrored:
        weights, truth = (m.triu(1) + m.triu(1).T for m in (weights, truth))
    found = metrics.edge_recovery(weights, truth)
    renamed = [truth[list(p)][:, list(p)] for p in itertools.permutations(range(nodes))]
    every = [metrics.edge_recovery(weights, other) for other in renamed]
    f1, precision = (np.mean([getattr(r, name) for r in every]) for name in ("f1", "precision"))
    assert (found.chance_f1, found.density) == pytest.approx(
        (f1, precision if found.found_edges else found.density), nan_ok=True
    )
    off = 1 - torch.eye(nodes)
    hits = np.array([((weights != 0) * (other != 0) * off).sum().item() for other in renamed])
    edges = [(m * off).nonzero().T for m in (weights, truth)]
    assert overlap_moments(*edges, nodes) == pytest.approx((hits.mean(), hits.std()))
    if hits.std() > 1e-6:
        own = ((weights != 0) * (truth != 0) * off).sum().item()
        assert found.z == pytest.approx((own - hits.mean()) / hits.std())
    else:
        assert math.isnan(found.z)


def test_a_ranking_that_ties_all_pairs_has_the_density_as_its_precision():
    truth = graph(0, 20)
    found = metrics.edge_recovery(torch.ones(20, 20), truth)
    assert found.average_precision == pytest.approx(found.density)
    assert found.precision == pytest.approx(found.density)
    assert math.isnan(found.z)
    nothing = metrics.edge_recovery(torch.zeros(20, 20), truth)
    assert nothing.average_precision == pytest.approx(found.density)
    assert (nothing.recall, nothing.f1, math.isnan(nothing.precision)) == (0, 0, True)
    without = metrics.edge_recovery(truth, torch.zeros(20, 20))
    assert math.isnan(without.recall)
    assert math.isnan(without.average_precision)
    alone = metrics.edge_recovery(torch.ones(1, 1), torch.ones(1, 1))
    assert math.isnan(alone.density)


def test_strength_orders_the_edges():
    """All edges are found, with as many false ones that are weaker: precision ½, AP 1."""
    truth = (graph(0, 30) != 0).double()
    weak = (graph(5, 30) != 0) * (1 - truth)
    found = metrics.edge_recovery(-2 * truth + 0.5 * weak, truth)
    assert found.average_precision == pytest.approx(1)
    assert found.recall == 1
    assert found.precision < 0.75
    upside_down = metrics.edge_recovery(0.1 * truth + weak, truth)
    assert upside_down.average_precision < found.precision
    assert upside_down.f1 == found.f1
    assert found.z > 4.5


labels = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=9)


def rand_by_pairs(first, second):
    """Over pairs: together in both, in one only, in neither (Hubert and Arabie, equation 5)."""
    kinds = [
        (first[i] == first[j], second[i] == second[j])
        for i, j in itertools.combinations(range(len(first)), 2)
    ]
    a, b, c, d = (
        kinds.count(k) for k in [(True, True), (True, False), (False, True), (False, False)]
    )
    below = (a + b) * (b + d) + (a + c) * (c + d)
    return 2 * (a * d - b * c) / below if below else 1.0


@given(labels)
def test_adjusted_rand_index_over_pairs(pairs):
    first, second = (torch.tensor(side) for side in zip(*pairs, strict=True))
    found = metrics.adjusted_rand_index(first, second)
    assert found == pytest.approx(rand_by_pairs(first.tolist(), second.tolist()))
    assert found == metrics.adjusted_rand_index(second, first)
    assert found == metrics.adjusted_rand_index(7 - first, second)  # names do not matter
    assert metrics.adjusted_rand_index(first, -first) == 1


@pytest.mark.parametrize("truth", [[0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 1, 1]])
def test_adjusted_rand_index_is_zero_on_average(truth):
    """Over all 720 dealings of the labels, exactly."""
    first, second = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor(truth)
    every = [
        metrics.adjusted_rand_index(first[list(p)], second)
        for p in itertools.permutations(range(6))
    ]
    assert np.mean(every) == pytest.approx(0, abs=1e-14)
    assert min(every) < 0


def test_adjusted_rand_index_of_many():
    """A million members: the products of pairs are beyond 64 bits."""
    blocks = torch.arange(1_000_000) // 1000
    assert metrics.adjusted_rand_index(blocks, blocks + 1) == 1
    across = torch.arange(1_000_000) % 1000  # each block spread evenly over all others
    assert metrics.adjusted_rand_index(blocks, across) == pytest.approx(-1 / 1000, rel=1e-2)


SQUARE, LABELS = torch.ones(3, 3), torch.zeros(3, dtype=torch.int64)
WRONG = {
    "structure.shape": [
        lambda: metrics.edge_recovery(SQUARE, torch.ones(2, 2)),
        lambda: metrics.edge_recovery(SQUARE[:2], SQUARE[:2]),
        lambda: metrics.edge_recovery(LABELS, LABELS),
        lambda: metrics.adjusted_rand_index(LABELS, LABELS[:2]),
        lambda: metrics.adjusted_rand_index(SQUARE, SQUARE),
        lambda: metrics.match(SQUARE, SQUARE).of_latents(torch.ones(3, 2)),
        lambda: metrics.match(SQUARE, SQUARE).of_features(torch.ones(())),
    ],
    "data.nonfinite": [
        lambda: metrics.edge_recovery(SQUARE / 0, SQUARE),
        lambda: metrics.edge_recovery(SQUARE, SQUARE * math.nan),
        lambda: metrics.match(SQUARE * math.nan, SQUARE),
    ],
    "data.empty": [lambda: metrics.adjusted_rand_index(LABELS[:0], LABELS[:0])],
    "recovery.shape": [lambda: metrics.match(SQUARE, SQUARE[:, :2])],
    "recovery.threshold": [
        lambda: metrics.match(SQUARE, SQUARE, threshold=1.1),
        lambda: metrics.match(SQUARE, SQUARE, threshold=-0.1),
    ],
}


@pytest.mark.parametrize("code", WRONG)
def test_what_has_no_structure(code):
    for call in WRONG[code]:
        with pytest.raises((ConfigError, DataError)) as caught:
            call()
        assert caught.value.code == code
