"""Codes as a sparse matrix, so that counting who fires with whom costs what fires."""

import numpy as np
from scipy import sparse
from torch import Tensor

from vsae.metrics.hierarchy import check_rows


def sparse_codes(codes: Tensor, name: str = "codes") -> sparse.csc_array:
    """The non-zero codes ``(rows, K)`` in float64; checked to be a finite matrix with rows."""
    codes = check_rows(name, codes)
    row, latent = codes.nonzero(as_tuple=True)
    values = codes[row, latent].double().numpy()
    return sparse.csc_array((values, (row.numpy(), latent.numpy())), shape=tuple(codes.shape))


def firings(codes: Tensor, name: str = "codes") -> sparse.csc_array:
    """1 where a latent fires (its code is not zero), in float64."""
    matrix = sparse_codes(codes, name)
    matrix.data = np.ones_like(matrix.data)
    return matrix
