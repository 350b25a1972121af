"""A graph over rows: its term against dense linear algebra, its batches, its bias, its refusals."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from graph_strategies import dense_adjacency, dense_laplacian, graphs
from hypothesis import given
from hypothesis import strategies as st
from pairs import D, K, pair
from prior_table import PER_ROW
from torch import nn

from priors import Graph, coactivation_graph
from priors.induced import EdgeIndex
from priors.replicas import stack, unstack
from vsae import (
    ClosedFormELBO,
    EdgeBatches,
    LinearWarmup,
    RefreshedNeighbours,
    SampleGraphELBO,
    SparseCode,
    fit,
    l1_autoencoder,
    scale_latents,
    topk_autoencoder,
)
from vsae.batches import Batches
from vsae.errors import VsaeError
from vsae.sample_graph_elbo import row_smoothness

SEED = st.integers(0, 2**32 - 1)
R = 3


def code_of(make, *args, **settings):
    with pytest.raises(VsaeError) as caught:
        make(*args, **settings)
    return caught.value.code


def everyone(graph):
    return EdgeIndex(graph).among(torch.arange(graph.num_nodes))


def knn(rows=40, k=3, seed=0):
    points = torch.randn(rows, D, generator=torch.Generator().manual_seed(seed))
    return points, Graph.knn(points, k)


# The term.


@PER_ROW
@given(graph=graphs(signed=True), seed=SEED)
def test_it_is_the_trace_of_the_form_half_to_each_end(graph, seed):
    codes = np.random.default_rng(seed).standard_normal((graph.num_nodes, 3))
    raw = (graph.num_nodes, graph.edges.numpy(), graph.weights.numpy())
    found = row_smoothness(torch.from_numpy(codes), everyone(graph)).numpy()
    laplacian = dense_laplacian(*raw)
    np.testing.assert_allclose(found.sum(), np.trace(codes.T @ laplacian @ codes), atol=1e-10)
    adjacency = dense_adjacency(*raw)
    for a in range(graph.num_nodes):
        gap = codes[a] - np.sign(adjacency[a])[:, None] * codes
        expected = 0.5 * (np.abs(adjacency[a]) * (gap**2).sum(1)).sum()
        np.testing.assert_allclose(found[a], expected, atol=1e-10)


@PER_ROW
@given(graph=graphs(signed=True), seed=SEED)
def test_a_normalised_graph_divides_codes_by_root_degree(graph, seed):
    codes = np.random.default_rng(seed).standard_normal((graph.num_nodes, 3))
    raw = (graph.num_nodes, graph.edges.numpy(), graph.weights.numpy())
    degree = np.abs(dense_adjacency(*raw)).sum(1)
    scaled = codes / np.sqrt(np.where(degree > 0, degree, 1.0))[:, None]
    expected = np.trace(scaled.T @ dense_laplacian(*raw) @ scaled)
    found = row_smoothness(torch.from_numpy(codes), everyone(graph.normalized())).sum()
    np.testing.assert_allclose(found.item(), expected, atol=1e-10)


@PER_ROW
@given(graph=graphs(signed=True), seed=SEED, signs=st.booleans())
def test_codes_in_slots_are_dense_codes_in_value_and_gradient(graph, seed, signs):
    generator = torch.Generator().manual_seed(seed % 2**31)
    rows, latents, width = graph.num_nodes, 7, 4
    order = torch.rand(rows, latents, generator=generator).argsort(-1)
    support = order[:, :width]
    z = torch.randn(rows, width, generator=generator)
    z = (z * (torch.rand(rows, width, generator=generator) < 0.7)).requires_grad_()  # empty slots
    graph = graph.normalized() if signs else graph
    weights = torch.randn(rows, generator=generator)
    code = SparseCode(support, z, latents)
    ours, dense = (row_smoothness(c, everyone(graph)) for c in (code, code.dense()))
    torch.testing.assert_close(ours, dense, rtol=1e-10, atol=1e-10)
    (one,) = torch.autograd.grad((weights * ours).sum(), z)
    (other,) = torch.autograd.grad((weights * dense).sum(), z)
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_repeated_empty_slots_hide_no_amplitude():
    support = torch.tensor([[2, 2, 2], [2, 0, 2]])
    z = torch.tensor([[0.0, 1.5, 0.0], [0.0, 3.0, -2.0]])
    code = SparseCode(support, z, 4)
    ours, dense = (row_smoothness(c, everyone(Graph.ring(2))) for c in (code, code.dense()))
    torch.testing.assert_close(ours, dense)


@given(graph=graphs(signed=True, most_nodes=12), seed=SEED)
def test_the_edges_among_rows_are_those_of_the_submatrix(graph, seed):
    rng = np.random.default_rng(seed)
    rows = rng.permutation(graph.num_nodes)[: rng.integers(1, graph.num_nodes + 1)]
    index = EdgeIndex(graph)
    for _ in range(2):  # nothing is left over from the first time
        inside = index.among(torch.from_numpy(rows))
    found = np.zeros((len(rows), len(rows)))
    for low, high, size, right in zip(
        *(getattr(inside, n).tolist() for n in ("low", "high", "size", "right")), strict=True
    ):
        found[low, high] += size * right
        found[high, low] += size * right
    raw = (graph.num_nodes, graph.edges.numpy(), graph.weights.numpy())
    np.testing.assert_array_equal(found, dense_adjacency(*raw)[np.ix_(rows, rows)])


# The objective.


@pytest.mark.parametrize("posterior", ["gaussian", "relu"])
def test_terms_are_those_of_the_elbo_and_one_more(posterior):
    """Which β does not scale, and which is of the codes that were decoded: the draws."""
    points, graph = knn()
    autoencoder, rows = pair("isotropic", posterior, link=nn.ReLU()), torch.arange(0, 40, 3)[None]
    x = points[rows[0]]
    torch.manual_seed(1)
    with scale_latents(0.3):
        plain = ClosedFormELBO().site_terms(autoencoder.model, autoencoder.guide, x)
    torch.manual_seed(1)
    codes = autoencoder.guide(x)["z"].relu().detach().numpy()
    torch.manual_seed(1)
    elbo = SampleGraphELBO(graph, strength=0.25).on(rows, 0)
    with scale_latents(0.3):
        ours = elbo.site_terms(autoencoder.model, autoencoder.guide, x)
    term = ours.pop("smoothness")
    torch.testing.assert_close(ours, plain)
    assert term.shape == (14,)
    dense = graph.adjacency().toarray()[np.ix_(rows[0], rows[0])]
    form = codes.T @ (np.diag(dense.sum(1)) - dense) @ codes
    np.testing.assert_allclose(term.sum().item(), 0.25 * np.trace(form), rtol=1e-10)


def test_a_step_of_fit_is_a_step_on_the_dense_form():
    points, graph = knn(12)
    trained, by_hand = pair("isotropic", "relu"), pair("isotropic", "relu")
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
    elbo = SampleGraphELBO(graph, strength=LinearWarmup(4, 2.0))
    list(fit(trained, points, steps=2, batch_size=12, optimizer=optimizer, elbo=elbo))
    laplacian = torch.from_numpy(graph.laplacian().toarray())
    for step in range(2):
        by_hand.zero_grad()
        codes = by_hand.guide.posterior(points)["z"].mean
        smooth = 2.0 * (step + 1) / 4 * torch.trace(codes.mT @ laplacian @ codes)
        loss = ClosedFormELBO().differentiable_loss(by_hand.model, by_hand.guide, points) + smooth
        (loss / 12).backward()
        with torch.no_grad():
            atoms = by_hand.W_dec
            atoms.grad -= (atoms.grad * atoms).sum(-1, keepdim=True) * atoms
            for p in by_hand.parameters():
                if p.grad is not None:
                    p -= 0.1 * p.grad
            atoms /= atoms.norm(dim=-1, keepdim=True)
    for one, other in zip(trained.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_records_say_how_many_edges_a_batch_had():
    points, graph = knn(60)
    run = fit(pair(posterior="relu"), points, steps=5, batch_size=10, elbo=SampleGraphELBO(graph))
    for record in run:
        rows = run.batches.rows(record.step)[0].numpy()
        inside = graph.adjacency().toarray()[np.ix_(rows, rows)]
        assert record.to_dict()["codes/edges"] == (inside > 0).sum() / 2
        assert {"elbo/x", "elbo/z", "elbo/smoothness"} <= set(record.to_dict())


@pytest.mark.parametrize("batches", ["plain", "edges"])
def test_a_replica_is_the_same_model_trained_alone(batches):
    points, graph = knn()
    make = Batches if batches == "plain" else partial(EdgeBatches, graph)
    settings = {"steps": 6, "batch_size": 8, "lr": 0.05, "batches": make}
    together = stack([pair(posterior="relu", seed=s) for s in range(R)])
    elbo = SampleGraphELBO(graph, strength=0.5)
    records = fit(together, points, seed=range(R), elbo=elbo, **settings).run(progress=False)
    for r, replica in enumerate(unstack(together)):
        alone = pair(posterior="relu", seed=r)
        own = fit(alone, points, seed=r, elbo=elbo, **settings).run(progress=False)
        for name in ("elbo/smoothness", "elbo/loss", "codes/edges"):
            torch.testing.assert_close([x[name][r] for x in records], [x[name] for x in own])
        torch.testing.assert_close(replica.W_dec, alone.W_dec)


def test_neighbours_become_alike_and_a_topk_pair_works():
    points, graph = knn(200)
    spread = {}
    for strength in (0.0, 5.0):
        torch.manual_seed(0)
        autoencoder = topk_autoencoder(D, 32, k=3)
        elbo, make = SampleGraphELBO(graph, strength=strength), partial(EdgeBatches, graph)
        settings = {"steps": 150, "batch_size": 50, "lr": 0.01, "batches": make}
        fit(autoencoder, points, elbo=elbo, **settings).run(progress=False)
        codes = autoencoder.encode(points).detach()
        energy = row_smoothness(codes, everyone(graph)).sum() / codes.square().sum()
        spread[strength] = energy.item()
    assert spread[5.0] < 0.8 * spread[0.0]


def test_a_graph_without_edges_adds_nothing():
    points, _ = knn(20)
    elbo = SampleGraphELBO(Graph(np.zeros((2, 0), np.int64), [], 20))
    (record,) = fit(pair(posterior="relu"), points, steps=1, batch_size=8, elbo=elbo)
    assert record.to_dict()["elbo/smoothness"] == record.to_dict()["codes/edges"] == 0


def test_draws_may_be_averaged():
    points, graph = knn(10)
    elbo = SampleGraphELBO(graph, num_particles=3).on(torch.arange(10)[None], 0)
    autoencoder = pair()
    terms = elbo.site_terms(autoencoder.model, autoencoder.guide, points)
    assert terms["smoothness"].shape == (10,)


# Batches.


def test_uniform_batches_hold_the_edges_that_the_formula_says():
    """|E| B (B - 1) / N (N - 1), over 400 batches of different seeds, within five standard errors;
    batches of edges hold many times that."""
    points, graph = knn(300, k=4)
    size, count = 30, 400
    index = EdgeIndex(graph)

    def counts(make):
        seeds = range(count)
        return np.array([len(index.among(make([s]).rows(0)[0]).low) for s in seeds])

    uniform = counts(lambda seeds: Batches(points, size, seeds))
    ours = counts(lambda seeds: EdgeBatches(graph, points, size, seeds))
    expected = graph.num_edges * size * (size - 1) / (300 * 299)
    assert abs(uniform.mean() - expected) < 5 * uniform.std() / count**0.5
    assert ours.min() >= (size - 1) / 2
    assert ours.mean() > 2 * expected


@PER_ROW
@given(
    graph=graphs(signed=False, most_nodes=14), seed=st.integers(0, 2**31), step=st.integers(0, 9)
)
def test_rows_are_distinct_and_come_with_a_neighbour(graph, seed, step):
    tied = graph.num_nodes - len(graph.isolated)
    if not tied:
        return
    data = torch.arange(float(graph.num_nodes))[:, None]
    adjacency = graph.adjacency().toarray() > 0
    for size in range(1, tied + 1):
        batches = EdgeBatches(graph, data, size, [seed])
        rows = batches.rows(step)[0]
        assert rows.shape == (size,)
        assert len(set(rows.tolist())) == size
        met = adjacency[np.ix_(rows, rows)].any(1)
        assert met[:-1].all()  # the last one stands at the cut
        assert batches(step).flatten().tolist() == rows.tolist()


def test_a_batch_is_a_function_of_seed_and_step():
    points, graph = knn(80)
    one = EdgeBatches(graph, points, 16, [3])
    first = [one.rows(t).clone() for t in range(4)]
    other = EdgeBatches(graph, points, 16, [3])
    assert torch.equal(other.rows(3), first[3])
    assert torch.equal(other.rows(0), first[0])
    assert not torch.equal(first[0].sort().values, first[1].sort().values)
    several = EdgeBatches(graph, points, 16, [5, 3])
    assert torch.equal(several.rows(2)[1], first[2][0])
    assert several(2).shape == (2, 16, D)
    assert not torch.equal(several.rows(2)[0], first[2][0])


def test_rows_are_seen_in_proportion_to_their_degree():
    """Batches of two rows are single edges: over 4 000, each row's count within five deviations."""
    graph = Graph.tree([-1, 0, 0, 0, 1, 1])  # degrees 3, 3, 1, 1, 1, 1
    batches = EdgeBatches(graph, torch.zeros(6, 1), 2, [0])
    seen = torch.cat([batches.rows(t)[0] for t in range(4000)])
    count = torch.bincount(seen, minlength=6).numpy()
    chance = graph.degree.numpy() / graph.num_edges
    assert (abs(count - 4000 * chance) < 5 * np.sqrt(4000 * chance * (1 - chance))).all()


