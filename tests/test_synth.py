"""Synthetic benchmarks: the law of trees by enumeration, samples against closed forms, errors."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Generator

import toys.synth_directions
from priors.errors import ConfigError
from toys.directions import RandomDirections
from toys.synth import DATA_A, SYNTH_16K, SynthCase
from toys.synth_directions import OrthogonalisedDirections
from toys.synth_law import SynthLaw
from toys.synth_parts import FoldedNormal, LinearlySpaced, LowRankCopula, ZipfRates
from toys.synth_trees import SynthTrees

LIMIT = 4.5  # standard errors; of a thousand numbers tested, none is beyond in 99 of 100 runs

TREES = SynthTrees(roots=2, branching=3, depth=2)  # 2 + 6 + 18 nodes
SMALL = SynthCase(
    features=32,
    d_model=12,
    rates=ZipfRates(exponent=1.0, low=0.02, high=0.5),
    trees=TREES,
    copula=None,
    mean=LinearlySpaced(start=2.0, stop=1.0),
    deviation=FoldedNormal(loc=0.5, scale=0.5),  # of some features ReLU silences a tenth
    directions=RandomDirections(),
    bias=0.5,
    noise=0.1,
)


def seeded(seed=0):
    return Generator().manual_seed(seed)


def means_agree(samples, expected):
    """Sample means of the columns within ``LIMIT`` standard errors of what is expected."""
    error = samples.std(0) / len(samples) ** 0.5
    found = samples.mean(0)
    assert ((found - expected).abs() <= LIMIT * error + 1e-12).all(), (found - expected) / error


# Trees ----------------------------------------------------------------------------------------


def enumerated(trees, open_rates):
    """Rates by the definition: every pattern of gates, lots drawn among open siblings."""
    rates, parents = np.zeros(trees.size), trees.parents(trees.size).tolist()
    for pattern in product((0, 1), repeat=trees.size):
        chance = np.prod(np.where(pattern, open_rates, 1 - open_rates))
        fires = np.zeros(trees.size)
        for i, p in enumerate(parents):
            rivals = sum(b for b, q in zip(pattern, parents, strict=True) if q == p)
            share = pattern[i] / max(rivals, 1) if trees.exclusive else pattern[i]
            fires[i] = share * fires[p] if p >= 0 else pattern[i]
        rates += chance * fires
    return rates


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("shape", [(1, 2, 2), (2, 4, 1), (1, 3, 1), (3, 2, 1)])
def test_rates_of_trees_are_those_of_enumeration(shape, exclusive):
    trees = SynthTrees(roots=shape[0], branching=shape[1], depth=shape[2], exclusive=exclusive)
    active = torch.rand(trees.size + 1, generator=seeded(1))
    active[trees.roots] = 1.0
    found = trees.rates(active)
    np.testing.assert_allclose(found[:-1], enumerated(trees, active[:-1].numpy()), rtol=1e-12)
    assert found[-1] == active[-1]  # untied
    batch = torch.stack([active, active.flip(0)])
    torch.testing.assert_close(trees.rates(batch)[1], trees.rates(active.flip(0)))


def test_nodes_are_numbered_level_by_level():
    assert TREES.parents(28).tolist() == (
        [-1, -1] + [0] * 3 + [1] * 3 + [p for p in range(2, 8) for _ in range(3)] + [-1, -1]
    )
    assert TREES.levels == (slice(0, 2), slice(2, 8), slice(8, 26))
    parents = TREES.parents(26)
    for node, children in enumerate(TREES.siblings()):
        assert (parents[children] == node).all()
    assert TREES.siblings().flatten().tolist() == list(range(2, 26))


def test_gates_are_compensated_for_parents_and_for_siblings():
    rates = 0.5 / torch.arange(1, 29)
    parents = TREES.parents(28).tolist()
    for exclusive in (True, False):
        gates = replace(TREES, exclusive=exclusive).gates(rates)
        for i, p in enumerate(parents):
            others = [rates[j] for j in range(28) if j != i and parents[j] == p and p >= 0]
            above = rates[p] if p >= 0 else 1.0
            expected = rates[i] / above * (1 + exclusive * sum(others) / above)
            torch.testing.assert_close(gates[i], torch.as_tensor(expected))
    assert torch.equal(replace(TREES, compensated=False).gates(rates), rates)


def test_compensation_overshoots_for_rare_siblings():
    """Of two with the share ``s`` of their parent, gates are ``s + s²``; ``s²/2`` would do."""
    trees, s = SynthTrees(roots=1, branching=2, depth=1), 0.004
    found = trees.rates(trees.gates(torch.tensor([0.5, 0.5 * s, 0.5 * s])))[1] / 0.5
    gate = s + s**2
    torch.testing.assert_close(found, torch.tensor(gate - gate**2 / 2))
    assert abs(found - (s + s**2 / 2)) < 1.1 * s**3


# Samples --------------------------------------------------------------------------------------


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("scaled", [True, False])
def test_samples_fire_as_the_closed_form_says(exclusive, scaled):
    trees = replace(TREES, exclusive=exclusive, scaled=scaled)
    toy = replace(SMALL, trees=trees).build(seeded(2))
    fires = (toy.sample(100_000, seeded(3)).codes > 0).double()
    means_agree(fires, toy.rates)
    ratio = toy.law.mean.double() / toy.law.deviation
    left = torch.from_numpy(scipy.stats.norm.cdf(ratio.numpy()))  # by ReLU
    assert left.min() < 0.95
    torch.testing.assert_close(toy.rates[:2], (toy.requested * left)[:2])
    torch.testing.assert_close(toy.rates[26:], (toy.requested * left)[26:])
    # Children fire with their parents only, exclusive siblings alone.
    tied = toy.parents >= 0
    assert (fires[:, tied] <= fires[:, toy.parents[tied]]).all()
    alone = fires[:, toy.siblings].sum(-1).max() == 1
    assert alone == exclusive


def test_pairs_fire_together_as_the_forest_of_the_toy_says():
    toy = SMALL.build(seeded(2))
    forest = toy.forest()
    torch.testing.assert_close(forest.rate(), toy.rates)
    fires = (toy.sample(100_000, seeded(4)).codes > 0).double()
    together, expected = fires.mT @ fires / len(fires), forest.together()
    assert (together[expected == 0] == 0).all()
    error = (expected * (1 - expected) / len(fires)).sqrt()
    assert ((together - expected).abs() <= LIMIT * error).all()
    assert toy.graph.num_edges == 24


def test_children_are_scaled_by_their_parents():
    toy = SMALL.build(seeded(2))
    fixed = replace(SMALL, deviation=LinearlySpaced(start=0.0, stop=0.0)).build(seeded(2))
    codes = fixed.sample(1000, seeded(5)).codes
    torch.testing.assert_close(codes, (codes > 0) * fixed.law.mean.double())
    for scaled in (True, False):
        law = replace(toy.law, trees=replace(TREES, scaled=scaled))
        codes = law.sample(200_000, seeded(6))
        for child in (3, 20):
            parent = int(toy.parents[child])
            both = codes[codes[:, child] > 0]
            factor = both[:, parent] / toy.law.mean[parent] if scaled else 1.0
            own = both[:, child] / factor  # a normal variable given that it is positive
            loc, scale = toy.law.mean[child].item(), toy.law.deviation[child].item()
            expected = scipy.stats.truncnorm.stats(-loc / scale, np.inf, loc, scale)[0]
            means_agree(own[:, None], torch.as_tensor(expected))


def pair_law(first, second):
    """Two untied features with the rates .3 and .2 and one common factor."""
    return SynthLaw(
        gates=torch.tensor([0.3, 0.2]),
        mean=torch.ones(2, dtype=torch.float32),
        deviation=torch.zeros(2, dtype=torch.float32),
        loadings=torch.tensor([[first], [second]], dtype=torch.float32),
        trees=None,
    )


@pytest.mark.parametrize(("first", "second"), [(0.8, 0.7), (0.8, -0.7), (-0.9, -0.5)])
def test_gates_have_the_copula_of_their_loadings(first, second):
    fires = (pair_law(first, second).sample(100_000, seeded(1)) > 0).double()
    means_agree(fires, torch.tensor([0.3, 0.2]))
    z = scipy.stats.norm.isf([0.3, 0.2])
    covariance = [[1, first * second], [first * second, 1]]
    together = scipy.stats.multivariate_normal(cov=covariance).cdf(-z)
    means_agree(fires.prod(1, keepdim=True), torch.as_tensor(together))
    excess = np.corrcoef(fires.numpy().T)[0, 1]
    assert np.sign(excess) == np.sign(first * second)
    assert abs(excess) > 0.15


def test_rates_given_the_common_factor_average_to_the_rates_of_samples():
    """With a copula tied features fire otherwise than the closed form says, and by how much."""
    toy = replace(SMALL, copula=LowRankCopula(rank=1, scale=0.4)).build(seeded(7))
    fires = (toy.sample(200_000, seeded(3)).codes > 0).double()
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    given = toy.law.rates_given(torch.from_numpy(nodes)[:, None].float())
    rates = torch.from_numpy(weights / weights.sum()) @ given
    means_agree(fires, rates)
    untied = torch.arange(32) >= 26
    torch.testing.assert_close(rates[untied], toy.rates[untied], rtol=1e-5, atol=0)
    assert ((rates / toy.rates)[~untied] - 1).abs().max() > 0.1
    independent = SMALL.build(seeded(7)).law
    torch.testing.assert_close(independent.rates_given(torch.empty(1, 0))[0], independent.rates())


# Parts ----------------------------------------------------------------------------------------


def test_zipf_rates_fall_as_a_power_of_the_rank():
    p = ZipfRates(exponent=0.7, low=0.01, high=0.3).of(50)
    assert (p[0], p[-1]) == (pytest.approx(0.3), pytest.approx(0.01))
    power = torch.arange(1, 51) ** -0.7
    slope = (p[:-1] - p[1:]) / (power[:-1] - power[1:])
    torch.testing.assert_close(slope, slope[:1].expand(49))


def test_folded_normals_and_loadings_have_their_moments():
    drawn = FoldedNormal(loc=0.5, scale=0.5).draw(50_000, seeded()).double()
    mean = scipy.stats.foldnorm.mean(1.0, scale=0.5)
    means_agree(drawn[:, None], torch.as_tensor(mean))
    loadings = LowRankCopula(rank=4, scale=0.1).draw(20_000, seeded()).double()
    means_agree(loadings, torch.zeros(4))
    means_agree(loadings**2, torch.full((4,), 0.01))


def test_directions_descend_the_stated_objective(monkeypatch):
    start = torch.randn(7, 4, generator=seeded())
    rows = torch.nn.functional.normalize(start, dim=1).requires_grad_()
    adam = torch.optim.Adam([rows], lr=0.05)
    for _ in range(30):
        adam.zero_grad()
        gram = rows @ rows.mT
        own = gram.diagonal()
        loss = (gram**2).sum() - (own**2).sum() + 7 * ((own - 1) ** 2).sum()
        loss.backward()
        adam.step()
    expected = torch.nn.functional.normalize(rows.detach(), dim=1)
    law = OrthogonalisedDirections(steps=30, rate=0.05)
    for chunk in (1024, 3):
        monkeypatch.setattr(toys.synth_directions, "CHUNK", chunk)
        torch.testing.assert_close(law.descend(start), expected)


# Toys -----------------------------------------------------------------------------------------


@pytest.fixture
def data_a():
    return DATA_A.build(seeded())


def test_data_a_is_as_described(data_a):
    torch.testing.assert_close(data_a.dictionary.norm(dim=1), torch.ones(512))
    cosine = (data_a.dictionary @ data_a.dictionary.mT).abs().fill_diagonal_(0)
    torch.testing.assert_close(data_a.overlap(), cosine.amax(1))
    assert round(data_a.overlap().mean().item(), 2) == 0.30  # as published of the pilot's
    assert data_a.bias.norm().item() == pytest.approx(0.5)
    assert (data_a.parents >= 0).sum() == 192
    assert data_a.siblings.shape == (64, 3)


def test_data_a_fires_as_its_law_says(data_a):
    codes = data_a.sample(100_000, seeded(1)).codes
    fires = (codes > 0).double()
    common = torch.randn(20_000, 8, generator=seeded(2))
    given = data_a.law.rates_given(common)
    rates, error = given.mean(0), given.var(0) / len(common)
    error = (error + fires.var(0) / len(fires)).sqrt()
    assert ((fires.mean(0) - rates).abs() <= LIMIT * error).all()
    untied = slice(208, None)
    means_agree(fires[:, untied], data_a.requested[untied])
    means_agree(codes[:, :1][codes[:, 0] > 0], torch.tensor(4.0))
    l0 = fires.sum(1, keepdim=True)
    assert l0.mean().item() == pytest.approx(rates.sum().item(), abs=0.05)


def test_the_published_protocol_fires_34_features_on_a_row():
    toy = replace(SYNTH_16K, directions=RandomDirections()).build(seeded())
    assert int(toy.rates.sum()) == 34  # as published
    assert (toy.parents >= 0).sum() == 128 * (4 + 16 + 64)
    codes = toy.sample(64, seeded(1)).codes
    tied = toy.parents >= 0
    fires = codes > 0
    assert not (fires[:, tied] & ~fires[:, toy.parents[tied]]).any()
    assert fires[:, toy.siblings].sum(-1).max() == 1


def test_activations_are_codes_bias_and_noise():
    toy = SMALL.build(seeded())
    x, codes = toy.sample(2000, seeded(1))
    generator = seeded(1)
    assert torch.equal(codes, toy.law.sample(2000, generator))
    noise = 0.1 * torch.randn(2000, 12, generator=generator)
    torch.testing.assert_close(x, codes @ toy.dictionary + toy.bias + noise)
    quiet = replace(toy, noise=0.0)
    assert torch.equal(quiet.sample(2000, seeded(1)).codes, codes)
    torch.testing.assert_close(
        quiet.sample(2000, seeded(1)).x, codes @ toy.dictionary + toy.bias, rtol=1e-13, atol=1e-13
    )


def test_a_toy_is_a_function_of_its_generator_and_codes_of_no_dtype():
    case = replace(SMALL, copula=LowRankCopula(rank=2, scale=0.3))
    one, other = case.build(seeded(3)), case.build(seeded(3))
    again = one.to("cpu").sample(3000, seeded(4))
    first = other.sample(3000, seeded(4))
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.codes, again.codes)
    assert not torch.equal(first.codes, one.sample(3000, seeded(5)).codes)
    assert not torch.equal(one.dictionary, case.build(seeded(4)).dictionary)
    torch.set_default_dtype(torch.float32)
    single = case.build(seeded(3))
    batch = single.sample(3000, seeded(4))
    assert batch.x.dtype == batch.codes.dtype == single.dictionary.dtype == torch.float32
    assert torch.equal(batch.codes.double(), first.codes)
    torch.testing.assert_close(single.bias, one.bias.float())


def test_a_toy_without_trees_has_no_family():
    toy = replace(SMALL, trees=None).build(seeded())
    assert (toy.parents == -1).all()
    assert toy.siblings.shape == (0, 0)
    assert toy.graph.num_edges == 0
    assert toy.forest().levels == (0,) * 32
    fires = (toy.sample(50_000, seeded(1)).codes > 0).double()
    means_agree(fires, toy.rates)


TO_ZERO = LinearlySpaced(start=1.0, stop=0.0)


@pytest.mark.parametrize(
    ("build", "code"),
    [
        (lambda: ZipfRates(exponent=0.5, low=0.3, high=0.2), "toy.rate"),
        (lambda: ZipfRates(exponent=0.0, low=0.1, high=0.2), "toy.rate"),
        (lambda: ZipfRates(exponent=0.5, low=0.1, high=0.2).of(1), "toy.size"),
        (lambda: LinearlySpaced(start=-1.0, stop=1.0), "toy.scale"),
        (lambda: FoldedNormal(loc=0.0, scale=float("nan")), "toy.scale"),
        (lambda: LowRankCopula(rank=0, scale=0.1), "toy.infeasible_correlation"),
        (lambda: LowRankCopula(rank=1, scale=0.0), "toy.infeasible_correlation"),
        (lambda: LowRankCopula(rank=9, scale=1.0).draw(9, seeded()), "toy.infeasible_correlation"),
        (lambda: SynthTrees(roots=0, branching=2, depth=1), "toy.tree"),
        (lambda: SynthTrees(roots=1, branching=1, depth=1), "toy.tree"),
        (lambda: SynthTrees(roots=1, branching=2, depth=0), "toy.tree"),
        (lambda: TREES.gates(torch.full((26,), 0.5)), "toy.rate"),
        (lambda: OrthogonalisedDirections(steps=-1), "toy.spread"),
        (lambda: OrthogonalisedDirections(rate=0.0), "toy.spread"),
        (lambda: replace(SMALL, features=25), "toy.size"),
        (lambda: replace(SMALL, bias=-1.0), "toy.scale"),
        (lambda: replace(SMALL, noise=-1.0), "toy.noise"),
        (lambda: replace(SMALL, d_model=0), "toy.d_model"),
        (lambda: replace(SMALL, mean=TO_ZERO).build(seeded()), "toy.scale"),
        (lambda: SMALL.build(seeded()).sample(0, seeded()), "toy.rows"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_said(build, code):
    with pytest.raises(ConfigError) as caught:
        build()
    assert caught.value.code == code
