"""One trilinear form and its three derivatives: all the linear algebra that a sparse code needs.

A code has ``W`` slots per row: ``support[b, j]`` names a row of a table ``T`` (n, d) and
``values[b, j]`` is the number there; a slot with value 0 is empty and says nothing, and an index
may repeat. Everything is a derivative of

.. math:: f(x, v, T) = \\sum_{bj} v_{bj} \\langle x_b, T_{s_{bj}} \\rangle

:func:`bag` is ∂f/∂x (decode), :func:`dots` is ∂f/∂v (encode), :func:`rows` is ∂f/∂T (the gradient
of a weight), so the backward of each is the other two, to any order. They are custom operators,
because ``torch.export`` forgets the backward of an ``autograd.Function``.
"""

import functools
import warnings

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.library import custom_op

from vsae.errors import ShapeError


def bag(
    support: Int[Tensor, "B W"], values: Float[Tensor, "B W"], table: Float[Tensor, "n d"]
) -> Float[Tensor, "B d"]:
    """The weighted sum of the rows of ``table`` that a code names: the decoder.

    .. math:: o_b = \\sum_j v_{bj} T_{s_{bj}}

    Args:
        support: Rows of the table, (B, W) int64, each in ``0 … n - 1``.
        values: Their weights, (B, W).
        table: (n, d).

    Raises:
        ShapeError: An index outside of the table (``slots.out_of_range``; on a CPU).

    Example:
        >>> bag(torch.tensor([[2, 0]]), torch.tensor([[10.0, 1.0]]), torch.eye(3))
        tensor([[ 1.,  0., 10.]])
    """
    return _bag(support, values, table)


def dots(
    x: Float[Tensor, "B d"], support: Int[Tensor, "B W"], table: Float[Tensor, "n d"]
) -> Float[Tensor, "B W"]:
    """The inner products of each row with the rows of ``table`` that its code names.

    .. math:: o_{bj} = \\langle x_b, T_{s_{bj}} \\rangle

    Args:
        x: (B, d).
        support: Rows of the table, (B, W) int64, each in ``0 … n - 1``.
        table: (n, d).

    Raises:
        ShapeError: An index outside of the table (``slots.out_of_range``; on a CPU).

    Example:
        >>> dots(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[2, 0]]), torch.eye(3))
        tensor([[3., 1.]])
    """
    return _dots(x, support, table)


def rows(
    support: Int[Tensor, "B W"], values: Float[Tensor, "B W"], x: Float[Tensor, "B d"], size: int
) -> Float[Tensor, "n d"]:
    """The weighted sum, for every row of a table, of the rows of ``x`` that name it.

    .. math:: o_i = \\sum_{bj :\\, s_{bj} = i} v_{bj} x_b

    Args:
        support: Rows of the table, (B, W) int64, each in ``0 … size - 1``.
        values: Their weights, (B, W).
        x: (B, d).
        size: The number n of rows of the table.

    Raises:
        ShapeError: An index outside of the table (``slots.out_of_range``; on a CPU).

    Example:
        >>> rows(torch.tensor([[1], [1]]), torch.ones(2, 1), torch.tensor([[3.0], [4.0]]), 3)
        tensor([[0.],
                [7.],
                [0.]])
    """
    return _rows(support, values, x, size)


def check_range(support: Tensor, size: int) -> None:
    """Raise where a kernel would read out of bounds; elsewhere than on a CPU it would wait."""
    if support.device.type != "cpu" or not support.numel():
        return
    least, greatest = (int(end) for end in support.aminmax())
    if least < 0 or greatest >= size:
        raise ShapeError(
            f"a code names a row outside of its table: got indices {least} … {greatest}, expected "
            f"0 … {size - 1}. Encode and decode with the same number of latents.",
            code="slots.out_of_range",
            context={"least": least, "greatest": greatest, "size": size},
        )


def _filled(values: Tensor) -> Tensor | None:
    """Flat positions (n,) of the slots that are not empty, where it pays to skip the empty ones."""
    if values.device.type == "cpu" and 2 * values.count_nonzero() < values.numel():
        return values.reshape(-1).nonzero().squeeze(-1)
    return None


