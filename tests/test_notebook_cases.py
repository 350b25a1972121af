"""The notebook's generators: pairs that always or never fire together, and diluted correlation."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import Generator

from priors.errors import ConfigError
from toys.notebook_cases import NOTEBOOK_CASES, MaskedCorrelation, NotebookCase, PairedFeatures
from toys.toy import realised

# Two-sided tail of 4.5 standard errors: 7e-6 per comparison, and some hundred of them per test.
LIMIT = 4.5


def seeded(seed=0):
    return Generator().manual_seed(seed)


def counts_agree(successes, rows, p):
    return abs(successes - rows * p) < LIMIT * np.sqrt(rows * p * (1 - p))


@pytest.mark.parametrize("p", [0.025, 0.1, 0.316, 0.5])
def test_pairs_fire_as_described(p):
    law = PairedFeatures(correlated=1, anticorrelated=1, singles=1, probability=p)
    n = 50_000
    on = law.sample(n, seeded(7)).numpy() != 0
    assert (on[:, 0] == on[:, 1]).all()
    assert not (on[:, 2] & on[:, 3]).any()
    for feature in range(5):
        assert counts_agree(on[:, feature].sum(), n, p)
    fired = on[:, 2] | on[:, 3]
    assert counts_agree(fired.sum(), n, 2 * p) if p < 0.5 else fired.all()
    assert counts_agree(on[fired, 2].sum(), fired.sum(), 0.5)
    for other in (1, 2, 3):  # independent of the single feature, and the pairs of each other
        assert counts_agree((on[:, other] & on[:, 4]).sum(), n, p * p)
    assert counts_agree((on[:, 0] & on[:, 2]).sum(), n, p * p)


def test_notebook_values_are_uniform_and_never_zero_when_on():
    z = PairedFeatures(correlated=1, singles=1, probability=0.5).sample(20_000, seeded(2)).numpy()
    both = z[z[:, 0] != 0]
    for feature in (0, 1):
        assert kstest(both[:, feature], "uniform").pvalue > 1e-5
    assert abs(np.corrcoef(both[:, :2].T)[0, 1]) < LIMIT / np.sqrt(len(both))


def test_instances_have_their_own_rates():
    case = NOTEBOOK_CASES["case2"]
    z = case.features.sample(20_000, seeded(5)).numpy()
    assert z.shape == (8, 20_000, 5)
    for instance, p in enumerate(50 ** -np.linspace(0, 1, 8)):
        on = (z[instance] != 0).sum()
        assert counts_agree(on, 100_000, p) if p < 1 else on == 100_000
    sweep = NOTEBOOK_CASES["case4"].features.probabilities
    np.testing.assert_allclose(sweep, 10 ** -np.linspace(0.5, 1, 8), rtol=1e-14)
    np.testing.assert_allclose(case.importance, 0.9 ** np.arange(5), rtol=1e-14)


def test_a_notebook_toy_states_the_exact_support_correlation():
    toy = NOTEBOOK_CASES["case5"].build(seeded(), instance=7)
    x, codes = toy.sample(50_000, seeded(1))
    assert torch.equal(x, codes)
    found, expected = toy.realised(codes).support.numpy(), toy.support.numpy()
    assert expected[0, 1] == 1
    assert expected[2, 3] == pytest.approx(-1 / 9)  # p = 0.1
    standard = (codes.numpy() != 0).astype(float)
    standard = (standard - standard.mean(0)) / standard.std(0)
    assert found[0, 1] == pytest.approx(1, abs=1e-12)
    for i, j in ((0, 2), (0, 3), (1, 2), (2, 3)):
        assert abs(found[i, j] - expected[i, j]) < LIMIT * correlation_error(
            standard[:, i], standard[:, j], expected[i, j]
        )
    assert toy.graph.edges.T.tolist() == [[0, 1], [2, 3]]
    assert toy.graph.weights.tolist() == [1.0, -1.0]


def correlation_error(a, b, r):
    """Standard error of Pearson's r from standardised columns: the delta method, any law."""
    return (a * b - r * (a * a + b * b) / 2).std() / np.sqrt(len(a))


@pytest.mark.parametrize(
    ("p", "mean"),
    [(0.316, 0.031), (0.1, 0.008)],
)
def test_masks_after_mixing_dilute_half_a_correlation_to_almost_nothing(p, mean):
    law = MaskedCorrelation.transposed(4, correlation=0.5, probability=p)
    z = law.sample(400_000, seeded()).numpy()
    exact = law.value_correlation().numpy()
    upper = np.triu_indices(4, 1)
    assert exact[upper].mean() == pytest.approx(mean, abs=5e-4)
    standard = (z - z.mean(0)) / z.std(0)
    for i, j in zip(*upper, strict=True):
        error = correlation_error(standard[:, i], standard[:, j], exact[i, j])
        assert abs(np.corrcoef(z[:, i], z[:, j])[0, 1] - exact[i, j]) < LIMIT * error
    support = realised(torch.from_numpy(z)).support.numpy()[upper]
    assert np.abs(support).max() < LIMIT / np.sqrt(len(z))


def test_the_notebooks_mixing_has_not_the_correlation_it_asks_for():
    mixing = np.array(MaskedCorrelation.notebook(4, correlation=0.5, probability=1.0).mixing)
    covariance = mixing.T @ mixing
    scale = np.sqrt(np.diag(covariance))
    off = (covariance / np.outer(scale, scale))[np.triu_indices(4, 1)]
    assert (off.min(), off.max()) == pytest.approx((0.243, 0.570), abs=1e-3)


BAD = {
    "rate 0": (lambda: PairedFeatures(singles=2, probability=0.0), "toy.rate"),
    "pair above half": (lambda: PairedFeatures(anticorrelated=1, probability=0.6), "toy.rate"),
    "no law": (lambda: PairedFeatures(probability=0.5), "toy.empty"),
    "mask rate": (
        lambda: MaskedCorrelation.notebook(3, correlation=0.5, probability=1.5),
        "toy.rate",
    ),
    "importances": (
        lambda: NotebookCase(
            features=PairedFeatures(singles=2, probability=0.1), hidden=2, importance=(1.0,)
        ),
        "toy.size",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_a_typed_error(name):
    make, code = BAD[name]
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.code == code
