"""``Σ_k w_k s_k²`` and ``Σ_k log s_k`` per row: what a diagonal covariance adds to a KL."""

import torch
from torch import Tensor
from torch.library import custom_op

from priors._replica_rows import flat_rows, unflat_rows

CHUNK_NUMBERS = 2**18  # 1 MB of float32: the squares of a chunk are summed where they were made
LARGE = 2**20  # numbers: a custom operator costs more than it saves below


def diagonal_sums(scale: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """``Σ_k w_k s_k²`` and ``Σ_k log s_k`` per row of ``scale``.

    Args:
        scale: ``(*batch, K)``.
        weight: ``(K,)``, or ``(R, 1, K)`` for replicas.
    """
    stacked = weight.dim() == 3 and weight.shape[1] == 1
    if scale.numel() < LARGE or not (stacked or weight.dim() == 1):
        return (scale.square() * weight).sum(-1), scale.log().sum(-1)
    replicas = len(weight) if stacked else None
    rows, shape = flat_rows(scale, replicas)
    trace, log = diagonal_forms(rows, weight.reshape(-1, weight.shape[-1]))
    return unflat_rows(trace, shape, replicas), unflat_rows(log, shape, replicas)


@custom_op("priors::diagonal_forms", mutates_args=())
def diagonal_forms(scale: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """``Σ_k w_k s_k²`` and ``Σ_k log s_k`` for ``scale`` (R, N, K) and ``weight`` (R, K).

    Written out, the two sums keep or make eight arrays of the size of ``scale``, forward and
    backward; here none but the gradient. A custom operator, because ``torch.export`` forgets the
    backward pass of an ``autograd.Function``.
    """
    replicas, rows, latents = scale.shape
    column = weight.unsqueeze(-1)
    step = max(1, CHUNK_NUMBERS // max(1, replicas * latents))
    if step >= rows:
        return torch.bmm(scale.square(), column).squeeze(-1), scale.log().sum(-1)
    trace, log = scale.new_empty(replicas, rows), scale.new_empty(replicas, rows)
    for begin in range(0, rows, step):
        here = scale[:, begin : begin + step]
        trace[:, begin : begin + step] = torch.bmm(here.square(), column).squeeze(-1)
        log[:, begin : begin + step] = here.log().sum(-1)
    return trace, log


@diagonal_forms.register_fake
def _(scale, weight):
    return scale.new_empty(scale.shape[:-1]), scale.new_empty(scale.shape[:-1])


def _save(ctx, inputs, output):
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs)


def _backward(ctx, g_trace, g_log):
    scale, weight = ctx.saved_tensors
    to_scale = to_weight = None
    if g_trace is not None:
        to_scale = scale * (2 * weight).unsqueeze(-2)
        to_scale.mul_(g_trace.unsqueeze(-1))
        if ctx.needs_input_grad[1]:
            to_weight = torch.bmm(g_trace.unsqueeze(-2), scale.square()).squeeze(-2)
    if g_log is not None:
        g_log = g_log.unsqueeze(-1)
        to_scale = g_log / scale if to_scale is None else to_scale.addcdiv_(g_log, scale)
    return to_scale, to_weight


diagonal_forms.register_autograd(_backward, setup_context=_save)
