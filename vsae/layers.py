"""Several layers as one row: widths, which blocks of a matrix are used, and columns per layer."""

from collections.abc import Iterable, Sequence
from numbers import Integral

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from priors.errors import ConfigError


def check_layers(layers: Sequence[int]) -> tuple[int, ...]:
    """Widths of at least two layers; ``ConfigError`` (``layers.widths``) for anything else.

    Example:
        >>> check_layers([64, 64])
        (64, 64)
    """
    found = _listed(layers)
    if len(found) < 2 or not all(_whole(d) and d > 0 for d in found):
        raise ConfigError(
            f"no layers to cross: got widths {found or layers}, expected two or more positive "
            "integers. One layer is a SparseAutoencoder.",
            code="layers.widths",
            context={"layers": found},
        )
    return tuple(int(d) for d in found)


def check_chosen(name: str, chosen: Sequence[int] | None, layers: tuple[int, ...]) -> tuple:
    """Some of the layers, by number, in order; all of them if ``None``.

    Raises:
        ConfigError: ``layers.chosen`` for none, for one that does not exist, or out of order.

    Example:
        >>> check_chosen("targets", None, (4, 4))
        (0, 1)
    """
    found = tuple(range(len(layers))) if chosen is None else _listed(chosen)
    known = {i for i in found if _whole(i) and 0 <= i < len(layers)}
    if not found or list(found) != sorted(known):
        raise ConfigError(
            f"no such {name}: got {found or chosen}, expected a tuple of increasing numbers from "
            f"0 to {len(layers) - 1}, of layers.",
            code="layers.chosen",
            context={name: found, "layers": len(layers)},
        )
    return tuple(int(i) for i in found)


def check_decoder(decoder: nn.Module, targets: tuple[int, ...], layers: tuple[int, ...]) -> None:
    """Raise unless a decoder writes the targets: those very layers, if it knows of any.

    Raises:
        ConfigError: ``layers.decoder``.
    """
    expected, own = tuple(layers[i] for i in targets), getattr(decoder, "layers", None)
    if decoder.d_model != sum(expected) or (isinstance(own, tuple) and own != expected):
        got = own if isinstance(own, tuple) else decoder.d_model
        raise ConfigError(
            f"the decoder does not write the targets: got width {got}, expected {expected}, of "
            f"layers {targets} of {layers}.",
            code="layers.decoder",
            context={"got": got, "expected": expected},
        )


def check_blocks(
    name: str, blocks: Bool[Tensor, "..."] | None, latents: int, layers: tuple[int, ...]
) -> Tensor | None:
    """Which latent has a part in which layer, every latent in one at least; or ``None``, for all.

    Raises:
        ConfigError: ``layers.blocks``.
    """
    if blocks is None:
        return None
    shape = (latents, len(layers))
    kind = blocks.dtype if isinstance(blocks, Tensor) else type(blocks).__name__
    if kind != torch.bool:  # weights would scale what they are to keep
        raise ConfigError(
            f"{name} says yes or no: got {kind}, expected a tensor of torch.bool, {shape}.",
            code="layers.blocks",
            context={"got": str(kind), "expected": shape},
        )
    if tuple(blocks.shape) != shape or not bool(blocks.any(-1).all()):
        raise ConfigError(
            f"{name} says for every latent which layers it has a part in: got shape "
            f"{tuple(blocks.shape)}, expected {shape} with a layer for each latent.",
            code="layers.blocks",
            context={"got": tuple(blocks.shape), "expected": shape},
        )
    return blocks.clone()


def per_column(values: Tensor, layers: tuple[int, ...]) -> Tensor:
    """``(…, layers)`` repeated to ``(…, Σd)``, each as often as its layer is wide.

    Example:
        >>> per_column(torch.tensor([1, 2]), (3, 1)).tolist()
        [1, 1, 1, 2]
    """
    parts = zip(values.split(1, -1), layers, strict=True)  # no tensor of widths: a copy each time
    return torch.cat([part.expand(*part.shape[:-1], d) for part, d in parts], -1)


def take(
    rows: Float[Tensor, "*rows d"], chosen: Sequence[int], layers: tuple[int, ...]
) -> Float[Tensor, "*rows e"]:
    """The chosen layers of concatenations, one after another; all of them are the rows themselves.

    Example:
        >>> take(torch.tensor([[1.0, 2.0, 3.0]]), (1,), (2, 1)).tolist()
        [[3.0]]
    """
    if len(chosen) == len(layers):
        return rows
    parts = rows.split(layers, -1)
    return parts[chosen[0]] if len(chosen) == 1 else torch.cat([parts[i] for i in chosen], -1)


def columns(chosen: Sequence[int], layers: tuple[int, ...]) -> list[int]:
    """Which columns of a concatenation the chosen layers are.

    Example:
        >>> columns((1,), (3, 2))
        [3, 4]
    """
    starts = [sum(layers[:i]) for i in range(len(layers))]
    return [starts[i] + j for i in chosen for j in range(layers[i])]


def _listed(values: object) -> tuple:
    """Values as a tuple; empty for what holds none, one number say."""
    return tuple(values) if isinstance(values, Iterable) else ()


def _whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
