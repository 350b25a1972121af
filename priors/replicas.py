"""Many small modules as one: parameters stacked along a leading ``(replicas, rows)`` axis pair."""

import copy
from collections.abc import Sequence
from functools import singledispatch

import torch
from torch import Tensor, nn

from priors.errors import ConfigError


def rows_times(rows: Tensor, matrix: Tensor) -> Tensor:
    r"""``rows @ matrix`` for rows ``(*batch, K)`` and one matrix, or one matrix per replica.

    A matrix ``(K, J)`` serves every row. A stacked one ``(R, 1, K, J)`` has batch shape ``(R, 1)``
    as a distribution would: replica ``r`` serves the rows ``rows[..., r, :, :]``. Written as a
    batched product, not as ``R · B`` vector products.

    Example:
        >>> rows_times(torch.ones(5, 3), torch.ones(3, 2)).shape
        torch.Size([5, 2])
        >>> rows_times(torch.ones(4, 5, 3), torch.ones(4, 1, 3, 2)).shape
        torch.Size([4, 5, 2])
    """
    if matrix.dim() == 2:
        return rows @ matrix
    if matrix.shape[-3] == 1 and rows.dim() >= 2:
        return rows @ matrix.squeeze(-3)
    return (rows.unsqueeze(-2) @ matrix).squeeze(-2)