def test_batches_that_cannot_be():
    points, graph = knn(20)
    pairs = Graph(torch.tensor([[0, 2], [1, 3]]), torch.ones(2), 20)
    with pytest.raises(VsaeError, match=r"5 rows from 4 .* in 2 components of at most 2") as caught:
        EdgeBatches(pairs, points, 5, [0])
    assert caught.value.code == "batches.neighbours"
    assert code_of(EdgeBatches, Graph.ring(19), points, 4, [0]) == "graph.num_nodes"
    assert code_of(EdgeBatches, graph, points, 0, [0]) == "data.empty"


# What is refused.


def test_a_graph_over_other_rows_or_over_latents_is_refused_at_the_door():
    points, _ = knn(20)
    for nodes in (K, 19):
        with pytest.raises(VsaeError, match=r"not over the rows.*over latents is for") as caught:
            fit(pair(), points, steps=1, elbo=SampleGraphELBO(Graph.ring(nodes)), batch_size=4)
        assert caught.value.code == "graph.num_nodes"


def test_settings_and_unknown_rows():
    points, graph = knn(10)
    for strength in (-1.0, float("nan"), float("inf")):
        assert code_of(SampleGraphELBO, graph, strength=strength) == "elbo.strength"
    autoencoder, elbo = pair(), SampleGraphELBO(graph)
    assert code_of(elbo.terms, autoencoder.model, autoencoder.guide, points) == "elbo.rows"
    assert elbo.report() == {}
    elbo.on(torch.arange(10)[None], 0)
    assert code_of(elbo.terms, autoencoder.model, autoencoder.guide, points) == "elbo.rows"


