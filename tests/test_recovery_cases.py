"""The cases of the recovery benchmark: each has the rates, sizes and structure it declares."""

import math

import pytest
import scipy.stats
import torch
from torch import Generator

from priors.errors import ConfigError
from toys.copula import CopulaCase
from toys.magnitudes import ConstantMagnitude
from toys.recovery_cases import CHOOSING, RECOVERY_CASES, REPORTING
from toys.synth import SynthToy
from toys.synth_subspaces import SubspaceCase, SubspaceToy, norms
from toys.tree_cases import TreeToy

LIMIT = 4.5  # standard errors
NAMES = sorted(RECOVERY_CASES)


def seeded(seed=0):
    return Generator().manual_seed(seed)


def of(family):
    return [name for name in NAMES if RECOVERY_CASES[name].family == family]


def means_agree(samples, expected):
    error = samples.std(0) / len(samples) ** 0.5
    found = samples.mean(0)
    assert ((found - expected).abs() <= LIMIT * error + 1e-12).all(), (found - expected) / error


def expected_rates(toy, case):
    """As declared: of a synthetic benchmark from its factors, of a forest in closed form."""
    if isinstance(toy, SynthToy):
        common = torch.randn(20_000, toy.law.loadings.shape[1], generator=seeded(9))
        return toy.law.rates_given(common).mean(0)
    if isinstance(toy, TreeToy):
        return toy.forest.rate()
    return torch.full((case.features,), case.rate)


def test_no_seed_both_chooses_and_reports():
    assert len(REPORTING) >= 5
    for case in RECOVERY_CASES.values():
        assert not set(case.choosing) & set(case.reporting)
        assert case.choosing in ((), CHOOSING)
        assert case.reporting == REPORTING
    unseen = {case.family for case in RECOVERY_CASES.values() if not case.choosing}
    assert unseen == {case.family for case in RECOVERY_CASES.values()}


@pytest.mark.parametrize("name", NAMES)
def test_a_case_is_what_it_declares(name):
    recovery = RECOVERY_CASES[name]
    toy = recovery.build(seeded(1))
    x, codes = toy.sample(20_000, seeded(2))
    shape = (recovery.case.features, recovery.case.d_model)
    assert toy.dictionary.shape == shape
    torch.testing.assert_close(toy.dictionary.norm(dim=1), torch.ones(shape[0]))
    fires = (codes != 0).double()
    rates = expected_rates(toy, recovery.case)
    error = (rates * (1 - rates) / len(fires)).sqrt()
    # Of the two trees with a copula the rates themselves are known to a percent only.
    slack = 0.01 * rates if isinstance(toy, SynthToy) else 0.0
    assert ((fires.mean(0) - rates).abs() <= LIMIT * error + slack).all()
    assert isinstance(toy, SubspaceToy) or (codes >= 0).all()
    residual = x - codes @ toy.dictionary
    if isinstance(toy, SynthToy):
        residual = residual - toy.bias
    noise = recovery.case.noise
    means_agree(residual.flatten()[:, None] ** 2, torch.tensor(noise**2))
    again = recovery.build(seeded(1)).sample(20_000, seeded(2))
    assert torch.equal(again.x, x)
    assert not torch.equal(recovery.build(seeded(2)).dictionary, toy.dictionary)


@pytest.mark.parametrize("name", of("copula"))
def test_supports_are_correlated_as_the_structure_says(name):
    case = RECOVERY_CASES[name].case
    assert isinstance(case, CopulaCase)
    toy = case.build(seeded(1))
    fires = (toy.sample(40_000, seeded(2)).codes > 0).double()
    assert toy.support is not None
    expected = toy.support * 0.05 * 0.95 + 0.05**2
    error = (expected * (1 - expected) / 40_000).sqrt()
    # 2016 pairs: five errors, and five rows for pairs that hardly ever meet.
    assert ((fires.mT @ fires / 40_000 - expected).abs() <= 5 * error + 5 / 40_000).all()
    signs = torch.sign(toy.correlation)
    assert torch.equal(torch.sign(torch.where(signs == 0, 0.0, toy.support)), signs)


@pytest.mark.parametrize(
    ("name", "positive", "negative"),
    [
        ("copula-independent", 0, 0),
        ("copula-blocks", 96, 0),  # of 16 fours
        ("copula-pairs", 0, 32),
        ("copula-mixed", 48, 16),
    ],
)
def test_structures_have_the_pairs_they_are_named_for(name, positive, negative):
    case = RECOVERY_CASES[name].case
    assert isinstance(case, CopulaCase)
    upper = case.build(seeded()).correlation.triu(1)
    assert (upper == 0.8).sum() == positive
    assert (upper == -0.8).sum() == negative
    assert (upper != 0).sum() == positive + negative


@pytest.mark.parametrize("name", of("trees"))
def test_trees_have_the_depth_and_the_exclusion_of_their_name(name):
    _, depth, kind = name.split("-")
    toy = RECOVERY_CASES[name].build(seeded())
    assert isinstance(toy, TreeToy)
    assert toy.forest.depth == int(depth) + 1
    fires = toy.sample(20_000, seeded(1)).codes > 0
    tied = toy.parents >= 0
    assert not (fires[:, tied] & ~fires[:, toy.parents[tied]]).any()
    families = [list(toy.forest.children(i)) for i in range(toy.forest.size)]
    alone = all(fires[:, f].sum(1).max() <= 1 for f in families if f)
    assert alone == (kind == "exclusive")


