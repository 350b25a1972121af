"""Rankings of sparse codes against loops, and chance against all rankings and many draws."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from priors.graph import Graph
from vsae import metrics
from vsae.errors import ConfigError, DataError

seeds = st.integers(0, 2**31)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(seed, *shape):
    return torch.randn(*shape, generator=generator(seed))


def graded(seed, rows):
    """Relevance of three grades, and a diagonal that must not count."""
    found = (normal(seed, rows, rows) * 1.5).round().clamp(0, 2)
    return sparse.csr_array(found.fill_diagonal_(7.0).numpy())


@given(seeds, st.integers(1, 6))
@settings(max_examples=100)
def test_scores_are_those_of_the_dense_definition(seed, k):
    """Where no cosines are equal; ``precision_at_k`` is tested against loops elsewhere."""
    codes, relevance = normal(seed, 7, 3), graded(seed + 1, 7)
    unit = codes / codes.norm(dim=-1, keepdim=True)
    dense = torch.from_numpy(relevance.toarray())
    found = metrics.score_retrieval(codes, relevance, k=k, generator=generator(), permutations=2)
    precision = metrics.precision_at_k(unit @ unit.T, dense, k=k).mean().item()
    ndcg = metrics.ndcg_at_k(unit @ unit.T, dense, k=k).mean().item()
    assert found.precision.value == pytest.approx(precision, rel=1e-12)
    assert found.ndcg.value == pytest.approx(ndcg, rel=1e-12)
    assert found.relevant == pytest.approx((dense.fill_diagonal_(0) > 0).sum().item() / 7)


@given(seeds, st.integers(1, 4))
@settings(max_examples=40)
def test_chance_is_the_mean_over_all_rankings(seed, k):
    rows = 5
    relevance = graded(seed, rows)
    dense = relevance.toarray()
    precision, ndcg = np.zeros(rows), np.zeros(rows)
    for n in range(rows):
        others = [j for j in range(rows) if j != n]
        ideal = sorted((dense[n, j] for j in others), reverse=True)[:k]
        best = sum(g / math.log2(r + 2) for r, g in enumerate(ideal))
        every = list(itertools.permutations(others, k))
        for ranking in every:
            gains = [dense[n, j] for j in ranking]
            precision[n] += sum(g > 0 for g in gains) / k / len(every)
            dcg = sum(g / math.log2(r + 2) for r, g in enumerate(gains))
            ndcg[n] += (dcg / best if best else 0.0) / len(every)
    np.testing.assert_allclose(metrics.precision_chance(relevance), precision, atol=1e-13)
    np.testing.assert_allclose(metrics.ndcg_chance(relevance, k=k), ndcg, atol=1e-13)


def test_the_mean_over_all_renamings_is_the_chance():
    """Of any ranking: 5! renamings of the rows of the relevance, by brute force."""
    relevance, codes, k = graded(3, 5), normal(4, 5, 2), 2
    everywhere = [
        metrics.score_retrieval(
            codes,
            sparse.csr_array(relevance.toarray()[np.ix_(order, order)]),
            k=k,
            generator=generator(),
            permutations=2,
        )
        for order in itertools.permutations(range(5))
    ]
    precision = np.mean([found.precision.value for found in everywhere])
    ndcg = np.mean([found.ndcg.value for found in everywhere])
    assert precision == pytest.approx(metrics.precision_chance(relevance).mean().item(), rel=1e-12)
    assert ndcg == pytest.approx(metrics.ndcg_chance(relevance, k=k).mean().item(), rel=1e-12)


def test_codes_that_say_nothing_are_within_the_null_and_those_that_do_are_far_above():
    """z of the null's mean against its exact expectation < 4.5; 300 rows in 30 groups."""
    group = torch.arange(300) % 30
    relevance = metrics.label_relevance(group)
    blind = metrics.score_retrieval(
        normal(0, 300, 8), relevance, k=9, generator=generator(), permutations=400
    )
    for score in (blind.precision, blind.ndcg):
        width = score.null_interval[1] - score.null_interval[0]
        assert abs(score.null_mean - score.chance) < 4.5 * width / 4 / math.sqrt(400)
        assert score.null_interval[0] <= score.value <= score.null_interval[1]
        assert score.interval[0] < score.value < score.interval[1]
    told = normal(1, 30, 8)[group] + 0.1 * normal(2, 300, 8)
    seen = metrics.score_retrieval(told, relevance, k=9, generator=generator())
    assert seen.precision.value > 0.9
    assert seen.precision.interval[0] > 10 * seen.precision.null_interval[1]
    assert seen.precision.chance == blind.precision.chance == pytest.approx(9 / 299)


def test_reading_order_is_not_retrieval():
    """Codes without a common latent tie; neighbours in number are relevant. Broken by number, ties
    would give the first of the rows to all: k / N of precision becomes 1 for those near it."""
    rows = 200
    relevance = metrics.graph_relevance(Graph.ring(rows))
    drawn = [
        metrics.score_retrieval(
            torch.eye(rows), relevance, k=20, generator=generator(seed), permutations=2
        ).precision.value
        for seed in range(40)
    ]
    chance = metrics.precision_chance(relevance).mean().item()
    spread = np.std(drawn) / math.sqrt(len(drawn))
    assert abs(np.mean(drawn) - chance) < 4.5 * spread
    assert spread > 0


