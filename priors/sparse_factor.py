"""Sparse symmetric positive-definite systems on the host, and their cost before trying."""

import numpy as np
import torch
from jaxtyping import Float
from scipy import sparse
from scipy.sparse.linalg import SuperLU, spilu, splu
from torch import Tensor

from priors.errors import GraphError

MOST_FILL = 2**27  # numbers in the factor: about 1.6 GB with their indices
MOST_WORK = 2**38  # multiplications: two or three minutes of one core


def factorise(matrix: sparse.csc_array) -> tuple[SuperLU, np.ndarray]:
    """``P A Pᵀ = L U`` by minimum degree without pivoting, and the order ``P`` as an index.

    Raises:
        GraphError: ``graph.too_large`` if the factor, counted exactly beforehand, would not fit.
    """
    order = _minimum_degree(matrix)
    permuted = sparse.csc_array(matrix[order][:, order])
    columns = column_counts(permuted)
    fill, work = int(columns.sum()), float(np.square(columns, dtype=float).sum())
    if fill > MOST_FILL or work > MOST_WORK:
        raise GraphError(
            f"this graph fills in: its factor would have {fill:.3g} numbers and take {work:.3g} "
            f"multiplications, expected at most {MOST_FILL:.3g} and {MOST_WORK:.3g}. Normalise by "
            "logdet=Spectrum() (components up to 8192), logdet=LanczosSpectrum() (any size, with a "
            "standard error) or, for a fixed prior, leave the constant out by logdet=Omitted().",
            code="graph.too_large",
            context={"fill": fill, "work": work, "nodes": matrix.shape[0]},
        )
    options = {"SymmetricMode": True}
    return splu(permuted, "NATURAL", diag_pivot_thresh=0.0, options=options), order


def _minimum_degree(matrix: sparse.csc_array) -> np.ndarray:
    """The order only: an incomplete factorisation that keeps nothing is the cheapest way to it."""
    pattern = abs(matrix) + sparse.diags_array(abs(matrix).sum(1) + 1.0)  # surely non-singular
    found = spilu(
        sparse.csc_array(pattern),
        drop_tol=1.0,
        fill_factor=1.0,
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    return np.argsort(found.perm_c)


def elimination_tree(matrix: sparse.csc_array) -> list[int]:
    """The parent of each column in the Cholesky factor of a symmetric pattern, -1 for a root.

    Source:
        Liu (1986), A compact row storage scheme for Cholesky factors, ACM TOMS 12:127.
    """
    starts, rows = matrix.indptr.tolist(), matrix.indices.tolist()
    parent, ancestor = [-1] * matrix.shape[1], [-1] * matrix.shape[1]
    for column in range(matrix.shape[1]):
        for row in rows[starts[column] : starts[column + 1]]:
            while row != -1 and row < column:
                above, ancestor[row] = ancestor[row], column  # path compression
                if above == -1:
                    parent[row] = column
                row = above
    return parent


def column_counts(matrix: sparse.csc_array) -> np.ndarray:
    """Non-zeros of each column of the Cholesky factor of a symmetric pattern, diagonal included.

    Row ``i`` of the factor is the subtree of the elimination tree that joins ``i`` to the columns
    of row ``i`` of the matrix. Counting, over all rows, +1 at each subtree's leaves and -1 where
    two of its branches meet, and summing up the tree, gives every column at the cost of the edges.

    Source:
        Gilbert, Ng & Peyton (1994), An efficient algorithm to compute row and column counts for
        sparse Cholesky factorization, SIAM J. Matrix Anal. Appl. 15:1075.
    """
    size, parent = matrix.shape[1], elimination_tree(matrix)
    postorder, first = _postorder(parent)
    starts, rows = matrix.indptr.tolist(), matrix.indices.tolist()
    count = [int(first[node] == rank) for rank, node in sorted(enumerate(postorder), key=_node)]
    last_first, last_leaf, meet = [-1] * size, [-1] * size, list(range(size))
    for node in postorder:
        if parent[node] != -1:
            count[parent[node]] -= 1
        for row in rows[starts[node] : starts[node + 1]]:
            if row <= node or first[node] <= last_first[row]:
                continue  # not a leaf of this row's subtree
            count[node] += 1
            last_first[row] = first[node]
            if last_leaf[row] != -1:
                count[_find(meet, last_leaf[row])] -= 1
            last_leaf[row] = node
        if parent[node] != -1:
            meet[node] = parent[node]
    for node in postorder:
        if parent[node] != -1:
            count[parent[node]] += count[node]
    return np.array(count, dtype=np.int64)


def _node(ranked: tuple[int, int]) -> int:
    return ranked[1]


def _find(meet: list[int], node: int) -> int:
    root = node
    while meet[root] != root:
        root = meet[root]
    while meet[node] != root:
        meet[node], node = root, meet[node]
    return root


def _postorder(parent: list[int]) -> tuple[list[int], list[int]]:
    """The nodes, children first, and the rank in that order of each node's first descendant."""
    children: list[list[int]] = [[] for _ in parent]
    roots = []
    for node in range(len(parent)):
        (roots if parent[node] == -1 else children[parent[node]]).append(node)
    order, stack = [], roots[::-1]
    while stack:  # parents before children, last child first; reversed below
        order.append(stack.pop())
        stack.extend(children[order[-1]])
    order.reverse()
    first = [len(parent)] * len(parent)
    for rank, node in enumerate(order):
        first[node] = min(first[node], rank)
        if parent[node] != -1:
            first[parent[node]] = min(first[parent[node]], first[node])
    return order, first


class SymmetricSolve(torch.autograd.Function):
    """``A⁻¹ b`` for rows ``b`` (N, K) and a factorised symmetric ``A``; its own transpose."""

    @staticmethod
    def forward(ctx, rows: Float[Tensor, "N K"], factor: SuperLU, order: np.ndarray) -> Tensor:
        ctx.factor, ctx.order = factor, order
        given = rows.detach().to("cpu", torch.float64).numpy().T
        solved = np.empty_like(given)
        solved[order] = factor.solve(np.ascontiguousarray(given[order]))
        return torch.from_numpy(np.ascontiguousarray(solved.T)).to(rows)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        return SymmetricSolve.apply(grad, ctx.factor, ctx.order), None, None