def test_exclusion_changes_no_rate():
    for depth in (1, 2, 3):
        one, other = (RECOVERY_CASES[f"tree-{depth}-{k}"].case for k in ("exclusive", "free"))
        torch.testing.assert_close(one.forest.rate(), other.forest.rate())


@pytest.mark.parametrize("name", of("sizes"))
def test_sizes_have_the_mean_one(name):
    case = RECOVERY_CASES[name].case
    assert isinstance(case, CopulaCase)
    assert case.magnitude.moments()[0] == pytest.approx(1, rel=1e-3)
    codes = case.build(seeded()).sample(20_000, seeded(1)).codes
    means_agree(codes[codes > 0][:, None], torch.tensor(1.0))


def test_three_laws_of_sizes_reach_zero_and_the_tails_grow():
    fractions, tails = {}, {}
    for name in of("sizes"):
        law = RECOVERY_CASES[name].case.magnitude
        h = torch.from_numpy(scipy.stats.norm.ppf([0.05, 0.999]))
        small, large = law.from_normal(h).tolist()
        fractions[name.removeprefix("sizes-")] = small
        tails[name.removeprefix("sizes-")] = large
    assert {n for n, s in fractions.items() if s < 0.2} == {
        "uniform-from-0", "half-normal", "log-normal"
    }  # fmt: skip
    assert tails["constant"] < tails["uniform-away"] < tails["half-normal"] < tails["log-normal"]


# Subspaces ------------------------------------------------------------------------------------


CASE = SubspaceCase(
    dimensions=(1, 2, 4), rate=0.4, magnitude=ConstantMagnitude(value=2.0), d_model=12, noise=0.1
)


def test_concepts_fire_in_uniform_directions_of_their_subspaces():
    toy = CASE.build(seeded())
    codes = toy.sample(60_000, seeded(1)).codes
    strengths = toy.strengths(codes)
    fires = strengths > 0
    means_agree(fires.double(), torch.full((3,), 0.4))
    torch.testing.assert_close(strengths, 2.0 * fires)
    assert (codes[:, 0] >= 0).all()
    for c, n in enumerate(CASE.dimensions):
        inside = codes[:, toy.concept == c][fires[:, c]]
        second = (inside[:, :, None] * inside[:, None]).flatten(1)
        means_agree(second, 4 / n * torch.eye(n).flatten())
        if n > 1:
            means_agree(inside, torch.zeros(n))
    together = fires.double().mT.cov()
    assert together[~torch.eye(3, dtype=torch.bool)].abs().max() < LIMIT * 0.24 / 60_000**0.5


def test_strengths_and_cosines_know_the_subspace_and_no_basis():
    toy = CASE.build(seeded())
    codes = toy.sample(100, seeded(1)).codes
    basis = toy.dictionary[3:]
    rotation, _ = torch.linalg.qr(torch.randn(4, 4, generator=seeded(2)))
    torch.testing.assert_close(basis @ basis.mT, torch.eye(4))
    turned = codes.clone()
    turned[:, 3:] = codes[:, 3:] @ rotation.mT
    torch.testing.assert_close(toy.strengths(turned), toy.strengths(codes))
    within = torch.randn(5, 4, generator=seeded(3)) @ basis
    torch.testing.assert_close(toy.cosines(within)[:, 2], torch.ones(5))
    atoms = torch.randn(6, 12, generator=seeded(4))
    for c in range(3):  # by least squares: the length of what the subspace explains
        rows = toy.dictionary[toy.concept == c]
        fit = torch.linalg.lstsq(rows.mT, atoms.mT).solution.mT @ rows
        expected = fit.norm(dim=1) / atoms.norm(dim=1)
        torch.testing.assert_close(toy.cosines(atoms)[:, c], expected)
    assert torch.equal(toy.same_concept(), toy.toy.support == 1)
    assert toy.toy.graph.num_edges == math.comb(2, 2) + math.comb(4, 2)
    assert toy.dimensions.tolist() == [1, 2, 4]


def test_norms_are_of_the_concepts():
    found = norms(torch.tensor([[1.0, 3.0, 4.0]]), torch.tensor([0, 1, 1]), 2)
    assert found.tolist() == [[1.0, 5.0]]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"dimensions": ()}, "toy.empty"),
        ({"dimensions": (1, 0)}, "toy.size"),
        ({"dimensions": (1, 33)}, "toy.too_many_features"),
        ({"rate": 1.0}, "toy.rate"),
        ({"noise": -0.1}, "toy.noise"),
        ({"d_model": 0}, "toy.d_model"),
    ],
)
def test_impossible_subspaces_are_refused(changes, code):
    with pytest.raises(ConfigError) as caught:
        SubspaceCase(**{"dimensions": (1, 2), **changes})
    assert caught.value.code == code
