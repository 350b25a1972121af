"""The same selection from a bfloat16 product: screened, rescored, certified, and so exact.

A product in bfloat16 takes half the time of one in float32, and its errors are bounded. Here it
does not estimate the scores but bounds them from above: ``candidates`` rows of greatest bound are
rescored in full precision, and where the k-th best of those is above every other bound, no other
latent can belong to the k best. Where it is not, twice as many are rescored, and where that is not
enough either, the row is computed in full precision.

With ``x̂, ŵ`` the rounded vectors and ``r, q`` what rounding left of them, Cauchy-Schwarz gives

.. math:: ⟨x, w⟩ - ⟨x̂, ŵ⟩ = ⟨r, ŵ⟩ + ⟨x, q⟩ \\le ‖r‖\\,‖ŵ‖ + ‖x‖\\,‖q‖

and both terms, and the bias, are columns of the product itself. (The norms of the residuals are
those found, not the 2⁻⁸ of the worst case.)
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.library import custom_op

from priors.errors import ConfigError
from vsae.select import (
    check_k,
    chunk_rows,
    fake_selection,
    in_chunks,
    save_selection,
    selection_gradients,
    top,
)
from vsae.slots import dots

UNIT = 2.0**-8  # bfloat16 keeps 8 significant bits: rounding moves a number by at most this share
TINY, HUGE = 2.0**-60, 2.0**100  # beyond them squares underflow and products overflow: no proof
PREPARED_ROWS = 512  # of the weights at a time: they stay in the cache


def screened_select(
    x: Float[Tensor, "B d"],
    weight: Float[Tensor, "K d"],
    bias: Float[Tensor, " K"],
    centre: Float[Tensor, " d"],
    k: int,
    candidates: int,
) -> tuple[Float[Tensor, "B k"], Int[Tensor, "B k"]]:
    """:func:`vsae.select.select`, exact as that is, from one product in bfloat16.

    It pays where bfloat16 products are fast, and where nearly every row is certified, by the
    candidates or by twice as many: random encoders of 768 dimensions need 2k, trained ones up to
    4k, as more of their scores are close to the k-th.

    Args:
        x: Activations, (B, d).
        weight: Encoder, (K, d).
        bias: Encoder bias, (K,).
        centre: Subtracted from every row, (d,).
        k: How many, 1 … K.
        candidates: How many to rescore in each row at first, k … K; about 2k.

    Returns:
        The values (B, k) and the support (B, k) int64, in no order: the k best up to the rounding
        of the type of ``x``. Ties are broken arbitrarily, and a NaN shows in the values.

    Raises:
        ConfigError: ``k`` outside of 1 … K (``select.k``); ``candidates`` outside of k … K
            (``screen.candidates``); a GPU that may add in bfloat16 (``screen.accumulation``).

    Example:
        >>> x, eye = torch.tensor([[3.0, 1.0, -9.0]]), torch.eye(3)
        >>> screened_select(x, eye, torch.zeros(3), torch.zeros(3), 1, candidates=2)
        (tensor([[3.]]), tensor([[0]]))
    """
    check_k(k, len(weight))
    if not k <= candidates <= len(weight):
        raise ConfigError(
            f"no such number of candidates: got {candidates}, expected {k} … {len(weight)}, from k "
            "to the number of latents. Take about 2 k.",
            code="screen.candidates",
            context={"candidates": candidates, "k": k, "latents": len(weight)},
        )
    check_accumulation(x.device)
    return _screened_select(x, weight, bias, centre, k, candidates)


def check_accumulation(device: torch.device) -> None:
    """Raise where a product in bfloat16 may not be summed in float32, which the proof needs."""
    if device.type != "cpu" and torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction:
        raise ConfigError(
            f"no certificate on {device.type}: got products whose partial sums may be rounded to "
            "bfloat16, expected sums in float32. Set torch.backends.cuda.matmul."
            "allow_bf16_reduced_precision_reduction = False.",
            code="screen.accumulation",
            context={"device": str(device)},
        )


def certified(
    x: Float[Tensor, "B d"],
    weight: Float[Tensor, "K d"],
    bias: Float[Tensor, " K"],
    kth: Float[Tensor, " B"],
    bound: Float[Tensor, " B"],
) -> Bool[Tensor, " B"]:
    """Whether a score of ``kth``, as computed, is really above all that ``bound`` bounds.

    Args:
        x: Centred activations, (B, d).
        weight: Encoder, (K, d).
        bias: Encoder bias, (K,).
        kth: The k-th best rescored value of each row, (B,).
        bound: The least bound among its candidates, as the product returned it, (B,).
    """
    dim, greatest = x.shape[1], weight.norm(dim=1).amax()
    length = x.norm(dim=1)
    scale = length * greatest + bias.abs().amax()
    own = _accumulation(dim, torch.finfo(x.dtype).eps) * scale + dim * TINY * (
        1 + length + greatest
    )
    # The product's last act was to round the bound to the nearest bfloat16.
    rounded = bound + bound.abs() * (UNIT * 1.001)
    return (kth - own >= rounded) & (scale < HUGE)  # false for NaN


def _accumulation(dim: int, eps: float) -> float:
    """A bound on the rounding of a sum of ``dim`` products, as a share of its terms' sum."""
    return (dim + 8) * eps  # γ = n u / (1 - n u) with u = eps / 2, twice