def _starts(ids: Tensor, size: int) -> Tensor:
    """Where each of ``size`` bags begins among sorted ids: the exclusive running count (size,)."""
    count = torch.bincount(ids, minlength=size)
    return count.cumsum(0) - count


def _sums(ids: Tensor, table: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    return F.embedding_bag(ids, table, starts, per_sample_weights=weights, mode="sum")


@custom_op("vsae::bag", mutates_args=())
def _bag(support: Tensor, values: Tensor, table: Tensor) -> Tensor:
    check_range(support, len(table))
    if not (values.numel() and table.numel()):
        return table.new_zeros(len(support), table.shape[1])
    place = _filled(values)
    if place is None:
        return F.embedding_bag(support, table, per_sample_weights=values, mode="sum")
    starts = _starts(place // support.shape[1], len(support))
    return _sums(support.reshape(-1)[place], table, starts, values.reshape(-1)[place])


@functools.cache
def announce_sparse_csr() -> None:
    """Let torch say once, unheard, that its CSR tensors are in beta; it says so once a process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        zero = torch.zeros(1, dtype=torch.int32)
        torch.sparse_csr_tensor(zero, zero[:0], torch.zeros(0), (0, 1), check_invariants=False)


@custom_op("vsae::dots", mutates_args=())
def _dots(x: Tensor, support: Tensor, table: Tensor) -> Tensor:
    check_range(support, len(table))
    height, width = support.shape
    if width >= len(table) or not x.numel():  # torch caps a pattern's entries at those of a matrix
        return (x @ table.mT).gather(1, support)
    announce_sparse_csr()
    pattern = torch.sparse_csr_tensor(
        width * torch.arange(height + 1, dtype=torch.int32, device=x.device),
        support.reshape(-1).int(),
        x.new_zeros(support.numel()),
        (height, len(table)),
        check_invariants=False,  # an index may repeat, and they need not be sorted
    )
    return torch.sparse.sampled_addmm(pattern, x, table.mT, beta=0.0).values().view(height, width)


@custom_op("vsae::rows", mutates_args=())
def _rows(support: Tensor, values: Tensor, x: Tensor, size: int) -> Tensor:
    check_range(support, size)
    if not (values.numel() and x.numel()):
        return x.new_zeros(size, x.shape[1])
    latent, weights = support.reshape(-1), values.reshape(-1)
    place = _filled(values)
    if place is not None:
        latent, weights = latent[place], weights[place]
    order = torch.argsort(latent.int())
    token = (order if place is None else place[order]) // support.shape[1]
    return _sums(token, x, _starts(latent, size), weights[order])


@_bag.register_fake
def _(support, values, table):
    return table.new_empty(len(support), table.shape[1])


@_dots.register_fake
def _(x, support, table):
    return x.new_empty(support.shape)


@_rows.register_fake
def _(support, values, x, size):
    return x.new_empty(size, x.shape[1])


def _save(ctx, inputs, output):
    ctx.save_for_backward(*(i for i in inputs if isinstance(i, Tensor)))


def _bag_backward(ctx, grad):
    support, values, table = ctx.saved_tensors
    _, to_values, to_table = ctx.needs_input_grad
    return (
        None,
        _dots(grad, support, table) if to_values else None,
        _rows(support, values, grad, len(table)) if to_table else None,
    )


def _dots_backward(ctx, grad):
    x, support, table = ctx.saved_tensors
    to_x, _, to_table = ctx.needs_input_grad
    return (
        _bag(support, grad, table) if to_x else None,
        None,
        _rows(support, grad, x, len(table)) if to_table else None,
    )


def _rows_backward(ctx, grad):
    support, values, x = ctx.saved_tensors
    _, to_values, to_x, _ = ctx.needs_input_grad
    return (
        None,
        _dots(x, support, grad) if to_values else None,
        _bag(support, values, grad) if to_x else None,
        None,
    )


_bag.register_autograd(_bag_backward, setup_context=_save)
_dots.register_autograd(_dots_backward, setup_context=_save)
_rows.register_autograd(_rows_backward, setup_context=_save)
