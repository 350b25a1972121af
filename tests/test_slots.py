"""The three sums over the slots of a code, against numpy loops and dense einsums."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vsae.errors import ShapeError
from vsae.slots import bag, dots, rows

SIZES = st.tuples(st.integers(0, 5), st.integers(0, 6), st.integers(1, 7), st.integers(0, 4))
# Repeats, all empty, W = 1, W = K, W > K, no rows, no slots, one latent.
CASES = [(3, 4, 6), (3, 1, 5), (3, 5, 5), (2, 7, 3), (0, 3, 5), (4, 0, 5), (3, 2, 1)]


def code(height, width, latents, dim=4, dtype=torch.float64, empty=0.3):
    support = torch.randint(latents, (height, width))
    values = torch.randn(height, width, dtype=dtype)
    values[torch.rand(height, width) < empty] = 0.0
    return (
        support,
        values,
        torch.randn(height, dim, dtype=dtype),
        torch.randn(latents, dim, dtype=dtype),
    )


def one_hot(support, latents):
    """(B, W, n), by numpy."""
    return np.eye(latents)[support.numpy()]


def assert_equal(ours, oracle, dtype=torch.float64):
    assert ours.dtype == dtype
    assert ours.shape == oracle.shape
    # Sums of at most 7 · 4 terms of order one: a hundred units of rounding.
    np.testing.assert_allclose(ours.detach(), oracle, rtol=0, atol=100 * torch.finfo(dtype).eps)


@given(sizes=SIZES, empty=st.sampled_from([0.0, 0.3, 0.9, 1.0]), seed=st.integers(0, 2**31))
def test_values(sizes, empty, seed):
    torch.manual_seed(seed)
    support, values, x, table = code(*sizes, empty=empty)
    hot = one_hot(support, len(table))
    assert_equal(bag(support, values, table), np.einsum("bwn,bw,nd->bd", hot, values, table))
    assert_equal(dots(x, support, table), np.einsum("bwn,bd,nd->bw", hot, x, table))
    assert_equal(rows(support, values, x, len(table)), np.einsum("bwn,bw,bd->nd", hot, values, x))


@pytest.mark.parametrize("sizes", CASES)
def test_float32(sizes):
    support, values, x, table = code(*sizes, dtype=torch.float32)
    hot = one_hot(support, len(table))
    for ours, formula, operands in (
        (bag(support, values, table), "bwn,bw,nd->bd", (values, table)),
        (dots(x, support, table), "bwn,bd,nd->bw", (x, table)),
        (rows(support, values, x, len(table)), "bwn,bw,bd->nd", (values, x)),
    ):
        assert_equal(ours, np.einsum(formula, hot, *operands), torch.float32)


@pytest.mark.parametrize("empty", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("sizes", CASES)
def test_each_is_a_derivative_of_the_same_form(sizes, empty):
    support, values, x, table = code(*sizes, empty=empty)
    hot = torch.from_numpy(one_hot(support, len(table)))
    inputs = [t.requires_grad_() for t in (x, values, table)]
    form = torch.einsum("bwn,bd,bw,nd->", hot, *inputs)
    expected = torch.autograd.grad(form, inputs)
    assert_equal(bag(support, values, table), expected[0].numpy())
    assert_equal(dots(x, support, table), expected[1].numpy())
    assert_equal(rows(support, values, x, len(table)), expected[2].numpy())


def smooth(support, latents):
    """Each sum as a function of its two differentiable inputs."""
    return {
        "bag": lambda values, x, table: bag(support, values, table),
        "dots": lambda values, x, table: dots(x, support, table),
        "rows": lambda values, x, table: rows(support, values, x, latents),
    }


@pytest.mark.parametrize("which", ["bag", "dots", "rows"])
@pytest.mark.parametrize("empty", [0.0, 0.8])
@pytest.mark.parametrize("sizes", [(3, 4, 6), (3, 1, 5), (2, 5, 3), (2, 3, 1)])
def test_first_and_second_derivatives(sizes, empty, which):
    support, values, x, table = code(*sizes, dim=3, empty=empty)
    inputs = tuple(t.requires_grad_() for t in (values, x, table))
    function = smooth(support, len(table))[which]
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("sizes", [s for s in CASES if s[0] and s[1]])
def test_an_empty_slot_says_nothing_but_has_a_gradient(sizes):
    """Wherever it points: what its value would change is still <gradient, row of the table>."""
    support, values, _, table = code(*sizes, empty=1.0)
    values.requires_grad_()
    decoded = bag(support, values, table.requires_grad_())
    assert not decoded.any()
    decoded.sum().backward()
    torch.testing.assert_close(values.grad, table.detach()[support].sum(-1))
    assert not table.grad.any()


def test_inputs_may_be_strided():
    support, values, x, table = code(4, 6, 9, dim=8)
    arguments = (support[:, ::2], values[:, 1::2], x.mT.contiguous().mT[:, :4], table[::2, ::2])
    support = arguments[0] % 5
    plain = [t.contiguous() for t in (support, *arguments[1:])]
    strided = (support.mT.contiguous().mT, *arguments[1:])
    for s, v, x, t in (strided, plain):
        assert_equal(bag(s, v, t), np.einsum("bw,bwd->bd", plain[1], plain[3][plain[0]]))
        assert_equal(dots(x, s, t), np.einsum("bd,bwd->bw", plain[2], plain[3][plain[0]]))
        np.testing.assert_array_equal(rows(s, v, x, 5), rows(*plain[:3], 5))


def test_a_broadcast_gradient_is_no_obstacle():
    support, values, x, table = code(3, 4, 6)
    (gradient,) = torch.autograd.grad(bag(support, values, table.requires_grad_()).sum(), table)
    ones = rows(support, values, torch.ones_like(x), len(table))
    torch.testing.assert_close(gradient, ones)


@pytest.mark.parametrize("wrong", [-1, 6])
def test_an_index_outside_of_the_table(wrong):
    support, values, x, table = code(3, 4, 6)
    support[1, 2] = wrong
    for call in (
        lambda: bag(support, values, table),
        lambda: dots(x, support, table),
        lambda: rows(support, values, x, 6),
    ):
        with pytest.raises(ShapeError, match=r"outside of its table: got indices .*0 … 5") as info:
            call()
        assert info.value.code == "slots.out_of_range"


def test_non_finite_numbers_are_passed_on():
    support, values, x, table = code(3, 4, 6, empty=0.0)
    values[0, 0], x[1, 1] = float("nan"), float("inf")
    assert bag(support, values, table)[0].isnan().all()
    assert not dots(x, support, table)[1].isfinite().any()
    assert rows(support, values, x, 6)[support[0, 0]].isnan().all()


@pytest.mark.parametrize("sizes", CASES)
@pytest.mark.parametrize("which", ["bag", "dots", "rows"])
def test_operators_keep_the_rules_of_torch(which, sizes):
    support, values, x, table = code(*sizes)
    for tensor in (values, x, table):
        tensor.requires_grad_()
    arguments = {
        "bag": (support, values, table),
        "dots": (x, support, table),
        "rows": (support, values, x, len(table)),
    }[which]
    torch.library.opcheck(getattr(torch.ops.vsae, which).default, arguments)


def test_shapes_are_known_without_numbers():
    support, values, x, table = (t.to("meta") for t in code(3, 4, 6))
    assert bag(support, values, table).shape == (3, 4)
    assert dots(x, support, table).shape == (3, 4)
    assert rows(support, values, x, 6).shape == (6, 4)


class Decoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Parameter(torch.randn(6, 4))

    def forward(self, support, values):
        return bag(support, values, self.table)


def test_export_keeps_the_operator_and_its_gradient():
    support, values, _, _ = code(3, 4, 6)
    module = Decoder()
    exported = torch.export.export(module, (support, values), strict=False).module()
    assert "vsae.bag" in exported.code
    wanted, got = (
        torch.autograd.grad(m(support, values).square().sum(), list(m.parameters()))
        for m in (module, exported)
    )
    torch.testing.assert_close(got, wanted)
    assert wanted[0].any()


def test_no_warning_escapes():
    """In a process of its own: torch says once per process that its sparse tensors are in beta."""
    program = (
        "import torch; from vsae.slots import dots;"
        "dots(torch.ones(2, 3), torch.zeros(2, 1, dtype=torch.int64), torch.ones(4, 3))"
    )
    command = [sys.executable, "-W", "error::UserWarning", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "beta" not in done.stderr