def _above(length: Tensor) -> Tensor:
    """Non-negative numbers, rounded to bfloat16 but never below themselves."""
    return (length * (1 + 2 * UNIT)).bfloat16()


def _screened_rows(x: Tensor) -> Tensor:
    """``[x̂, ‖r‖, ‖x‖, 1, 1]`` in bfloat16, (B, d + 4)."""
    out = x.new_ones(len(x), x.shape[1] + 4, dtype=torch.bfloat16)
    _write(out, x, x.norm(dim=1))
    return out


def _write(out: Tensor, exact: Tensor, length: Tensor) -> Tensor:
    """Fill ``out`` with the rounded rows, the norm of what is left, and ``length``."""
    dim = exact.shape[1]
    out[:, :dim] = exact
    residual = (exact - out[:, :dim]).norm(dim=1)
    out[:, dim], out[:, dim + 1] = _above(residual), _above(length)
    return residual


def _screened_weights(weight: Tensor, bias: Tensor) -> Tensor:
    """``[ŵ, ‖ŵ‖, ‖q‖, b]`` in bfloat16, the bias in two parts: (K, d + 4)."""
    dim = weight.shape[1]
    rounding = _accumulation(dim, torch.finfo(torch.float32).eps)
    out = weight.new_empty(len(weight), dim + 4, dtype=torch.bfloat16)
    for part, exact in zip(out.split(PREPARED_ROWS), weight.split(PREPARED_ROWS), strict=True):
        length = exact.norm(dim=1)
        residual = _write(part, exact, length)
        part[:, dim] = _above(length + residual)
        part[:, dim + 1] = _above(residual + rounding * (length + residual))
    out[:, dim + 2] = bias
    rest = bias - out[:, dim + 2]
    out[:, dim + 3] = rest + 2 * UNIT * rest.abs() + 2 * rounding * bias.abs()
    return out


def _candidates(x: Tensor, weight: Tensor, bias: Tensor, candidates: int) -> tuple[Tensor, Tensor]:
    """The latents of greatest bound (B, c), the greatest first, and their bounds (B, c)."""
    table, index, bound = _screened_weights(weight, bias), [], []
    for part in _screened_rows(x).split(chunk_rows(table)):
        bounds, latents = top(F.linear(part, table), candidates)
        bounds, order = bounds.sort(dim=1, descending=True)
        index.append(latents.gather(1, order))
        bound.append(bounds)
    return torch.cat(index), torch.cat(bound).to(x.dtype)


def _rescored(
    x: Tensor, weight: Tensor, bias: Tensor, latents: Tensor, bound: Tensor, k: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The ``k`` best of some latents, in full, and the rows in which others may be better."""
    values, place = top(dots(x, latents, weight) + bias[latents], k)
    doubtful = ~certified(x, weight, bias, values.amin(1), bound)
    return values, latents.gather(1, place), doubtful.nonzero().squeeze(-1)


@custom_op("vsae::screened_select", mutates_args=())
def _screened_select(
    x: Tensor, weight: Tensor, bias: Tensor, centre: Tensor, k: int, candidates: int
) -> tuple[Tensor, Tensor]:
    with torch.autocast(x.device.type, enabled=False):  # the proof is about float32
        x = x - centre
        latents, bounds = _candidates(x, weight, bias, min(2 * candidates, len(weight)))
        few = latents[:, :candidates].contiguous(), bounds[:, candidates - 1]
        values, support, rest = _rescored(x, weight, bias, *few, k)
        # The gap a row needs differs from row to row: most of the rest only need more candidates.
        more = latents[rest], bounds[rest, -1]
        values[rest], support[rest], doubtful = _rescored(x[rest], weight, bias, *more, k)
        rest = rest[doubtful]
        values[rest], support[rest] = in_chunks(x[rest], weight, bias, k, top)
    return values, support


@_screened_select.register_fake
def _(x, weight, bias, centre, k, candidates):
    return fake_selection(x, weight, bias, centre, k)


def _backward(ctx, grad, _):
    return *selection_gradients(ctx, grad), None, None


_screened_select.register_autograd(_backward, setup_context=save_selection)
