"""Fourier planes of the layers of networks that add, against a two-dimensional transform."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from toys.modadd import ModAdd
from toys.modadd_layers import KINDS, layer_planes, modadd_streams

MODES = {"first": (1, 0), "second": (0, 1), "sum": (1, 1), "difference": (1, -1)}


@pytest.mark.parametrize("name", ["pizza", "two-blocks", "three-blocks"])
def test_shares_are_powers_of_the_transform_in_both_numbers(name):
    """exp(2πi(fa + gb)/59): functions of a are g = 0, of a + b are f = g, of a - b are f = -g."""
    model = ModAdd.load(name)
    layers = range(model.num_layers + 1)
    planes = layer_planes(model, layers)
    x = modadd_streams(model, layers).double().numpy().reshape(59, 59, len(layers), 128)
    waves = np.fft.fft2(x, axes=(0, 1)) / 59**2
    power = (np.abs(waves) ** 2).sum(-1)
    power[0, 0] = 0
    total = power.sum((0, 1))
    for kind, whole in zip(KINDS, planes.whole, strict=True):
        a, b = MODES[kind]
        own = sum(power[a * f % 59, b * f % 59] for f in range(1, 59))
        assert_allclose(whole, own / total, atol=1e-8)
    for kind, f, share in zip(planes.kinds, planes.frequencies, planes.shares, strict=True):
        a, b = MODES[kind]
        assert_allclose(share, 2 * power[a * f % 59, b * f % 59] / total, atol=1e-8)
    assert (planes.whole.sum(0) <= 1 + 1e-9).all()
    assert len(set(zip(planes.kinds, planes.frequencies, strict=True))) == len(planes.kinds)


def test_the_parts_of_the_last_layer_lie_in_their_planes():
    model = ModAdd.load("three-blocks")
    planes, x = layer_planes(model), modadd_streams(model).double()
    total = (x.sum(0) * 0).new_zeros(59, 3, 128)
    total.index_add_(0, model.pairs().sum(-1) % 59, x / 59)
    at = planes.kinds.index("sum")
    waves = torch.fft.fft(total, dim=0)
    kept = torch.zeros_like(waves)
    f = planes.frequencies[at]
    kept[f], kept[-f] = waves[f], waves[-f]
    part = torch.fft.ifft(kept, dim=0).real
    planar = planes.planarity(part)[..., at]
    torch.testing.assert_close(planar, torch.ones_like(planar))


def test_the_answer_is_made_on_the_way():
    """The first layer of three-blocks holds both numbers, the last almost nothing but their sum."""
    planes = layer_planes(ModAdd.load("three-blocks"))
    whole = dict(zip(KINDS, planes.whole, strict=True))
    assert (whole["first"] + whole["second"])[0] > 0.5
    assert whole["sum"][-1] > 0.95
    assert (whole["sum"].diff() > 0).all()


@pytest.mark.float32
def test_streams_are_those_of_the_network():
    model = ModAdd.load("two-blocks")
    x = modadd_streams(model)
    assert x.shape == (59**2, 2, 128)
    assert x.dtype == torch.float32
    assert torch.equal(x[:, -1], model.sum_stream())
    assert model.accuracy(x[:, -1]) == 1
