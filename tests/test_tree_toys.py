"""Hierarchical toys: closed forms against enumeration and samples, Park's theorems, absorption."""

import json
import math
from dataclasses import asdict, replace
from itertools import product

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator

from priors.errors import ConfigError
from toys.absorption import absorbed_solution, absorption_case, true_solution
from toys.directions import SimplexDirections, SpreadDirections
from toys.forest import Forest
from toys.hedging import HedgingCase, principal
from toys.magnitudes import (
    ConstantMagnitude,
    LogNormalMagnitude,
    PositiveNormal,
    UniformMagnitude,
)
from toys.toy import realised
from toys.tree_cases import TREE_CASES, TreeCase
from toys.tree_geometry import OrthogonalFamilies, PackedFamilies
from toys.tree_law import TreeLaw
from vsae import metrics
from vsae.whitening import WhiteningNormalizer

LIMIT = 4.5  # standard errors


def seeded(seed=0):
    return Generator().manual_seed(seed)


@st.composite
def forests(draw):
    """Any forest of up to 6 nodes, siblings exclusive or not."""
    size = draw(st.integers(1, 6))
    parents = tuple(draw(st.integers(-1, node - 1)) for node in range(size))
    exclusive = tuple(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    roots = draw(st.booleans())
    share = draw(st.lists(st.floats(0.05, 1.0), min_size=size, max_size=size))
    siblings = [sum(q == p for q in parents) for p in parents]
    split = [roots if p < 0 else exclusive[p] for p in parents]
    p = tuple(s / n if e else s for s, n, e in zip(share, siblings, split, strict=True))
    # Made into a Forest by the test: the type checker of its constructor draws random numbers.
    return {"parents": parents, "probability": p, "exclusive": exclusive, "exclusive_roots": roots}


def enumerated(forest):
    """Every firing pattern and its probability, family by family, from the definition."""
    found = []
    for pattern in product((False, True), repeat=forest.size):
        chance = 1.0
        for parent in {-1, *forest.parents}:
            family = [i for i, p in enumerate(forest.parents) if p == parent]
            p, on = [forest.probability[i] for i in family], [pattern[i] for i in family]
            if parent >= 0 and not pattern[parent]:
                chance *= not any(on)
            elif forest.exclusive_roots if parent < 0 else forest.exclusive[parent]:
                some = sum(q for q, fires in zip(p, on, strict=True) if fires)
                chance *= (1 - sum(p), some, 0)[min(sum(on), 2)]
            else:
                chance *= math.prod(q if fires else 1 - q for q, fires in zip(p, on, strict=True))
        found.append(chance)
    patterns = np.array(list(product((0.0, 1.0), repeat=forest.size)))
    return patterns, np.array(found)


@given(forests())
def test_rates_and_pairs_are_those_of_enumeration(settings):
    forest = Forest(**settings)
    patterns, chance = enumerated(forest)
    assert chance.sum() == pytest.approx(1)
    both = patterns.T @ (chance[:, None] * patterns)
    np.testing.assert_allclose(forest.together(), both, atol=1e-14)
    np.testing.assert_allclose(forest.rate(), both.diagonal(), rtol=1e-13)
    assert forest.expected_l0 == pytest.approx(chance @ patterns.sum(1))
    above = forest.ancestors()
    for i, j in above.nonzero().tolist():  # a child that fires has all above it firing
        assert both[i, j] == pytest.approx(both[i, i], rel=1e-12)
    assert above.sum(1).tolist() == list(forest.levels)


MIXED = Forest(
    parents=(-1, -1, 0, 0, 0, 1, 1, 2, 2, 5),
    probability=(0.5, 0.4, 0.3, 0.3, 0.2, 0.6, 0.5, 0.5, 0.5, 0.9),
    exclusive=(True, False, True, False, False, False, False, False, False, False),
)


@pytest.mark.parametrize(
    "magnitude", [ConstantMagnitude(value=2.0), PositiveNormal(loc=1.0, scale=0.5)]
)
@pytest.mark.parametrize("roots", [False, True])
def test_samples_have_the_moments_in_closed_form(magnitude, roots):
    n, forest = 100_000, replace(MIXED, exclusive_roots=roots)
    law = TreeLaw(forest=forest, magnitude=magnitude, scale=torch.linspace(0.5, 2.0, 10))
    codes = law.sample(n, seeded(1))
    fires = codes != 0
    above = forest.ancestors()
    for i, j in above.nonzero().tolist():
        assert not (fires[:, i] & ~fires[:, j]).any()  # child ⇒ parent
    assert not (fires[:, 2] & (fires[:, 3] | fires[:, 4])).any()
    assert (fires[:, 5] & fires[:, 6]).any()
    assert (fires[:, 0] & fires[:, 1]).any() != roots
    for sample, expected in ((codes, law.second_moment()), (fires.double(), forest.together())):
        found, square = sample.mT @ sample / n, (sample**2).mT @ sample**2 / n
        error = (square - found**2).clamp(min=0).sqrt() / n**0.5
        assert (found[expected == 0] == 0).all()
        assert ((found - expected).abs() <= LIMIT * error + 1e-12).all()
    covariance = law.second_moment() - law.mean()[:, None] * law.mean()
    torch.testing.assert_close(law.covariance(), covariance)
    torch.testing.assert_close(
        law.mean(), codes.mean(0), rtol=0, atol=LIMIT * (codes.std(0) / n**0.5).max().item()
    )
    phi = np.corrcoef(fires.double().numpy().T)
    np.testing.assert_allclose(phi, forest.correlation(), atol=LIMIT / n**0.5)


def truncated(loc, scale):
    """Mean and mean square of a normal given that it is positive."""
    mean, variance = scipy.stats.truncnorm.stats(-loc / scale, np.inf, loc=loc, scale=scale)
    return mean, variance + mean**2


def test_the_upper_tail_of_a_positive_normal_keeps_its_digits():
    h = torch.linspace(-8.0, 30.0, 77)
    torch.testing.assert_close(
        PositiveNormal(loc=0.0, scale=2.0).from_normal(h),
        torch.from_numpy(2 * scipy.stats.halfnorm.isf(scipy.special.ndtr(-h.numpy()))),
    )


@pytest.mark.parametrize(
    ("magnitude", "mean", "square"),
    [
        (ConstantMagnitude(value=3.0), 3, 9),
        (UniformMagnitude(low=1.0, high=3.0), 2, 13 / 3),
        (LogNormalMagnitude(loc=0.1, scale=0.5), math.exp(0.225), math.exp(0.7)),
        (LogNormalMagnitude(loc=0.0, scale=2.0), math.exp(2), math.exp(8)),
        (PositiveNormal(), math.sqrt(2 / math.pi), 1),
        (PositiveNormal(loc=-1.0, scale=0.5), *truncated(-1.0, 0.5)),
    ],
)
def test_moments_of_magnitudes(magnitude, mean, square):
    assert magnitude.moments() == pytest.approx((mean, square), rel=1e-12)


def test_the_published_tree():
    forest = Forest.matryoshka()
    assert forest.size == 20
    assert sorted(forest.parents) == [-1] * 11 + [0] * 3 + [1] * 3 + [2] * 3
    rates = [0.15 if forest.children(n) else 0.05 for n in range(11)] + [0.15 * 0.2] * 9
    np.testing.assert_allclose(forest.rate(), rates)
    assert forest.expected_l0 == pytest.approx(3 * 0.15 * (1 + 3 * 0.2) + 8 * 0.05)
    assert forest.expected_l0 == pytest.approx(1.12)
    toy = TREE_CASES["published"].build(seeded(4))
    torch.testing.assert_close(toy.dictionary @ toy.dictionary.mT, torch.eye(20))
    norms = toy.offsets.norm(dim=-1)
    assert 0.8 < norms.min() < 0.97 < 1.03 < norms.max() < 1.2
    active = (toy.sample(100_000, seeded(5)).codes != 0).double().sum(1)
    error = active.std().item() / 1e5**0.5
    assert abs(active.mean().item() - 1.12) < LIMIT * error < abs(1.2338 - 1.12)


@pytest.mark.parametrize("name", TREE_CASES)
def test_a_toy_is_what_its_truth_says(name):
    toy = TREE_CASES[name].build(seeded(2))
    x, codes = toy.sample(2000, seeded(3))
    residual = x - codes @ toy.dictionary
    expected = residual.numel() * toy.toy.noise**2
    assert (residual**2).sum().item() == pytest.approx(expected, rel=LIMIT * (2 / x.numel()) ** 0.5)
    parents = toy.parents.tolist()
    assert toy.toy.graph.edges.mT.tolist() == sorted(
        [p, i] for i, p in enumerate(parents) if p >= 0
    )
    above = torch.cat([toy.concepts, torch.zeros_like(x[:1])])[toy.parents]  # -1: nothing
    torch.testing.assert_close(toy.concepts, above + toy.offsets)
    assert len(toy.subspaces) == len(parents)
    for node, basis in enumerate(toy.subspaces):
        family = [i for i, p in enumerate(parents) if p == node]
        if not family:
            assert basis.shape == (0, x.shape[1])
            continue
        torch.testing.assert_close(basis @ basis.mT, torch.eye(len(basis)))
        inside = toy.dictionary[family] @ basis.mT @ basis
        torch.testing.assert_close(inside, toy.dictionary[family])
    torch.testing.assert_close(toy.dictionary.norm(dim=-1), torch.ones(len(parents)))
    assert toy.toy.support is toy.toy.correlation
    assert realised(codes).support.shape == toy.toy.support.shape


def test_activations_have_the_moments_in_closed_form():
    n, case = 100_000, replace(TREE_CASES["park-2"], magnitude=PositiveNormal(loc=1.0, scale=0.3))
    toy = case.build(seeded(6))
    x = toy.sample(n, seeded(7)).x
    for sample, expected in ((x, toy.second_moment()), (x - x.mean(0), toy.covariance())):
        fourth = (sample**2).mT @ sample**2 / n
        error = ((fourth - expected**2) / n).sqrt()
        assert ((sample.mT @ sample / n - expected).abs() / error).max() < LIMIT + 0.5  # 1024 pairs


def cosine(a, b):
    return torch.nn.functional.cosine_similarity(a, b, dim=-1).abs()


def children_of(toy):
    child = (toy.parents >= 0).nonzero().squeeze(1)
    return child, toy.parents[child]


@pytest.mark.parametrize("name", ["published", "park-2", "park-3", "packed-2", "packed-3"])
def test_a_concept_is_orthogonal_to_what_its_children_add(name):
    """Park et al., 4.1 and 4.4: ℓ_w ⊥ ℓ_z − ℓ_w and ℓ_w ⊥ ℓ_z1 − ℓ_z0, at every depth."""
    toy = TREE_CASES[name].build(seeded(8))
    child, parent = children_of(toy)
    concept = toy.concepts
    assert cosine(concept[parent], concept[child] - concept[parent]).max() < 1e-12
    for w in parent.unique().tolist():
        below = concept[child[parent == w]]
        assert cosine(concept[w], below[1:] - below[:1]).max() < 1e-12
    # Shuffled parents do not: the theorem is of the tree, not of the dictionary.
    other = parent[torch.randperm(len(parent), generator=seeded(1))]
    wrong = other != parent
    null = cosine(concept[other], concept[child] - concept[other])[wrong]
    assert null.mean() > 0.3
    if name.startswith("park"):
        offsets = toy.offsets / toy.offsets.norm(dim=-1, keepdim=True)
        overlap = (offsets @ offsets.mT).abs()
        family = toy.parents[:, None] == toy.parents
        assert overlap[~family].max() < 1e-12  # across families too
    if name.startswith("packed"):
        overlap = (toy.dictionary @ toy.dictionary.mT)[toy.parents[:, None] != toy.parents]
        typical = overlap.square().mean().sqrt().item()
        assert 0.5 < typical * toy.dictionary.shape[1] ** 0.5 < 1.2  # as random directions
        assert toy.forest.size > toy.dictionary.shape[1]


def whitening(covariance):
    value, axes = torch.linalg.eigh(covariance)
    return axes / value.sqrt() @ axes.mT


@pytest.mark.parametrize("name", ["park-2", "park-3"])
def test_orthogonal_simplices_stay_orthogonal_after_whitening(name):
    """By symmetry a family's subspace is an eigenspace of the covariance, as is each root."""
    toy = TREE_CASES[name].build(seeded(9))
    child, parent = children_of(toy)
    concept = toy.concepts @ whitening(toy.covariance())
    assert cosine(concept[parent], concept[child] - concept[parent]).max() < 1e-10
    # From data it holds up to sampling: 40 times the rows, an error about 6 times smaller.
    largest = []
    for n in (1_000, 40_000):
        normalizer = WhiteningNormalizer.fit(toy.sample(n, seeded(1)).x)
        seen = toy.concepts @ normalizer.whitening
        largest.append(cosine(seen[parent], seen[child] - seen[parent]).square().mean().sqrt())
    assert 4 < largest[0] / largest[1] < 10


def test_whitening_mixes_a_parent_with_children_that_point_apart():
    """In the published tree a parent fires with its children, whose directions do not cancel."""
    toy = TREE_CASES["published"].build(seeded(9))
    child, parent = children_of(toy)
    concept = toy.concepts @ whitening(toy.covariance())
    assert cosine(concept[parent], concept[child] - concept[parent]).min() > 0.05


@given(st.integers(2, 7), st.integers(0, 4), st.integers(0, 2**31))
def test_a_simplex_is_regular(corners, more, seed):
    rows = SimplexDirections().draw(corners, corners - 1 + more, seeded(seed))
    gram = np.full((corners, corners), -1 / (corners - 1))
    np.fill_diagonal(gram, 1.0)
    np.testing.assert_allclose(rows @ rows.mT, gram, atol=1e-12)


def test_more_siblings_than_a_subspace_has_corners_are_spread_in_it():
    forest = Forest.balanced((4, 16), probability=(0.2, 0.05), exclusive=True)
    geometry = PackedFamilies(dimension=4, categorical=SpreadDirections())
    toy = TreeCase(forest=forest, geometry=geometry, d_model=16).build(seeded())
    child, parent = children_of(toy)
    assert cosine(toy.concepts[parent], toy.offsets[child]).max() < 1e-12
    assert torch.linalg.matrix_rank(toy.dictionary[list(forest.children(0))]) == 4


@pytest.mark.parametrize("lengths", [(1.0,), (2.0, 0.5)])
@pytest.mark.parametrize(("p", "c"), [(0.3, 0.4), (0.5, 0.9)])
def test_the_absorbed_solution_is_as_exact_and_sparser(p, c, lengths):
    n = 40_000
    toy = absorption_case(parent=p, child=c, lengths=lengths).build(seeded(1))
    x, truth = toy.sample(n, seeded(2))
    parent = truth[:, 0] > 0
    true, absorbed = true_solution(toy), absorbed_solution(toy)
    for autoencoder in (true, absorbed):
        torch.testing.assert_close(autoencoder(x), x, rtol=0, atol=1e-13)
    one, two = (autoencoder.encode(x) for autoencoder in (true, absorbed))
    active = ((one > 0).double().sum(1), (two > 0).double().sum(1))
    for found, expected in zip(active, (p + p * c, p), strict=True):
        assert abs(found.mean().item() - expected) < LIMIT * found.std().item() / n**0.5
    assert (active[0].mean() - active[1].mean()).item() == pytest.approx(
        (truth[:, 1] > 0).double().mean().item(), abs=1e-12
    )
    recall = (two[parent, 0] > 0).double().mean().item()
    assert abs(recall - (1 - c)) < LIMIT * (c * (1 - c) / parent.sum().item()) ** 0.5
    assert (one[parent, 0] > 0).all()
    assert not (two[~parent, 0] > 0).any()
    # And the metric says so, row by row.
    main, both = torch.tensor([True, False]), truth[parent, 1] > 0

    def absorption(autoencoder, codes):
        return metrics.absorption_fraction(
            x[parent], codes[parent], autoencoder.W_dec.detach(), toy.dictionary[0], main
        )

    torch.testing.assert_close(absorption(absorbed, two), both.double())
    assert not absorption(true, one).any()


def test_the_absorbed_weights_are_the_published_ones():
    toy = absorption_case().build(seeded(1))
    (parent, child), absorbed = toy.dictionary, absorbed_solution(toy, margin=0.0)
    length = math.sqrt(2)  # of p + c, which the unit atom is divided by
    for found, expected in (
        (absorbed.W_enc.mT, torch.stack([parent - child, length * child])),
        (absorbed.W_dec, torch.stack([parent, (parent + child) / length])),
        (absorbed.b_enc, torch.zeros(2)),
        (absorbed.b_dec, torch.zeros(8)),
    ):
        torch.testing.assert_close(found.detach(), expected)
    x = toy.sample(1000, seeded(2)).x
    torch.testing.assert_close(absorbed(x), x, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "case",
    [
        TREE_CASES["published"],
        TreeCase(
            forest=Forest.balanced((2, 3, 2), probability=(0.4, 0.3, 0.3), exclusive=True),
            lengths=(1.0, 0.5, 2.0),
        ),
    ],
    ids=["published", "depth 3"],
)
def test_whole_trees_can_be_absorbed(case):
    n, toy = 40_000, case.build(seeded(3))
    x, truth = toy.sample(n, seeded(4))
    absorbed = absorbed_solution(toy)
    torch.testing.assert_close(absorbed(x), x, rtol=0, atol=1e-12)
    codes = absorbed.encode(x)
    fires = truth > 0
    deepest = fires & ~(fires[:, None, :] & toy.forest.ancestors().mT).any(-1)
    assert torch.equal(codes > 0, deepest)
    roots = toy.forest.rate()[toy.parents < 0].sum().item()
    active = (codes > 0).double().sum(1)
    assert abs(active.mean().item() - roots) < LIMIT * active.std().item() / n**0.5


@pytest.mark.parametrize("correlation", [0.6, 0.0, -0.2])
@pytest.mark.parametrize("biased", [False, True])
def test_one_latent_hedges_as_in_closed_form(correlation, biased):
    """Against a search over atoms (and biases), every row coded as well as its atom allows."""
    case = HedgingCase(rate=(0.3, 0.2), correlation=correlation)
    (a, b), (_, c) = case.second_moment().tolist()
    rows = np.array([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
    weight = np.array([1 - a - c + b, a - b, c - b, b])

    def error(parameters):
        angle, *bias = parameters
        atom, centred = np.array([np.cos(angle), np.sin(angle)]), rows - (bias or np.zeros(2))
        code = np.maximum(centred @ atom, 0)
        return weight @ ((centred - code[:, None] * atom) ** 2).sum(1)

    shifts = ([-2.0, 0.3],) * 2 if biased else ()
    starts = product(np.linspace(-3, 3, 9), *shifts)
    best = min(
        scipy.optimize.minimize(
            error, start, method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-14}
        ).fun
        for start in starts
    )
    direction, least = principal(case.covariance() if biased else case.second_moment())
    assert best == pytest.approx(least, abs=1e-8)
    toy = case.build(seeded(5))
    autoencoder = (case.biased_solution if biased else case.solution)(toy)
    atom = autoencoder.W_dec.detach()[0] @ toy.dictionary.mT
    torch.testing.assert_close(atom, direction)
    x = torch.from_numpy(rows) @ toy.dictionary
    lost = (autoencoder(x) - x).detach().square().sum(1) @ torch.from_numpy(weight)
    assert lost.item() == pytest.approx(least, abs=1e-12)
    mixing = direction.prod().item()
    if biased:  # with the sign of the correlation
        assert math.copysign(1, mixing) * (abs(mixing) > 1e-12) == np.sign(correlation)
    else:
        assert mixing > 0.1


def test_hedging_is_of_the_toy_that_is_sampled():
    case = HedgingCase(rate=(0.3, 0.2), correlation=0.5)
    codes = case.build(seeded(1)).sample(100_000, seeded(2)).codes
    found = codes.mT @ codes / len(codes)
    assert ((found - case.second_moment()).abs() < LIMIT * 0.5 / len(codes) ** 0.5).all()


@pytest.mark.parametrize("name", TREE_CASES)
def test_a_case_is_a_value_and_one_state_one_toy(name):
    case = TREE_CASES[name]
    assert json.loads(json.dumps(asdict(case)))
    assert hash(case) == hash(replace(case))
    before = torch.get_rng_state()
    first, again, other = (case.build(seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first.dictionary, again.dictionary)
    assert not torch.equal(first.dictionary, other.dictionary)
    assert torch.equal(first.sample(9, seeded()).x, again.sample(9, seeded()).x)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.float32
def test_data_have_the_default_dtype():
    toy = TREE_CASES["packed-3"].build(seeded())
    x, codes = toy.sample(4, seeded())
    tensors = (x, codes, toy.dictionary, toy.offsets, toy.concepts, *toy.subspaces)
    assert {t.dtype for t in tensors} == {torch.float32}
    toy = absorption_case().build(seeded())
    x = toy.sample(100, seeded()).x
    torch.testing.assert_close(absorbed_solution(toy)(x), x)


def forest(**changes):
    given = {"parents": (-1, 0), "probability": (0.5, 0.5), "exclusive": (False, False)}
    return Forest(**(given | changes))


def built(**changes):
    return TreeCase(**({"forest": forest()} | changes)).build(seeded())


BOTH = Forest(parents=(-1, 0, 0), probability=(0.5,) * 3, exclusive=(False,) * 3)
BAD = {
    "no nodes": (lambda: forest(parents=(), probability=(), exclusive=()), "toy.empty"),
    "one probability": (lambda: forest(probability=(0.5,)), "toy.size"),
    "own parent": (lambda: forest(parents=(-1, 1)), "toy.tree"),
    "late parent": (lambda: forest(parents=(1, -1)), "toy.tree"),
    "no probability": (lambda: forest(probability=(0.5, 0.0)), "toy.rate"),
    "NaN": (lambda: forest(probability=(0.5, math.nan)), "toy.rate"),
    "above 1": (lambda: replace(BOTH, probability=(0.5, 0.6, 0.5), exclusive=(True,) * 3),
                "toy.exclusive"),
    "levels": (lambda: Forest.balanced((2, 2), probability=(0.1,), exclusive=True), "toy.size"),
    "no children": (lambda: Forest.balanced((2, 0), probability=(0.1, 0.1), exclusive=True),
                    "toy.size"),
    "lengths": (lambda: built(lengths=(1.0, 1.0, 1.0)), "toy.size"),
    "length": (lambda: built(lengths=(-1.0,)), "toy.scale"),
    "spread": (lambda: built(spread=1.0), "toy.scale"),
    "drawn length": (lambda: [TreeCase(forest=forest(), spread=0.9).build(seeded(s))
                              for s in range(50)], "toy.scale"),
    "no room": (lambda: built(d_model=1), "toy.too_many_features"),
    "no families": (lambda: built(geometry=OrthogonalFamilies(dimension=30)),
                    "toy.too_many_features"),
    "no path": (lambda: built(geometry=PackedFamilies(dimension=20)), "toy.too_many_features"),
    "no simplex": (lambda: SimplexDirections().draw(5, 3, seeded()), "toy.simplex"),
    "one corner": (lambda: SimplexDirections().draw(1, 3, seeded()), "toy.simplex"),
    "noise": (lambda: built(noise=-1.0), "toy.noise"),
    "rows": (lambda: built().sample(0, seeded()), "toy.rows"),
    "together": (lambda: absorbed_solution(built(forest=BOTH)), "toy.absorption"),
    "not orthogonal": (lambda: absorbed_solution(TREE_CASES["park-2"].build(seeded())),
                       "toy.absorption"),
    "sizes": (lambda: true_solution(built(magnitude=PositiveNormal())), "toy.absorption"),
    "infeasible": (lambda: HedgingCase(correlation=-0.9).build(seeded()),
                   "toy.infeasible_correlation"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_a_typed_error(name):
    make, code = BAD[name]
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.code == code
