"""Decoding by groups, against loops, and its derivatives to second order."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from vsae.errors import ShapeError
from vsae.groups import _grouped_dots, grouped_bag


def example(seed):
    """A code with empty slots, repeated indices and groups without slots."""
    generator = torch.Generator().manual_seed(seed)
    rows, width, latents, d_model, groups = (
        int(torch.randint(low, 6, (), generator=generator)) for low in (0, 1, 1, 1, 1)
    )
    support = torch.randint(latents, (rows, width), generator=generator)
    values = torch.randn(rows, width, generator=generator)
    values *= torch.rand(rows, width, generator=generator) < 0.6
    group = torch.randint(groups, (rows, width), generator=generator)
    return support, values, group, groups, torch.randn(latents, d_model, generator=generator)


@given(st.integers(0, 2**31))
def test_value_and_gradients_against_loops(seed):
    support, values, group, groups, table = example(seed)
    values.requires_grad_(), table.requires_grad_()
    out = grouped_bag(support, values, group, groups, table)
    weight = torch.randn_like(out)
    (out * weight).sum().backward()
    s, v, g, t, w = (a.detach().numpy() for a in (support, values, group, table, weight))
    expected, to_values, to_table = np.zeros(w.shape), np.zeros(v.shape), np.zeros(t.shape)
    for b, j in np.ndindex(*v.shape):
        expected[g[b, j], b] += v[b, j] * t[s[b, j]]
        to_values[b, j] = w[g[b, j], b] @ t[s[b, j]]
        to_table[s[b, j]] += v[b, j] * w[g[b, j], b]
    for ours, oracle in ((out, expected), (values.grad, to_values), (table.grad, to_table)):
        np.testing.assert_allclose(ours.detach().numpy(), oracle, rtol=1e-12, atol=1e-12)


def test_derivatives_to_second_order():
    support = torch.stack([torch.randperm(5)[:3] for _ in range(3)])
    group = torch.bucketize(support, torch.tensor([1, 3]), right=True)
    values, table = torch.randn(3, 3, requires_grad=True), torch.randn(5, 2, requires_grad=True)
    x = torch.randn(3, 3, 2, requires_grad=True)

    def decode(values, table):
        return grouped_bag(support, values, group, 3, table)

    def encode(x, table):
        return _grouped_dots(x, support, group, table)

    for function, inputs in ((decode, (values, table)), (encode, (x, table))):
        assert gradcheck(function, inputs)
        assert gradgradcheck(function, inputs)


def test_a_nan_stays_in_its_row_and_group():
    support, values = torch.tensor([[0, 1], [0, 1]]), torch.tensor([[torch.nan, 1.0], [1.0, 1.0]])
    out = grouped_bag(support, values, torch.tensor([[0, 1], [0, 1]]), 2, torch.eye(2))
    assert out.isnan().any(-1).tolist() == [[True, False], [False, False]]


def test_an_index_outside_of_the_table_is_refused():
    with pytest.raises(ShapeError) as caught:
        grouped_bag(
            torch.tensor([[3]]),
            torch.ones(1, 1),
            torch.zeros(1, 1, dtype=torch.int64),
            1,
            torch.eye(3),
        )
    assert caught.value.code == "slots.out_of_range"
