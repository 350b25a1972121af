"""Pairs of latents and their weights, from codes as a sparse matrix: what latent graphs share."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from priors.edge_list import check_size
from priors.errors import GraphError

NUMBERS = 2**22  # of pairs held at a time, if all latents of a block were tied to all others

LONG = 4  # times k, on average: rows of pairs that are worth a selection before they are sorted


@runtime_checkable
class CodesInSlots(Protocol):
    """Codes that know their sparse matrix: :class:`vsae.SparseCode`."""

    def to_scipy(self) -> sparse.sparray:
        """``(N, K)``."""


Codes = torch.Tensor | sparse.sparray | sparse.spmatrix | CodesInSlots
Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


def as_columns(codes: Codes) -> sparse.csc_array:
    """Codes ``(N, K)`` in float64, without stored zeros; checked to be a finite matrix."""
    if isinstance(codes, CodesInSlots):
        codes = codes.to_scipy()
    if isinstance(codes, torch.Tensor):
        codes = codes.detach().cpu()
        if codes.dim() == 2:
            row, latent = codes.nonzero(as_tuple=True)
            values = codes[row, latent].double().numpy()
            codes = sparse.csc_array((values, (row.numpy(), latent.numpy())), shape=codes.shape)
    shape = tuple(codes.shape)
    if len(shape) != 2 or not all(shape):
        raise GraphError(
            f"codes are a matrix with a row per activation: got shape {shape}, expected (N, K).",
            code="graph.codes",
            context={"shape": shape},
        )
    matrix = sparse.csc_array(codes, dtype=np.float64)
    matrix.eliminate_zeros()
    if not np.isfinite(matrix.data).all():
        raise GraphError(
            f"codes are not finite: got {int((~np.isfinite(matrix.data)).sum())} NaN or infinite "
            "values, expected none.",
            code="graph.codes",
        )
    return matrix


def unit_columns(matrix: sparse.csc_array) -> sparse.csc_array:
    """Each column divided by its length; empty ones stay empty."""
    length = np.sqrt(np.asarray((matrix * matrix).sum(0)).reshape(-1))
    return sparse.csc_array(matrix @ sparse.diags_array(1 / np.where(length > 0, length, 1.0)))


def nearest_pairs(
    factors: Sequence[sparse.sparray],
    k: int,
    weigh: Callable[[NDArray, NDArray, NDArray], NDArray] = lambda row, col, value: value,
) -> Pairs:
    """Of every row of the product of ``factors`` (K, K) its ``k`` largest positive weights.

    The product is made a block of rows at a time; ``weigh(row, column, value)`` makes a weight of
    a number that is not zero. Equal weights are taken in order of the column.
    """
    latents = factors[0].shape[0]
    check_size(latents, latents * max(k, 0))
    if not 1 <= k < latents:
        raise GraphError(
            f"impossible number of neighbours: got k={k} for {latents} latents, expected 1 <= k <= "
            f"{latents - 1}.",
            code="graph.neighbours",
            context={"k": k, "num_nodes": latents},
        )
    parts = [_best(*_weighed(block, weigh), k) for block in _blocks(factors)]
    source, target, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
    return source.astype(np.int64), target.astype(np.int64), weight


def _blocks(factors: Sequence[sparse.sparray]) -> Iterator[tuple[NDArray, NDArray, NDArray]]:
    first, *others = map(sparse.csr_array, factors)
    step = max(1, NUMBERS // first.shape[0])
    for start in range(0, first.shape[0], step):
        block = first[start : start + step]
        for factor in others:
            block = block @ factor
        pairs = sparse.coo_array(block)
        row, column = pairs.coords
        yield row + start, column, pairs.data


def _weighed(block: tuple[NDArray, NDArray, NDArray], weigh) -> tuple[NDArray, NDArray, NDArray]:
    row, column, value = block
    weight = weigh(row, column, value)
    kept = (weight > 0) & (row != column)
    return row[kept], column[kept], weight[kept]


def _best(row: NDArray, column: NDArray, weight: NDArray, k: int):
    row, column, weight = _within_reach(row, column, weight, k)
    order = np.lexsort((column, -weight, row))
    row, column, weight = row[order], column[order], weight[order]
    first = np.flatnonzero(np.diff(row, prepend=-1))  # where a row begins
    rank = np.arange(len(row)) - np.repeat(first, np.diff(first, append=len(row)))
    kept = rank < k
    return row[kept], column[kept], weight[kept]


def _within_reach(row: NDArray, column: NDArray, weight: NDArray, k: int):
    """Without what is below its row's ``k``-th weight, where that spares sorting most of a block.

    Weights of a row are written side by side, padded with zeros, of which a selection is fast.
    """
    if not len(row):
        return row, column, weight
    first = np.flatnonzero(np.diff(row, prepend=-1))
    count = np.diff(first, append=len(row))
    if count.max() <= k or len(row) < LONG * k * len(first):
        return row, column, weight
    place = np.repeat(np.arange(len(first)), count)
    table = np.zeros((len(first), count.max()))
    table[place, np.arange(len(row)) - np.repeat(first, count)] = weight
    bar = torch.from_numpy(table).topk(min(k, table.shape[1]), dim=1).values[:, -1].numpy()
    kept = weight >= bar[place]
    return row[kept], column[kept], weight[kept]
