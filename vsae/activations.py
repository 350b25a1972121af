"""Activations from a file or a named source, checked at the door."""

from importlib.metadata import entry_points
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from vsae.batches import check_finite
from vsae.errors import (
    DataError,
    DTypeError,
    EmptyDataError,
    NonFiniteDataError,
    ShapeError,
    UnsafeFileError,
)


def read_activations(name: str) -> Float[Tensor, "rows d"] | Float[Tensor, "rows layers d"]:
    """Rows of activations, as float32; of several layers, for a crosscoder, where the file is so.

    Args:
        name: A ``.npy`` file, a ``.safetensors`` file of one tensor, or the name of a source
            registered under the entry point group ``vsae.sources`` (``stories260K``).

    Raises:
        DataError: ``data.missing``, ``data.unreadable``.
        UnsafeFileError: ``data.unsafe`` for formats that can run code when read.
        ShapeError: ``data.rank`` unless ``(rows, d)`` or ``(rows, layers, d)``;
            ``EmptyDataError``, ``DTypeError``, ``NonFiniteDataError`` as they say.
    """
    path = Path(name)
    sources = {point.name: point for point in entry_points(group="vsae.sources")}
    if name in sources:
        data = sources[name].load()()
    elif path.suffix == ".npy":
        data = _read(path, lambda: torch.from_numpy(np.load(path, allow_pickle=False)))
    elif path.suffix == ".safetensors":
        data = _read(path, lambda: _only(safetensors.torch.load_file(path), path))
    else:
        raise UnsafeFileError(
            f"{name!r} is no activation file: expected .npy, .safetensors or one of "
            f"{sorted(sources)}. Convert pickled formats (.pt, .pkl) where you trust them.",
            code="data.unsafe",
        )
    return _checked(data, name)


def read_array(path: Path) -> np.ndarray:
    """A ``.npy`` file; ``DataError`` if it is missing or no plain array."""
    array = _read(path, lambda: np.load(path, allow_pickle=False))
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise DataError(f"{path} holds no plain array of numbers.", code="data.unreadable")
    return array


def _read(path: Path, reader):
    if not path.is_file():
        raise DataError(f"{path} does not exist.", code="data.missing")
    try:
        return reader()
    except (ValueError, TypeError, OSError, EOFError, BadZipFile, SafetensorError) as error:
        raise DataError(f"{path} cannot be read: {error}.", code="data.unreadable") from error


def _only(tensors: dict[str, Tensor], path: Path) -> Tensor:
    if len(tensors) != 1:
        raise DataError(
            f"{path} holds {len(tensors)} tensors {sorted(tensors)}: expected one.",
            code="data.unreadable",
        )
    return next(iter(tensors.values()))


def _checked(data: Tensor, name: str) -> Tensor:
    if not data.is_floating_point():
        raise DTypeError(f"{name} holds {data.dtype}: expected floats.", code="data.dtype")
    if data.dim() not in (2, 3):
        raise ShapeError(
            f"{name} has shape {tuple(data.shape)}: expected (rows, d) or (rows, layers, d).",
            code="data.rank",
        )
    if not len(data):
        raise EmptyDataError(f"{name} has 0 rows.", code="data.empty")
    data = data.float()
    if data.dim() == 2:
        check_finite(data)
    else:
        _check_layers(data)
    return data


def _check_layers(data: Float[Tensor, "rows layers d"]) -> None:
    for layer, rows in enumerate(data.unbind(1)):
        try:
            check_finite(rows)
        except NonFiniteDataError as error:
            raise NonFiniteDataError(
                f"layer {layer}: {error}",
                code="data.nonfinite",
                context=error.context | {"layer": layer},
            ) from None
