"""The one dense product of a sparse step: pre-activations, in chunks, of which ``k`` survive.

Nothing of size (B, K) exists at any time, forward or backward. The product is torch's own
``linear``; which kernel that is, is the caller's choice (:mod:`vsae.hardware`).
"""

from collections.abc import Callable
from numbers import Integral

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.library import custom_op

from priors.errors import ConfigError
from vsae.slots import bag, rows

# A chunk's scores stay below glibc's mmap threshold of 32 MB, above which every allocation pays
# page faults; and a product of very few rows reads the weights for nothing.
CHUNK_BYTES, CHUNK_ROWS = 2**24, 64


def top(
    scores: Float[Tensor, "B n"], k: int, groups: int = 16
) -> tuple[Float[Tensor, "B k"], Int[Tensor, "B k"]]:
    """The ``k`` greatest of each row, exactly, level by level.

    Every winner lies in one of the ``k`` sets of greatest maximum, whichever way a row is divided
    into sets. These are strided, ``{i, i + n/groups, …}``, so that their maxima vectorise.

    Args:
        scores: (B, n).
        k: How many, at most n.
        groups: The members of a set; where it does not divide n, one level is used.

    Returns:
        The values and their indices, in no order; ties are broken arbitrarily, no index twice, and
        NaN counts as greatest.

    Example:
        >>> values, index = top(torch.tensor([[3.0, 1.0, 2.0, 9.0]]), 2, groups=2)
        >>> sorted(zip(index[0].tolist(), values[0].tolist()))
        [(0, 3.0), (3, 9.0)]
    """
    n = scores.shape[1]
    if n % groups or n // groups <= k:
        return scores.topk(k, dim=-1, sorted=False)
    sets = scores.reshape(-1, groups, n // groups)
    best = sets.amax(1).topk(k, dim=-1, sorted=False).indices
    candidates = sets.gather(2, best[:, None].expand(-1, groups, -1)).flatten(1)
    values, place = top(candidates, k, groups=4)  # 16 k of them, then 4 k
    return values, best.gather(1, place % k) + (place // k) * (n // groups)


def top_magnitude(
    scores: Float[Tensor, "B n"], k: int
) -> tuple[Float[Tensor, "B k"], Int[Tensor, "B k"]]:
    """The ``k`` greatest of each row in absolute value, with their signs.

    Args:
        scores: (B, n).
        k: How many, at most n.

    Example:
        >>> top_magnitude(torch.tensor([[3.0, 1.0, 2.0, -9.0]]), 1)
        (tensor([[-9.]]), tensor([[3]]))
    """
    support = top(scores.abs(), k)[1]
    return scores.gather(1, support), support


def select(
    x: Float[Tensor, "B d"],
    weight: Float[Tensor, "K d"],
    bias: Float[Tensor, " K"],
    centre: Float[Tensor, " d"],
    k: int,
) -> tuple[Float[Tensor, "B k"], Int[Tensor, "B k"]]:
    """The ``k`` greatest pre-activations of each row, and which latents they are.

    .. math:: (x - c) W^\\top + b

    Its backward touches the ``k`` winners alone and is itself differentiable.

    Args:
        x: Activations, (B, d).
        weight: Encoder, (K, d).
        bias: Encoder bias, (K,).
        centre: Subtracted from every row, (d,).
        k: How many, 1 … K.

    Returns:
        The values (B, k) and the support (B, k) int64, in no order. Ties are broken arbitrarily,
        no index is repeated, and a NaN counts as greatest, so that the loss shows it.

    Raises:
        ConfigError: ``k`` outside of 1 … K (``select.k``).

    Example:
        >>> x, eye = torch.tensor([[3.0, 1.0, -9.0]]), torch.eye(3)
        >>> select(x, eye, torch.zeros(3), torch.zeros(3), 1)
        (tensor([[3.]]), tensor([[0]]))

    Source: Gao et al. (2024), Scaling and evaluating sparse autoencoders, arXiv:2406.04093, §2.3.
    """
    check_k(k, len(weight))
    return _select(x, weight, bias, centre, k)


def select_magnitude(
    x: Float[Tensor, "B d"],
    weight: Float[Tensor, "K d"],
    bias: Float[Tensor, " K"],
    centre: Float[Tensor, " d"],
    k: int,
) -> tuple[Float[Tensor, "B k"], Int[Tensor, "B k"]]:
    """The ``k`` pre-activations of each row that are greatest in absolute value, with their signs.

    Everything else is as in :func:`select`.

    Args:
        x: Activations, (B, d).
        weight: Encoder, (K, d).
        bias: Encoder bias, (K,).
        centre: Subtracted from every row, (d,).
        k: How many, 1 … K.

    Raises:
        ConfigError: ``k`` outside of 1 … K (``select.k``).

    Example:
        >>> x, eye = torch.tensor([[3.0, 1.0, -9.0]]), torch.eye(3)
        >>> select_magnitude(x, eye, torch.zeros(3), torch.zeros(3), 1)
        (tensor([[-9.]]), tensor([[2]]))
    """
    check_k(k, len(weight))
    return _select_magnitude(x, weight, bias, centre, k)


def check_k(k: int, size: int) -> None:
    """Raise unless ``k`` of ``size`` latents can be selected."""
    if not (isinstance(k, Integral) and not isinstance(k, bool) and 1 <= k <= size):
        raise ConfigError(
            f"no such number of active latents: got k = {k!r}, expected an integer, 1 … {size}, as "
            "there are so many latents. Lower k or widen the dictionary.",
            code="select.k",
            context={"k": k, "latents": size},
        )


Pick = Callable[[Tensor, int], tuple[Tensor, Tensor]]


def chunk_rows(weight: Tensor) -> int:
    """How many rows at a time have scores of about 16 MB against ``weight`` (K, d)."""
    return max(CHUNK_ROWS, CHUNK_BYTES // max(1, len(weight) * weight.element_size()))


def in_chunks(x: Tensor, weight: Tensor, bias: Tensor, k: int, pick: Pick) -> tuple[Tensor, Tensor]:
    """What ``pick`` picks among the rows of ``x Wᵀ + b``: values (B, k), support (B, k)."""
    with torch.autocast(x.device.type, enabled=False):  # the result has the type of ``x``
        parts = [pick(F.linear(part, weight, bias), k) for part in x.split(chunk_rows(weight))]
    values, support = zip(*parts, strict=True)
    return torch.cat(values), torch.cat(support)


@custom_op("vsae::select", mutates_args=())
def _select(
    x: Tensor, weight: Tensor, bias: Tensor, centre: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    return in_chunks(x - centre, weight, bias, k, top)


@custom_op("vsae::select_magnitude", mutates_args=())
def _select_magnitude(
    x: Tensor, weight: Tensor, bias: Tensor, centre: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    return in_chunks(x - centre, weight, bias, k, top_magnitude)


def fake_selection(x, weight, bias, centre, k):
    """Shapes and types of a selection of ``k``."""
    return x.new_empty(len(x), k), x.new_empty(len(x), k, dtype=torch.int64)


def save_selection(ctx, inputs, output):
    """Keep what the gradient of a selection needs: the first inputs and the support."""
    x, weight, _, centre = inputs[:4]
    ctx.save_for_backward(x, weight, centre, output[1])
    ctx.mark_non_differentiable(output[1])


def selection_gradients(ctx, grad):
    """Gradients of x, weight, bias and centre: those of ``k`` inner products in each row."""
    x, weight, centre, support = ctx.saved_tensors
    to_x, to_weight, to_bias, to_centre = ctx.needs_input_grad[:4]
    grad_bias = None
    if to_bias or to_centre:
        zeros = weight.new_zeros(len(weight))
        grad_bias = zeros.index_add(0, support.reshape(-1), grad.reshape(-1))
    return (
        bag(support, grad, weight) if to_x else None,
        rows(support, grad, x - centre, len(weight)) if to_weight else None,
        grad_bias,
        -(grad_bias @ weight) if to_centre else None,
    )


def _backward(ctx, grad, _):
    return *selection_gradients(ctx, grad), None


for _operator in (_select, _select_magnitude):
    _operator.register_fake(fake_selection)
    _operator.register_autograd(_backward, setup_context=save_selection)
