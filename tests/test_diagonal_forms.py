"""The sums of a diagonal KL on their large path, against numpy and against the plain formula."""

import numpy as np
import pytest
import torch

from priors import diagonal_forms as module
from priors.diagonal_forms import diagonal_sums


@pytest.fixture(params=[1, 2**40], ids=["operator", "plain"])
def _path(request, monkeypatch):
    monkeypatch.setattr(module, "LARGE", request.param)
    monkeypatch.setattr(module, "CHUNK_NUMBERS", 40)  # several chunks, the last one short


@pytest.mark.usefixtures("_path")
@pytest.mark.parametrize(
    ("scale", "weight"), [((7, 5), (5,)), ((2, 7, 5), (5,)), ((3, 7, 5), (3, 1, 5))]
)
def test_values_and_gradients(scale, weight):
    s = (torch.rand(scale) + 0.5).requires_grad_()
    w = (torch.rand(weight) + 0.5).requires_grad_()
    trace, log = diagonal_sums(s, w)
    a, b = s.detach().numpy(), w.detach().numpy()
    np.testing.assert_allclose(trace.detach(), (b * a**2).sum(-1), rtol=1e-13)
    np.testing.assert_allclose(log.detach(), np.log(a).sum(-1), rtol=1e-13)
    g, h = torch.randn(trace.shape), torch.randn(log.shape)
    to_s, to_w = torch.autograd.grad((trace * g).sum() + (log * h).sum(), (s, w))
    pull, push = g.numpy()[..., None], h.numpy()[..., None]
    np.testing.assert_allclose(to_s, 2 * pull * b * a + push / a, rtol=1e-12, atol=1e-14)
    summed = (pull * a**2).reshape(-1, *a.shape[-2:])
    expected = summed.sum(-2, keepdims=True) if len(weight) == 3 else summed.sum((0, 1))
    np.testing.assert_allclose(to_w, expected.reshape(weight), rtol=1e-12, atol=1e-14)


@pytest.mark.usefixtures("_path")
def test_second_derivatives():
    s, w = torch.rand(4, 3) + 0.5, torch.rand(3) + 0.5
    inputs = (s.requires_grad_(), w.requires_grad_())
    assert torch.autograd.gradcheck(diagonal_sums, inputs)
    assert torch.autograd.gradgradcheck(diagonal_sums, inputs)


@pytest.mark.usefixtures("_path")
def test_one_sum_alone_has_its_gradient():
    s = (torch.rand(4, 3) + 0.5).requires_grad_()
    for which, expected in ((0, 2 * s.detach()), (1, 1 / s.detach())):
        (gradient,) = torch.autograd.grad(diagonal_sums(s, torch.ones(3))[which].sum(), s)
        torch.testing.assert_close(gradient, expected)
