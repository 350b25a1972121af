"""Decoding a code group by group, every slot read once: what nested prefixes are sums of.

With ``group[b, j]`` the group of a slot,

.. math:: o_{gb} = \\sum_{j :\\, g_{bj} = g} v_{bj} T_{s_{bj}}

Decoding each group by :func:`vsae.slots.bag` with the others' values at zero would be as fast, but
its backward would take inner products with all slots in every group; here it takes each slot's one.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.library import custom_op

from vsae.slots import announce_sparse_csr, bag, rows


def grouped_bag(
    support: Int[Tensor, "B W"],
    values: Float[Tensor, "B W"],
    group: Int[Tensor, "B W"],
    groups: int,
    table: Float[Tensor, "n d"],
) -> Float[Tensor, "G B d"]:
    """:func:`vsae.slots.bag` of each group of slots alone.

    Args:
        support: Rows of the table, (B, W) int64, each in ``0 … n - 1``.
        values: Their weights, (B, W).
        group: The group of each slot, (B, W) int64, ``0 … groups - 1``.
        groups: The number G of groups.
        table: (n, d).

    Raises:
        ShapeError: An index outside of the table (``slots.out_of_range``; on a CPU).

    Example:
        >>> support, values = torch.tensor([[2, 0]]), torch.tensor([[10.0, 1.0]])
        >>> grouped_bag(support, values, torch.tensor([[1, 0]]), 2, torch.eye(3)).squeeze(1)
        tensor([[ 1.,  0.,  0.],
                [ 0.,  0., 10.]])
    """
    return _grouped_bag(support, values, group, groups, table)


def _spread(support: Tensor, values: Tensor, group: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """A code (G·B, W) with rows of each group's own, in which the others' slots are empty."""
    own = group == torch.arange(groups, device=group.device)[:, None, None]
    width = support.shape[1]
    return (
        support.expand_as(own).reshape(-1, width),
        torch.where(own, values, 0).view(-1, width),
    )


@custom_op("vsae::grouped_bag", mutates_args=())
def _grouped_bag(
    support: Tensor, values: Tensor, group: Tensor, groups: int, table: Tensor
) -> Tensor:
    parts = bag(*_spread(support, values, group, groups), table)
    return parts.view(groups, len(support), table.shape[1])


@custom_op("vsae::grouped_dots", mutates_args=())
def _grouped_dots(x: Tensor, support: Tensor, group: Tensor, table: Tensor) -> Tensor:
    """``⟨x[g_bj, b], T[s_bj]⟩`` for x (G, B, d): one inner product per slot."""
    height = x.shape[1]
    row = torch.arange(height, device=group.device)[:, None]
    if support.shape[1] > len(table) or not x.numel():  # the kernel takes no such pattern
        return (x[group, row] * table[support]).sum(-1)
    return _sampled(
        x.flatten(0, 1), (group * height + row).view(-1), support.reshape(-1), table
    ).view(support.shape)


def _sampled(x: Tensor, row: Tensor, column: Tensor, table: Tensor) -> Tensor:
    """``⟨x[row_i], table[column_i]⟩``, for as few entries in each row as the table has rows."""
    announce_sparse_csr()
    order, found = row.argsort(), x.new_zeros(row.shape)
    starts = torch.zeros(len(x) + 1, dtype=torch.int32, device=x.device)
    starts[1:] = torch.bincount(row, minlength=len(x)).cumsum(0)
    pattern = torch.sparse_csr_tensor(
        starts,
        column[order].int(),
        found.view(-1),
        (len(x), len(table)),
        check_invariants=False,  # an index may repeat, and they need not be sorted
    )
    torch.sparse.sampled_addmm(pattern, x, table.mT, beta=0.0, out=pattern)
    return torch.empty_like(found).index_copy_(0, order, found)


@_grouped_bag.register_fake
def _(support, values, group, groups, table):
    return table.new_empty(groups, len(support), table.shape[1])


@_grouped_dots.register_fake
def _(x, support, group, table):
    return x.new_empty(support.shape)


def _save_bag(ctx, inputs, output):
    support, values, group, ctx.groups, table = inputs
    ctx.save_for_backward(support, values, group, table)


def _save_dots(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _bag_backward(ctx, grad):
    support, values, group, table = ctx.saved_tensors
    _, to_values, _, _, to_table = ctx.needs_input_grad
    spread = _spread(support, values, group, ctx.groups)
    return (
        None,
        _grouped_dots(grad, support, group, table) if to_values else None,
        None,
        None,
        rows(*spread, grad.flatten(0, 1), len(table)) if to_table else None,
    )


def _dots_backward(ctx, grad):
    x, support, group, table = ctx.saved_tensors
    to_x, _, _, to_table = ctx.needs_input_grad
    spread = _spread(support, grad, group, len(x))
    return (
        _grouped_bag(support, grad, group, len(x), table) if to_x else None,
        None,
        None,
        rows(*spread, x.flatten(0, 1), len(table)) if to_table else None,
    )


_grouped_bag.register_autograd(_bag_backward, setup_context=_save_bag)
_grouped_dots.register_autograd(_dots_backward, setup_context=_save_dots)
