"""The k best of a dense product that never exists as a whole, against the dense one-liner."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from priors.errors import ConfigError
from vsae import select as module
from vsae.select import chunk_rows, select, select_magnitude, top, top_magnitude

SELECTIONS = {"select": select, "select_magnitude": select_magnitude}
RANK = {"select": np.asarray, "select_magnitude": np.abs}


@pytest.fixture(autouse=True)
def _several_chunks(monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 8)
    monkeypatch.setattr(module, "CHUNK_ROWS", 3)


def encoder(height=7, dim=4, latents=12, dtype=torch.float64):
    """x, weight, bias, centre."""
    shapes = [(height, dim), (latents, dim), (latents,), (dim,)]
    return [torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes]


def dense(x, weight, bias, centre):
    return (x - centre) @ weight.mT + bias


def assert_best(values, support, scores, rank=np.asarray):
    """Values are those scores; indices differ; what is chosen ranks as numpy's k greatest."""
    values, support, scores = (t.detach().numpy() for t in (values, support, scores))
    k = values.shape[1]
    np.testing.assert_array_equal(values, np.take_along_axis(scores, support, 1))
    assert all(len(set(row)) == k for row in support.tolist())
    wanted = np.sort(rank(scores), 1)[:, scores.shape[1] - k :]
    np.testing.assert_array_equal(np.sort(rank(values), 1), wanted)


@st.composite
def problems(draw):
    """(rows, n, k, groups): groups that divide n, and others; k up to n."""
    groups = draw(st.integers(1, 8))
    n = draw(st.integers(1, 12)) * groups + draw(st.sampled_from([0, 0, 0, 1]))
    return draw(st.integers(0, 4)), n, draw(st.integers(1, n)), groups


@given(problem=problems(), ties=st.booleans(), seed=st.integers(0, 2**31))
def test_top_is_exact(problem, ties, seed):
    height, n, k, groups = problem
    torch.manual_seed(seed)
    scores = torch.randn(height, n)
    if ties:
        scores = scores.round()
        scores[torch.rand_like(scores) < 0.3] = -torch.inf
    assert_best(*top(scores, k, groups), scores)
    assert_best(*top_magnitude(scores, k), scores, np.abs)


@given(problem=problems(), seed=st.integers(0, 2**31))
def test_nan_counts_as_greatest(problem, seed):
    height, n, k, groups = problem
    torch.manual_seed(seed)
    scores = torch.randn(height, n).round()
    scores[torch.rand_like(scores) < 0.2] = torch.nan
    # numpy sorts NaN last, that is as the greatest, too.
    assert_best(*top(scores, k, groups), scores)
    assert_best(*top_magnitude(scores, k), scores, np.abs)


def test_top_takes_strided_scores():
    scores = torch.randn(64, 5).mT
    assert_best(*top(scores, 3), scores)


@pytest.mark.parametrize("k", [1, 3, 12])
@pytest.mark.parametrize("height", [0, 1, 3, 7])
@pytest.mark.parametrize("name", SELECTIONS)
def test_equals_the_dense_one_liner(name, height, k):
    """Values, and every gradient, of a function of the values that is not linear."""
    inputs = encoder(height)
    values, support = SELECTIONS[name](*inputs, k)
    scores = dense(*inputs)
    torch.testing.assert_close(values, scores.gather(1, support))
    rank = RANK[name](scores.detach().numpy())
    chosen = np.take_along_axis(rank, support.numpy(), 1)
    # Random scores differ by far more than rounding: the sets must be the same.
    np.testing.assert_allclose(np.sort(chosen, 1), np.sort(rank, 1)[:, 12 - k :], rtol=1e-12)
    assert all(len(set(row)) == k for row in support.tolist())
    slope = torch.randn(12)
    ours = torch.autograd.grad((values.sin() * slope[support]).sum(), inputs)
    keep = torch.zeros_like(scores).scatter(1, support, 1.0)
    oracle = torch.autograd.grad((scores.sin() * slope * keep).sum(), inputs)
    torch.testing.assert_close(ours, oracle)


