"""``Lz`` on sparse codes: what a slot receives from its graph neighbours among the active."""

import torch
from torch import Tensor
from torch.library import custom_op

# Rows of L are read in pieces of CHUNK entries, so that a hub is many pieces and pads nothing, and
# entries move eight at a time. Codes are written out a few rows at a time, to stay in the cache.
CHUNK, SCRATCH_NUMBERS, SCRATCH_ROWS = 8, 2**19, 16


def _pieces(starts: Tensor, ends: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each row its first piece (K + 1,); ends and weights of the pieces (n, CHUNK)."""
    degree = starts.diff()
    pieces = (degree + CHUNK - 1) // CHUNK
    first = torch.cat([pieces.new_zeros(1), pieces.cumsum(0)])
    shift = (first[:-1] * CHUNK - starts[:-1]).repeat_interleave(degree)
    place = torch.arange(len(ends), device=ends.device) + shift
    shape = (int(pieces.sum()), CHUNK)
    padded_ends = ends.new_zeros(shape).view(-1).index_copy_(0, place, ends)
    padded_weights = weights.new_zeros(shape).view(-1).index_copy_(0, place, weights)
    return first, padded_ends.view(shape), padded_weights.view(shape)


@custom_op("priors::neighbour_forms", mutates_args=())
def neighbour_forms(
    support: Tensor, values: Tensor, starts: Tensor, ends: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """``zᵀLz`` (B,), and the pull ``Lz`` at the slots (B, W), of codes ``values`` on ``support``.

    ``L`` is symmetric, in CSR with its diagonal: ``starts`` (K + 1,), ``ends``, ``weights``. The
    gradient of the first output is twice the second. A custom operator, because ``torch.export``
    forgets the backward pass of an ``autograd.Function``.
    """
    pieces, nodes = _pieces(starts, ends, weights), len(starts) - 1
    step = min(len(values), max(SCRATCH_ROWS, SCRATCH_NUMBERS // nodes))
    scratch, pull = values.new_zeros(step * nodes), torch.zeros_like(values)
    for here, value, out in zip(
        support.split(step), values.split(step), pull.split(step), strict=True
    ):
        offset = (torch.arange(len(here), device=here.device) * nodes).repeat_interleave(
            here.shape[1]
        )
        place = here.reshape(-1) + offset
        scratch.index_add_(0, place, value.reshape(-1))
        _receive(out.view(-1), here.reshape(-1), offset, scratch, *pieces)
        scratch.index_fill_(0, place, 0.0)
    return (values * pull).sum(-1), pull


def _receive(out, node, offset, scratch, first, ends, weights) -> None:
    """Adds to ``out`` (n,) the entries of ``L``'s rows ``node`` times codes, whose row is at
    ``offset`` of ``scratch``."""
    count = first.diff().index_select(0, node)
    slot = torch.arange(len(node), device=node.device).repeat_interleave(count)
    shift = first.index_select(0, node) - (count.cumsum(0) - count)
    piece = torch.arange(len(slot), device=node.device) + shift.index_select(0, slot)
    other = ends.index_select(0, piece).add_(offset.index_select(0, slot).unsqueeze(1))
    weight = weights.index_select(0, piece)
    received = scratch.index_select(0, other.view(-1)).view_as(weight).mul_(weight)
    out.index_add_(0, slot, received.sum(1))


@neighbour_forms.register_fake
def _(support, values, starts, ends, weights):
    return values.new_empty(values.shape[:-1]), torch.empty_like(values)


def _save(ctx, inputs, output):
    ctx.set_materialize_grads(False)  # the pull's own gradient only exists in a second derivative
    support, _, *graph = inputs
    ctx.save_for_backward(support, output[1], *graph)


def _backward(ctx, g_smooth, g_pull):
    support, pull, *graph = ctx.saved_tensors
    grad = None if g_smooth is None else pull * (2 * g_smooth).unsqueeze(-1)
    if g_pull is not None:
        moved = neighbour_forms(support, g_pull.contiguous(), *graph)[1]
        grad = moved if grad is None else grad + moved
    return None, grad, None, None, None


neighbour_forms.register_autograd(_backward, setup_context=_save)