def test_precision_grows_with_k_at_chance():
    """The document's Precision@64, @128, @256 (.0129, .0235, .0547) are k/(N - 1) of some 5000
    rows, each k with its own k neighbours as the truth."""
    points = normal(0, 400, 6)
    for k in (8, 16, 32):
        near = metrics.nearest_rows(points, k, generator=generator())
        place = np.arange(400).repeat(k), near.flatten().numpy()
        relevance = sparse.csr_array((np.ones(400 * k), place), shape=(400, 400))
        chance = metrics.precision_chance(relevance).mean().item()
        assert chance == pytest.approx(k / 399)
        found = metrics.score_retrieval(normal(k, 400, 6), relevance, k=k, generator=generator())
        low, high = found.precision.null_interval
        assert low <= chance <= high


@given(seeds, st.integers(2, 9))
@settings(max_examples=100)
def test_nearest_rows_in_blocks(seed, rows):
    codes, k = normal(seed, rows, 3), min(3, rows - 1)
    whole = metrics.nearest_rows(codes, k, generator=generator())
    cosine = torch.nn.functional.cosine_similarity(codes[:, None], codes[None], dim=-1)
    cosine.fill_diagonal_(-2)
    assert torch.equal(whole, cosine.topk(k).indices)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vsae.metrics.ranking.BLOCK", 2 * rows)
        assert torch.equal(metrics.nearest_rows(codes, k, generator=generator()), whole)


@given(seeds)
@settings(max_examples=60)
def test_relevance_of_labels_and_graphs(seed):
    labels = torch.randint(-1, 4, (9,), generator=generator(seed))
    dense = metrics.label_relevance(labels).toarray()
    for i, j in itertools.product(range(9), range(9)):
        same = i != j and labels[i] == labels[j] and labels[i] >= 0
        assert dense[i, j] == same
    graph = Graph.knn(normal(seed, 9, 2), 2)
    np.testing.assert_array_equal(
        metrics.graph_relevance(graph).toarray(), graph.adjacency().toarray()
    )


def test_the_bootstrap_covers():
    """Of 300 samples of 60 exponentials the 90 % interval covers the mean about as often; the exact
    binomial interval of the count does not reject 0.88, what skewness leaves of it."""
    hits = 0
    for seed in range(300):
        values = -torch.rand(60, generator=generator(seed)).log()
        low, high = metrics.bootstrap_interval(
            values, generator=generator(seed + 1), level=0.9, resamples=400
        )
        hits += low <= 1 <= high
    low, high = metrics.binomial_interval(torch.tensor(hits), torch.tensor(300), level=0.999)
    assert low < 0.88 < high


def test_the_bootstrap_is_the_normal_interval_of_many_rows(monkeypatch):
    values = normal(0, 4000)
    low, high = metrics.bootstrap_interval(values, generator=generator(), resamples=4000)
    centre, reach = values.mean().item(), 1.96 * values.std().item() / math.sqrt(4000)
    assert low == pytest.approx(centre - reach, abs=0.08 * reach)
    assert high == pytest.approx(centre + reach, abs=0.08 * reach)
    monkeypatch.setattr("vsae.metrics.bootstrap.BLOCK", 3 * 4000)
    again = metrics.bootstrap_interval(values, generator=generator(), resamples=4000)
    assert again == (low, high)


def test_results_are_a_function_of_the_generator():
    codes, relevance = normal(0, 20, 4).relu(), graded(1, 20)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = metrics.score_retrieval(codes, relevance, k=3, generator=generator(5))
    assert torch.equal(torch.get_rng_state(), state)
    assert metrics.score_retrieval(codes, relevance, k=3, generator=generator(5)) == first


def test_ten_thousand_rows_need_no_matrix_of_pairs():
    """The greatest array at a time is a block of rankings, the relevance has 20 entries a row."""
    rows = 10_000
    codes = torch.randn(rows, 16, generator=generator(), dtype=torch.float32).relu()
    relevance = metrics.graph_relevance(Graph.knn(codes[:, :8], 10))
    found = metrics.score_retrieval(codes, relevance, k=10, generator=generator(), permutations=2)
    assert found.precision.value > 20 * found.precision.chance


ONES, SQUARE = torch.ones(3, 2), sparse.csr_array(np.ones((4, 4)))


@pytest.mark.parametrize(
    ("call", "code", "kind"),
    [
        (
            lambda g: metrics.nearest_rows(ONES, 3, generator=g),
            "retrieval.shape",
            DataError,
        ),
        (
            lambda g: metrics.nearest_rows(ONES, 0, generator=g),
            "retrieval.shape",
            DataError,
        ),
        (
            lambda g: metrics.nearest_rows(ONES / 0, 1, generator=g),
            "data.nonfinite",
            DataError,
        ),
        (lambda g: metrics.ndcg_chance(SQUARE, k=4), "retrieval.shape", DataError),
        (lambda g: metrics.precision_chance(-SQUARE), "retrieval.relevance", DataError),
        (lambda g: metrics.precision_chance(SQUARE * np.nan), "retrieval.relevance", DataError),
        (lambda g: metrics.precision_chance(SQUARE[:2]), "retrieval.relevance", DataError),
        (
            lambda g: metrics.score_retrieval(ONES, SQUARE, k=1, generator=g),
            "retrieval.shape",
            DataError,
        ),
        (
            lambda g: metrics.score_retrieval(
                torch.ones(4, 2), SQUARE, k=1, generator=g, permutations=1
            ),
            "metrics.resamples",
            ConfigError,
        ),
        (lambda g: metrics.bootstrap_interval(torch.ones(0), generator=g), "data.empty", DataError),
        (
            lambda g: metrics.bootstrap_interval(torch.ones(3), generator=g, level=1.0),
            "calibration.level",
            ConfigError,
        ),
    ],
)
def test_faults_are_named(call, code, kind):
    with pytest.raises(kind) as caught:
        call(generator())
    assert caught.value.code == code