@pytest.mark.parametrize("name", SELECTIONS)
def test_first_and_second_derivatives(name):
    """The support is constant nearby, so the values are differentiable to any order."""
    inputs = tuple(encoder(4, 3, 8))
    function = SELECTIONS[name]
    assert torch.autograd.gradcheck(lambda *a: function(*a, 3)[0], inputs)
    assert torch.autograd.gradgradcheck(lambda *a: function(*a, 3)[0], inputs)


@pytest.mark.parametrize("which", range(4))
def test_one_gradient_alone(which):
    inputs = encoder()
    everything = torch.autograd.grad(select(*inputs, 3)[0].square().sum(), inputs)
    alone = [t.detach() for t in inputs]
    alone[which].requires_grad_()
    (one,) = torch.autograd.grad(select(*alone, 3)[0].square().sum(), alone[which])
    torch.testing.assert_close(one, everything[which])


def test_the_support_has_no_gradient():
    assert not select(*encoder(), 3)[1].requires_grad


@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("k", [-1, 0, 13])
def test_an_impossible_k(k, name):
    with pytest.raises(ConfigError, match=f"got k = {k}, expected an integer, 1 … 12") as info:
        SELECTIONS[name](*encoder(), k)
    assert info.value.code == "select.k"


@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("where", ["x", "weight"])
def test_nan_reaches_the_values(where, name):
    x, weight, bias, centre = (t.detach() for t in encoder(5, 4, 64))
    (x if where == "x" else weight)[2, 1] = torch.nan
    values, support = SELECTIONS[name](x, weight, bias, centre, 3)
    hit = torch.arange(5) == 2 if where == "x" else torch.ones(5, dtype=torch.bool)
    np.testing.assert_array_equal(values.isnan().any(1), hit)
    assert all(len(set(row)) == 3 and 0 <= min(row) <= max(row) < 64 for row in support.tolist())


@pytest.mark.float32
def test_strided_float32_under_autocast():
    """The values have the type of the activations, whatever autocast does to other products."""
    x, weight, bias, centre = (t.detach() for t in encoder(8, 6, 32, torch.float32))
    arguments = (x.mT.contiguous().mT, weight[:, ::2].repeat(1, 2), bias, centre)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values, support = select(*arguments, 4)
    assert values.dtype == torch.float32
    np.testing.assert_allclose(values, dense(*arguments).gather(1, support), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SELECTIONS)
def test_operators_keep_the_rules_of_torch(name):
    operator = getattr(torch.ops.vsae, name).default
    torch.library.opcheck(operator, (*encoder(), 3))


@pytest.mark.parametrize("name", SELECTIONS)
def test_shapes_are_known_without_numbers(name):
    values, support = SELECTIONS[name](*(t.detach().to("meta") for t in encoder()), 3)
    assert (values.shape, support.shape) == ((7, 3), (7, 3))
    assert (values.dtype, support.dtype) == (torch.float64, torch.int64)


class Encoder(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        _, *parameters = encoder()
        self.parameters_ = torch.nn.ParameterList([p.detach() for p in parameters])
        self.function = function

    def forward(self, x):
        return self.function(x, *self.parameters_, 3)[0]


@pytest.mark.parametrize("name", SELECTIONS)
def test_export_keeps_the_operator_and_its_gradient(name):
    module_, x = Encoder(SELECTIONS[name]), encoder()[0].detach()
    exported = torch.export.export(module_, (x,), strict=False).module()
    assert f"vsae.{name}" in exported.code
    wanted, got = (
        torch.autograd.grad(m(x).square().sum(), list(m.parameters())) for m in (module_, exported)
    )
    torch.testing.assert_close(got, wanted)
    assert all(g.any() for g in wanted)


def test_scores_stay_below_the_mmap_threshold(monkeypatch):
    monkeypatch.undo()
    assert chunk_rows(torch.empty(8192, 1, dtype=torch.float32)) == 512
    for latents in (1, 2048, 8192, 65536):
        weight = torch.empty(latents, 1, dtype=torch.float32)
        assert chunk_rows(weight) * latents * 4 <= 2**25
