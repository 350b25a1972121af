"""A screened selection is the exact one, above all on inputs made to mislead the screen."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from priors.errors import ConfigError
from vsae import screen as module
from vsae.screen import certified, check_accumulation, screened_select
from vsae.select import select

HALF_STEP = 2.0**-8  # half of what bfloat16 can tell apart above 1


def random(rows, latents, dim):
    return torch.randn(rows, dim), torch.randn(latents, dim), torch.randn(latents)


def near_ties(rows, latents, dim):
    """Latents whose scores differ by 1e-6: five hundred of them are one number in bfloat16."""
    weight = torch.randn(dim) + 1e-6 * torch.randn(latents, dim)
    return torch.randn(rows, dim), weight, torch.zeros(latents)


def correlated(rows, latents, dim):
    """Every atom is one of three, perturbed by half a step."""
    weight = torch.randn(3, dim)[torch.arange(latents) % 3]
    return (
        torch.randn(rows, dim),
        weight * (1 + HALF_STEP * torch.randn(latents, 1)),
        torch.zeros(latents),
    )


def aligned(rows, latents, dim):
    """Rounding errors that all have one sign, so that Cauchy-Schwarz is nearly attained.

    The even latents are rounded down by almost half a step in every coordinate; the odd ones are
    rounded up as much, and are less in truth, by their bias.
    """
    even = torch.arange(latents)[:, None] % 2 == 0
    x = torch.full((rows, dim), 1 + 0.98 * HALF_STEP) + 1e-6 * torch.rand(rows, dim)
    weight = torch.where(even, 1 + 0.98 * HALF_STEP, 1 + 1.02 * HALF_STEP).expand(-1, dim)
    bias = torch.where(even[:, 0], 0.0, -0.1 * HALF_STEP * dim)
    return x, weight + 1e-7 * torch.rand(latents, dim), bias


def cancelled(rows, latents, dim):
    """Products and biases that cancel, but for less than rounding takes away from the bias."""
    weight = torch.randn(latents, dim).mul(3).round()
    return torch.ones(rows, dim), weight, HALF_STEP * torch.randn(latents) - weight.sum(1)


def uneven(rows, latents, dim):
    """Norms and biases over many orders of magnitude."""
    x, weight, bias = random(rows, latents, dim)
    return (
        x * (4 * torch.randn(rows, 1)).exp(),
        weight * (2 * torch.randn(latents, 1)).exp(),
        bias * 30,
    )


def small_integers(rows, latents, dim):
    """Exact in bfloat16, and full of ties."""
    return tuple(t.round() for t in random(rows, latents, dim))


KINDS = [random, near_ties, correlated, aligned, cancelled, uneven, small_integers]


def exact_scores(x, weight, bias, centre):
    """In extended precision; ``x - centre`` is rounded once, as by definition."""
    wide = (t.detach().numpy().astype(np.longdouble) for t in (x - centre, weight, bias))
    centred, weight, bias = wide
    return centred @ weight.T + bias


def assert_exact(values, support, scores, rounding):
    """Nothing left out is above anything chosen, but by the rounding of the full-precision sum."""
    chosen = np.take_along_axis(scores, support.numpy(), 1)
    assert np.all(np.abs(values.numpy() - chosen) <= rounding)
    assert all(len(set(row)) == values.shape[1] for row in support.tolist())
    left_out = scores.copy()
    np.put_along_axis(left_out, support.numpy(), -np.inf, 1)
    assert np.all(chosen.min(1) >= left_out.max(1, initial=-np.inf) - 2 * rounding[:, 0])


def rounding_of(x, weight, bias):
    """(B, 1): what a sum of d + 1 terms of these sizes may be off by, in any order."""
    terms = x.abs() @ weight.abs().amax(0)[:, None] + bias.abs().amax()
    return ((x.shape[1] + 8) * torch.finfo(x.dtype).eps * terms).numpy()


@st.composite
def problems(draw):
    """kind, rows, latents, dim, k, candidates."""
    latents = draw(st.integers(1, 40))
    k = draw(st.integers(1, latents))
    sizes = draw(st.integers(0, 4)), latents, draw(st.integers(1, 24))
    return draw(st.sampled_from(KINDS)), *sizes, k, draw(st.integers(k, latents))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@given(problem=problems(), scale=st.sampled_from([1.0, 1e-12, 1e12]), seed=st.integers(0, 2**31))
def test_the_selection_is_exact(dtype, problem, scale, seed):
    kind, rows, latents, dim, k, candidates = problem
    torch.manual_seed(seed)
    x, weight, bias = (t.to(dtype) for t in kind(rows, latents, dim))
    x, bias, centre = x * scale, bias * scale, torch.zeros(dim, dtype=dtype)
    values, support = screened_select(x, weight, bias, centre, k, candidates)
    assert values.dtype == dtype
    assert_exact(
        values, support, exact_scores(x, weight, bias, centre), rounding_of(x, weight, bias)
    )


@given(problem=problems(), seed=st.integers(0, 2**31))
def test_the_certificate_is_sound(problem, seed):
    """Every bound holds, and what is certified is so: nothing but a candidate is above kth."""
    kind, rows, latents, dim, _, candidates = problem
    torch.manual_seed(seed)
    x, weight, bias = kind(rows, latents, dim)
    index, bounds = module._candidates(x, weight, bias, candidates)
    bound = bounds[:, -1]
    scores = exact_scores(x, weight, bias, torch.zeros(dim))
    np.put_along_axis(scores, index.numpy(), -np.inf, 1)
    beyond = scores.max(1, initial=-np.inf)
    for kth in (bound, bound + 0.01, torch.from_numpy(beyond.clip(-1e300).astype(np.float64))):
        proven = certified(x, weight, bias, kth, bound).numpy()
        assert np.all(kth.numpy()[proven] >= beyond[proven])
    rounded = bound.numpy() + np.abs(bound.numpy()) * 2.0**-8
    accumulated = rounding_of(x.float(), weight.float(), bias.float())[:, 0]
    assert np.all(beyond <= rounded + accumulated)


def test_the_inputs_mislead_a_screen_without_a_certificate():
    torch.manual_seed(0)
    x, weight, bias = aligned(4, 40, 24)
    exact = torch.from_numpy(exact_scores(x, weight, bias, torch.zeros(24)).astype(np.float64))
    rounded = x.bfloat16() @ weight.bfloat16().mT + bias.bfloat16()
    wrong = rounded.topk(8).indices
    assert (exact.gather(1, wrong).amax(1) < exact.topk(8).values.amin(1)).all()
    assert (screened_select(x, weight, bias, torch.zeros(24), 8, 8)[1] % 2 == 0).all()


@pytest.mark.float32
def test_most_rows_are_certified_in_the_usual_case():
    """Otherwise the exact product does all the work: the bound must be tight enough to use."""
    x, weight = torch.randn(256, 256), torch.nn.functional.normalize(torch.randn(2048, 256), dim=1)
    bias = 0.1 * torch.randn(2048)
    for candidates, share in ((16, 0.9), (24, 0.99)):
        index, bounds = module._candidates(x, weight, bias, candidates)
        bound = bounds[:, -1]
        kth = (x @ weight.mT + bias).gather(1, index).topk(8).values.amin(1)
        assert certified(x, weight, bias, kth, bound).double().mean() >= share


@pytest.mark.float32
@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e18])
def test_beyond_the_range_of_the_proof_nothing_is_certified(scale):
    x, weight, bias = random(16, 64, 8)
    x, weight, bias, centre = x * scale, weight * scale, bias * 0, torch.zeros(8)
    values, support = screened_select(x, weight, bias, centre, 4, 32)
    expected = select(x, weight, bias, centre, 4)
    bound = module._candidates(x, weight, bias, 32)[1][:, -1]
    assert not certified(x, weight, bias, expected[0].amin(1), bound).any()
    torch.testing.assert_close(values, expected[0], rtol=0, atol=0)
    assert torch.equal(support, expected[1])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", ["x", "weight", "bias"])
def test_what_is_not_finite_reaches_the_values(where, bad):
    x, weight, bias = random(5, 64, 4)
    {"x": x, "weight": weight, "bias": bias[:, None]}[where][2, 0] = bad
    values, support = screened_select(x, weight, bias, torch.zeros(4), 3, 8)
    hit = ~select(x, weight, bias, torch.zeros(4), 3)[0].isfinite().all(1)
    np.testing.assert_array_equal(~values.isfinite().all(1), hit)
    assert hit[2]
    assert all(len(set(row)) == 3 and 0 <= min(row) <= max(row) < 64 for row in support.tolist())


@pytest.mark.parametrize("candidates", [3, 6, 12])
def test_gradients_are_those_of_the_plain_selection(candidates):
    x, weight, bias = random(7, 12, 4)
    inputs = [t.requires_grad_() for t in (x, weight, bias, torch.randn(4))]
    slope = torch.randn(12)
    ours, plain = (
        torch.autograd.grad((values.sin() * slope[support]).sum(), inputs)
        for values, support in (
            screened_select(*inputs, 3, candidates),
            select(*inputs, 3),
        )
    )
    torch.testing.assert_close(ours, plain)
    assert torch.autograd.gradgradcheck(lambda *a: screened_select(*a, 3, candidates)[0], inputs)


def test_impossible_numbers():
    arguments = (*random(2, 12, 4), torch.zeros(4))
    for k, candidates, code in ((0, 3, "select.k"), (13, 13, "select.k")):
        with pytest.raises(ConfigError) as info:
            screened_select(*arguments, k, candidates)
        assert info.value.code == code
    for candidates in (2, 13):
        with pytest.raises(ConfigError, match=f"got {candidates}, expected 3 … 12") as info:
            screened_select(*arguments, 3, candidates)
        assert info.value.code == "screen.candidates"


def test_a_device_that_adds_in_bfloat16_is_refused():
    check_accumulation(torch.device("cpu"))
    setting = "allow_bf16_reduced_precision_reduction"
    with pytest.raises(ConfigError, match=setting) as info:
        check_accumulation(torch.device("cuda"))
    assert info.value.code == "screen.accumulation"


def test_the_operator_keeps_the_rules_of_torch():
    x, weight, bias = random(7, 12, 4)
    inputs = [t.requires_grad_() for t in (x, weight, bias, torch.randn(4))]
    torch.library.opcheck(torch.ops.vsae.screened_select.default, (*inputs, 3, 6))


def test_shapes_are_known_without_numbers():
    x, weight, bias = random(7, 12, 4)
    values, support = torch.ops.vsae.screened_select(
        *(t.to("meta") for t in (x, weight, bias, torch.zeros(4))), 3, 6
    )
    assert (values.shape, support.shape, support.dtype) == ((7, 3), (7, 3), torch.int64)
