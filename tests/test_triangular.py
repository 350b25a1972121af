"""The product by halves is the product, in value and gradient, also of replicas."""

import numpy as np
import pytest
import torch

from priors.triangular import WHOLE, rows_times_lower


@pytest.mark.parametrize("size", [1, WHOLE, WHOLE + 1, 2 * WHOLE + 3])
def test_product_by_halves(size):
    rows = torch.randn(7, size, requires_grad=True)
    lower = torch.randn(size, size).tril().requires_grad_()
    out, pull = rows_times_lower(rows, lower), torch.randn(7, size)
    found = [out, *torch.autograd.grad(out, (rows, lower), pull)]
    z, matrix, g = (t.detach().numpy() for t in (rows, lower, pull))
    expected = [z @ matrix, g @ matrix.T, z.T @ g]
    for mine, theirs in zip(found, expected, strict=True):
        # Sums of at most 1027 products of about 1 in another order; zeros of the gradient's upper
        # triangle belong to entries that are not parameters.
        keep = np.tril(np.ones(theirs.shape)) if theirs.shape == (size, size) else 1.0
        np.testing.assert_allclose(keep * mine.detach().numpy(), keep * theirs, atol=1e-11)


def test_replicas_have_matrices_of_their_own():
    size = WHOLE + 5
    rows, lower = torch.randn(3, 4, size), torch.randn(3, 1, size, size).tril()
    expected = np.einsum("rbk,rkj->rbj", rows.numpy(), lower[:, 0].numpy())
    np.testing.assert_allclose(rows_times_lower(rows, lower).numpy(), expected, atol=1e-11)
