"""``zᵀz``, ``zᵀLz`` and ``Lz`` of many rows at once, with a gradient that is already there."""

import torch
from torch import Tensor
from torch.library import custom_op

# A chunk's transposed rows are read once per edge: they should stay in the cache (2 MB of float32),
# and an embedding_bag wants at least this many columns to be worth its offsets.
CHUNK_NUMBERS, CHUNK_ROWS = 2**19, 32


@custom_op("priors::laplacian_forms", mutates_args=())
def laplacian_forms(
    z: Tensor, starts: Tensor, ends: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """``zᵀz`` and ``zᵀL_r z`` (R, N), and the pull ``L_r z`` (R, N, K), for rows ``z`` (R, N, K).

    ``L`` is the block-diagonal union of the ``L_r`` in CSR: ``starts`` (R·K + 1,), ``ends``,
    ``weights``, each symmetric, so that the gradient of ``zᵀLz`` is twice the pull. A custom
    operator, because ``torch.export`` forgets the backward pass of an ``autograd.Function``.
    """
    replicas, rows, nodes = z.shape
    square, smooth = (z.new_empty(replicas, rows) for _ in range(2))
    pull = z.new_empty(z.shape)
    step = max(CHUNK_ROWS, CHUNK_NUMBERS // max(1, replicas * nodes))
    for begin in range(0, rows, step):
        here = slice(begin, min(rows, begin + step))
        table = z.new_empty(replicas, nodes, z[:, here].shape[1])
        _transpose_into(table, z[:, here])
        moved = torch.nn.functional.embedding_bag(
            ends,
            table.flatten(0, 1),
            starts,
            mode="sum",
            per_sample_weights=weights,
            include_last_offset=True,
        )
        moved = moved.view(replicas, nodes, -1)
        square[:, here] = table.square().sum(1)
        smooth[:, here] = (table * moved).sum(1)
        _transpose_into(pull[:, here], moved)
    return square, smooth, pull


def _transpose_into(target: Tensor, source: Tensor) -> None:
    """``target[r] = source[r]ᵀ``. Torch moves a matrix in tiles, a stack of them one by one."""
    if len(source) == 1:
        target, source = target[0], source[0]
    target.copy_(source.mT)


@laplacian_forms.register_fake
def _(z, starts, ends, weights):
    return z.new_empty(z.shape[:-1]), z.new_empty(z.shape[:-1]), z.new_empty(z.shape)


def _save(ctx, inputs, output):
    ctx.set_materialize_grads(False)  # the pull's own gradient only exists in a second derivative
    ctx.save_for_backward(*inputs, output[2])


def _backward(ctx, g_square, g_smooth, g_pull):
    z, starts, ends, weights, pull = ctx.saved_tensors
    grad = None
    if g_smooth is not None:
        grad = pull * (2 * g_smooth).unsqueeze(-1)
    if g_square is not None:
        from_square = (2 * g_square).unsqueeze(-1)
        grad = z * from_square if grad is None else grad.addcmul_(z, from_square)
    if g_pull is not None:
        moved = laplacian_forms(g_pull.contiguous(), starts, ends, weights)[2]
        grad = moved if grad is None else grad + moved
    return grad, None, None, None


laplacian_forms.register_autograd(_backward, setup_context=_save)
