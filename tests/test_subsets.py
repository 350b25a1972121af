"""Uniform subsets: a density of sets that sums to one, drawn as it says."""

import itertools
import math

import numpy as np
import pyro
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pyro import distributions as dist
from pyro.infer import Predictive
from torch.distributions import kl_divergence

from priors import UniformSubsets
from priors.errors import ConfigError


@given(dim=st.integers(1, 9), data=st.data())
def test_sums_to_one_over_sets(dim, data):
    k = data.draw(st.integers(1, dim))
    subsets = torch.tensor(list(itertools.combinations(range(dim), k)))
    log_prob = UniformSubsets(dim, k).log_prob(subsets)
    assert len(subsets) == math.comb(dim, k)
    np.testing.assert_allclose(log_prob.exp().sum().item(), 1.0, rtol=1e-13)


@pytest.mark.parametrize(("dim", "k"), [(8192, 32), (65536, 64), (10**6, 500), (7, 7)])
def test_normaliser_of_large_sets(dim, k):
    """Against the integer, exactly; lgamma's last digit is of K log K."""
    expected = math.log(math.comb(dim, k))
    tolerance = 4 * 2**-52 * max(1.0, math.lgamma(dim + 1))
    assert abs(UniformSubsets(dim, k).log_count() - expected) <= tolerance


@pytest.mark.parametrize(
    ("dim", "k"),
    [(6, 2), (5, 2), (7, 2), (5, 3), (6, 5), (4, 4), (5, 1), (12, 3)],  # both ways of drawing
)
def test_every_subset_is_drawn_equally_often(dim, k):
    count = math.comb(dim, k)
    draws = UniformSubsets(dim, k).sample((200 * count,))
    assert draws.dtype == torch.int64
    ordered = draws.sort(-1).values
    assert ((ordered >= 0) & (ordered < dim)).all()
    assert (ordered.diff(dim=-1) > 0).all()
    found = torch.bincount((ordered * dim ** torch.arange(k)).sum(-1))
    found = found[found > 0].double()
    assert len(found) == count
    # Chi-square: mean count - 1, variance twice that.
    chi2 = ((found - 200) ** 2 / 200).sum().item()
    assert abs(chi2 - (count - 1)) <= 5 * math.sqrt(2 * max(1, count - 1))


@pytest.mark.parametrize("k", [2, 40])
def test_rows_are_independent(k):
    """Both ways of drawing: two rows share k²/K latents on average."""
    pair = UniformSubsets(100, k).expand((2,)).sample((4000,))
    shared = (pair[:, 0, :, None] == pair[:, 1, None, :]).sum((1, 2)).double()
    assert abs(shared.mean() - k * k / 100) < 5 * shared.std() / 4000**0.5


def test_shapes_and_plates():
    uniform = UniformSubsets(5, 2)
    assert uniform.expand((3,)).sample((4,)).shape == (4, 3, 2)
    assert uniform.expand((3,)).expand((2, 3)).batch_shape == (2, 3)
    assert not uniform.has_rsample
    assert uniform.expand((3,)).log_prob(torch.tensor([1, 0])).shape == (3,)
    support = torch.tensor([[0, 1], [4, 2], [3, 0]])
    kl = kl_divergence(dist.Delta(support, event_dim=1), uniform.expand((3,)))
    torch.testing.assert_close(kl, torch.full((3,), math.log(10)))

    def model():
        with pyro.plate("rows", 3):
            return pyro.sample("support", UniformSubsets(5, 2))

    assert Predictive(model, num_samples=6)()["support"].shape == (6, 3, 2)
    assert Predictive(model, num_samples=6, parallel=True)()["support"].shape == (6, 3, 2)


@pytest.mark.float32
def test_constant_is_in_the_default_dtype():
    assert UniformSubsets(5, 2).log_prob(torch.tensor([1, 0])).dtype == torch.float32


@pytest.mark.parametrize("wrong", [[[1, 1]], [[0, 5]], [[-1, 2]], [[4, 4]]])
def test_not_a_subset(wrong):
    with pytest.raises(ValueError, match="support"):
        UniformSubsets(5, 2).log_prob(torch.tensor(wrong))
    pyro.enable_validation(False)
    assert UniformSubsets(5, 2).log_prob(torch.tensor(wrong)).isfinite().all()


@pytest.mark.parametrize(("dim", "k"), [(3, 4), (3, 0), (3, -1), (0, 0)])
def test_impossible_sizes(dim, k):
    with pytest.raises(ConfigError) as caught:
        UniformSubsets(dim, k)
    assert caught.value.code == "subsets.size"
    assert caught.value.context == {"dim": dim, "k": k}
