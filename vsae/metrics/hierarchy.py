"""A hierarchy of latents: the parent of each, -1 for a root; levels, edges and shuffled twins."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from vsae.batches import check_finite
from vsae.errors import ConfigError, DTypeError, EmptyDataError, GraphError, ShapeError


def levels(parents: Tensor) -> Int[Tensor, " K"]:
    """How many ancestors each latent has: 0 for a root.

    Args:
        parents: ``(K,)`` int64, the number of each latent's parent, -1 for a root.

    Raises:
        ShapeError, DTypeError: ``hierarchy.shape``, ``hierarchy.dtype``.
        GraphError: ``hierarchy.out_of_range``; ``hierarchy.cycle`` if a latent is its own ancestor.

    Example:
        >>> levels(torch.tensor([-1, 0, 1, -1])).tolist()
        [0, 1, 2, 0]
    """
    parents = check_parents(parents)
    depth, above = torch.zeros_like(parents), parents
    while bool((above >= 0).any()):
        depth += above >= 0
        above = torch.where(above >= 0, parents[above], -1)
    return depth


def shuffled_parents(parents: Tensor, generator: Generator) -> Int[Tensor, " K"]:
    """The control: on every level, the parents dealt out anew to the level's latents.

    It preserves how many children each latent has, and every latent's level; only *which* children
    are whose changes, uniformly over all dealings (the true one among them).

    Args:
        parents: ``(K,)`` int64, -1 for a root.
        generator: The source of randomness, on the CPU; the global one is never used.

    Raises:
        As :func:`levels`.
    """
    shuffled, depth = parents.detach().cpu().clone(), levels(parents)
    edges = edges_of(shuffled)
    new = dealt(edges, depth[edges[:, 0]], generator)
    shuffled[new[:, 0]] = new[:, 1]
    return shuffled


def dealt(
    edges: Int[Tensor, "E 2"], depth: Int[Tensor, " E"], generator: Generator
) -> Int[Tensor, "E 2"]:
    """The same children with the parents of each depth dealt out anew."""
    new = edges.clone()
    for level in depth.unique():
        members = (depth == level).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator)
        new[members, 1] = edges[members[order], 1]
    return new


def edges_of(parents: Tensor) -> Int[Tensor, "E 2"]:
    """Pairs (child, parent), in order of the children."""
    children = (parents >= 0).nonzero().flatten()
    return torch.stack([children, parents[children]], -1)


def check_parents(parents: Tensor, latents: int | None = None) -> Tensor:
    """The parents on the CPU, or a typed error; ``latents`` is the number there must be."""
    if not isinstance(parents, Tensor) or parents.dtype != torch.int64:
        found = parents.dtype if isinstance(parents, Tensor) else type(parents).__name__
        raise DTypeError(
            f"parents are numbers of latents: got {found}, expected a tensor of torch.int64. Of an "
            "H-SAE they are decoder.tree.parents().",
            code="hierarchy.dtype",
        )
    if parents.dim() != 1 or (latents is not None and len(parents) != latents):
        check_shapes([("parents", parents, (latents,))])
    parents, count = parents.detach().cpu(), len(parents)
    outside = ((parents < -1) | (parents >= count)).nonzero().flatten()
    if len(outside):
        child = int(outside[0])
        raise GraphError(
            f"latent {child} has a parent that does not exist: got {int(parents[child])}, expected "
            f"-1 for a root or 0..{count - 1}. Are your numbers 1-based?",
            code="hierarchy.out_of_range",
            context={"latent": child, "parent": int(parents[child])},
        )
    _check_acyclic(parents)
    return parents


def _check_acyclic(parents: Tensor) -> None:
    above, steps = parents, 1
    while steps < len(parents):  # the ancestor 2^i steps up: past K steps there is none
        above = torch.where(above >= 0, above[above], -1)
        steps *= 2
    inside = (above >= 0).nonzero().flatten()
    if len(inside):
        raise GraphError(
            f"latent {int(inside[0])} has no root above it: its ancestors form a cycle, expected "
            "each chain of parents to end in -1.",
            code="hierarchy.cycle",
            context={"latent": int(inside[0])},
        )


def check_shapes(named: Sequence[tuple[str, Tensor, tuple[int | None, ...]]]) -> None:
    """Raise ``hierarchy.shape`` unless each tensor has the shape beside it (None: any size)."""
    for name, tensor, shape in named:
        fits = tensor.dim() == len(shape)
        if not fits or any(
            n not in (None, size) for n, size in zip(shape, tensor.shape, strict=True)
        ):
            wanted = ", ".join("any" if n is None else str(n) for n in shape)
            raise ShapeError(
                f"{name} of another shape than the rest: got {tuple(tensor.shape)}, expected "
                f"({wanted}). Rows, latents and widths must agree.",
                code="hierarchy.shape",
                context={"name": name, "shape": tuple(tensor.shape)},
            )


def check_rows(name: str, rows: Tensor) -> Tensor:
    """A finite matrix with at least one row, on the CPU, without a gradient."""
    check_shapes([(name, rows, (None, None))])
    if not len(rows):
        raise EmptyDataError(f"{name} have no rows: got 0, expected >= 1.", code="data.empty")
    check_finite(rows)
    return rows.detach().cpu()


def check_setting(good: bool, name: str, value: float | int, expected: str) -> None:
    """Raise ``hierarchy.setting`` unless the setting is good."""
    if not good:
        raise ConfigError(
            f"{name} cannot be meant: got {value}, expected {expected}.",
            code="hierarchy.setting",
            context={name: value},
        )