# A graph that follows the codes.


@pytest.mark.parametrize("kind", ["dense", "slots"])
def test_neighbours_are_those_of_the_present_codes(kind):
    points, _ = knn(50)
    torch.manual_seed(0)
    make = {"dense": partial(l1_autoencoder, l1=0.1), "slots": partial(topk_autoencoder, k=4)}
    autoencoder = make[kind](D, 16)
    near = RefreshedNeighbours(autoencoder, points, 3, every=2)
    elbo, batches = SampleGraphELBO(near, strength=0.1), partial(EdgeBatches, near)
    before, graphs_seen = autoencoder.encode(points), []
    for _ in fit(autoencoder, points, steps=5, batch_size=10, lr=0.1, elbo=elbo, batches=batches):
        assert near.graph == coactivation_graph(before.mT, 3)
        graphs_seen.append(near.graph)
        if len(graphs_seen) % 2 == 0:  # the codes at which the next search is made
            before = autoencoder.encode(points)
    assert [a is b for a, b in itertools.pairwise(graphs_seen)] == [1, 0, 1, 0]


def test_a_run_may_begin_with_a_graph_from_elsewhere():
    points, graph = knn(30)
    near = RefreshedNeighbours(l1_autoencoder(D, 8, l1=0.1), points, 2, every=5, graph=graph)
    assert near(0) is near(4) is graph
    assert near(5) is not graph
    both = stack([pair(), pair()])
    assert code_of(RefreshedNeighbours, both, points, 2, every=5) == "replicas.graph"
    assert code_of(RefreshedNeighbours, pair(), points, 2, every=0) == "refresh.every"


@pytest.mark.float32
def test_in_float32():
    points, graph = knn(40)
    elbo = SampleGraphELBO(graph, strength=0.5)
    records = fit(l1_autoencoder(D, 8, l1=0.1), points, steps=3, batch_size=20, elbo=elbo)
    assert all(r.terms["smoothness"].dtype == torch.float32 for r in records)
    codes = torch.randn(40, 5)
    found = row_smoothness(codes, everyone(graph)).sum().item()
    exact = row_smoothness(codes.double(), everyone(graph)).sum().item()
    assert found == pytest.approx(exact, rel=1e-5)