def rows_affine(rows: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    """``rows_times(rows, matrix) + bias`` in one pass where there is one; the bias may be missing.

    Example:
        >>> rows_affine(torch.ones(5, 3), torch.ones(3, 2), torch.ones(2)).sum().item()
        40.0
    """
    if bias is None:
        return rows_times(rows, matrix)
    if matrix.dim() == 2 and rows.dim() == 2:
        return torch.addmm(bias, rows, matrix)
    if matrix.dim() == 4 and matrix.shape[1] == 1 and rows.dim() == 3 and len(rows) == len(matrix):
        return torch.baddbmm(bias, rows, matrix.squeeze(1))
    return rows_times(rows, matrix) + bias


def stack(modules: Sequence[nn.Module]) -> nn.Module:
    r"""One module that is ``R`` modules: every parameter ``p`` becomes ``(R, 1, *p.shape)``.

    The leading pair is (replica, row), the batch shape of a model run under the plates ``replicas``
    (dim -2) and ``rows`` (dim -1). Elementwise code then needs no change, and products go through
    :func:`rows_times`. Replica ``r`` computes exactly what ``modules[r]`` computes alone.
    A class whose state is not merely tensors registers its own rule with ``stack_like.register``.

    Args:
        modules: Modules of one class and one shape, differing in their tensors only.

    Raises:
        ConfigError: ``replicas.empty`` if there are none, ``replicas.mismatch`` if their classes,
            shapes or settings differ.

    Example:
        >>> from torch import nn
        >>> stack([nn.LayerNorm(3), nn.LayerNorm(3)]).weight.shape
        torch.Size([2, 1, 3])
    """
    if not modules:
        raise ConfigError("nothing to stack: got 0 modules, expected >= 1.", code="replicas.empty")
    new = _stack(tuple(modules), {})
    new.__dict__["_num_replicas"] = len(modules)
    return new


def num_replicas(module: nn.Module) -> int:
    """How many modules a stack is; 0 for a module that is not one.

    Example:
        >>> from torch import nn
        >>> num_replicas(stack([nn.LayerNorm(3)])), num_replicas(nn.LayerNorm(3))
        (1, 0)
    """
    return module.__dict__.get("_num_replicas", 0)


def _stack(modules: tuple[nn.Module, ...], done: dict) -> nn.Module:
    key = tuple(id(m) for m in modules)
    if key not in done:
        if len(kinds := {type(m).__name__ for m in modules}) > 1:
            raise ConfigError(
                f"cannot stack modules of several classes: got {sorted(kinds)}, expected one.",
                code="replicas.mismatch",
            )
        done[key] = stack_like(modules[0], modules, done)
    return done[key]


@singledispatch
def stack_like(first: nn.Module, modules: tuple[nn.Module, ...], done: dict) -> nn.Module:
    """How modules of ``type(first)`` are stacked; ``done`` keeps shared tensors shared."""
    _check_settings(modules)
    new = copy.copy(first)
    new.__dict__ = dict(first.__dict__)
    for kind in ("_parameters", "_buffers"):
        new.__dict__[kind] = {
            name: _stack_tensors([getattr(m, kind)[name] for m in modules], name, done)
            for name in getattr(first, kind)
        }
    new.__dict__["_modules"] = {
        name: None if child is None else _stack(tuple(m._modules[name] for m in modules), done)
        for name, child in first._modules.items()
    }
    return new


def _stack_tensors(tensors: list[Tensor | None], name: str, done: dict) -> Tensor | None:
    if tensors[0] is None:
        return None
    key = tuple(id(t) for t in tensors)
    if key not in done:
        if len(shapes := {tuple(t.shape) for t in tensors}) > 1:
            raise ConfigError(
                f"cannot stack {name}: got shapes {sorted(shapes)}, expected one.",
                code="replicas.mismatch",
                context={"name": name, "shapes": sorted(shapes)},
            )
        stacked = torch.stack([t.detach() for t in tensors]).unsqueeze(1)
        if isinstance(tensors[0], nn.Parameter):
            stacked = nn.Parameter(stacked, requires_grad=tensors[0].requires_grad)
        done[key] = stacked
    return done[key]


def _check_settings(modules: tuple[nn.Module, ...]) -> None:
    plain = (bool, int, float, str, tuple, type(None))
    for name, value in vars(modules[0]).items():
        if name.startswith("_") or not isinstance(value, plain):
            continue
        if len(values := {repr(vars(m)[name]) for m in modules}) > 1:
            raise ConfigError(
                f"cannot stack modules with different {name}: got {sorted(values)}, expected one.",
                code="replicas.mismatch",
                context={"name": name, "values": sorted(values)},
            )


def unstack(module: nn.Module) -> list[nn.Module]:
    """The ``R`` modules of a stack, with tensors of their own: :func:`stack`'s inverse.

    Raises:
        ConfigError: ``replicas.empty`` if ``module`` is not a stack.

    Example:
        >>> from torch import nn
        >>> [m.weight.shape for m in unstack(stack([nn.LayerNorm(3), nn.LayerNorm(3)]))]
        [torch.Size([3]), torch.Size([3])]
    """
    if not num_replicas(module):
        raise ConfigError(
            f"{type(module).__name__} is not a stack: expected what stack(…) returned.",
            code="replicas.empty",
        )
    return [_replica(module, r, {}) for r in range(num_replicas(module))]


def _replica(module: nn.Module, r: int, done: dict) -> nn.Module:
    if id(module) not in done:
        done[id(module)] = replica_like(module, r, done)
    return done[id(module)]


@singledispatch
def replica_like(module: nn.Module, r: int, done: dict) -> nn.Module:
    """How replica ``r`` is taken out of a stacked ``module``; ``done`` keeps sharing."""
    new = copy.copy(module)
    new.__dict__ = {k: v for k, v in module.__dict__.items() if k != "_num_replicas"}
    for kind in ("_parameters", "_buffers"):
        new.__dict__[kind] = {
            name: _replica_tensor(tensor, r, done) for name, tensor in getattr(module, kind).items()
        }
    new.__dict__["_modules"] = {
        name: None if child is None else _replica(child, r, done)
        for name, child in module._modules.items()
    }
    return new


def _replica_tensor(tensor: Tensor | None, r: int, done: dict) -> Tensor | None:
    if tensor is None:
        return None
    if id(tensor) not in done:
        own = tensor.detach()[r, 0].clone()
        is_parameter = isinstance(tensor, nn.Parameter)
        done[id(tensor)] = (
            nn.Parameter(own, requires_grad=tensor.requires_grad) if is_parameter else own
        )
    return done[id(tensor)]
