"""The residual streams of several layers at once, for crosscoders."""

from collections.abc import Sequence
from functools import lru_cache
from os import PathLike

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from toys.stories import Split, StoriesData

BLOCKS = (1, 2, 3, 4, 5)
"""The layers of stories260K that a block writes; 0, the embedding, is a table of 512 rows."""


def layer_streams(
    data: StoriesData, split: Split = "train", layers: Sequence[int] = BLOCKS
) -> Float[Tensor, "N n d"]:
    """The residual streams after several blocks at every row, in one pass over the text.

    ``[:, i]`` is ``data.activations(layers[i], split)``, rows in the same order. The embedding is
    left out unless asked for (``layers=(0, *BLOCKS)``): its 512 different rows need no crosscoder.
    The two last used are kept in memory and shared, 474 MB for the training split: do not write
    into them, or use :func:`write_layer_streams`.

    Args:
        data: Text and network.
        split: Which stories.
        layers: Which streams, in the order wanted.

    Raises:
        ConfigError: ``network.layer``, ``stories.split``.

    Example:
        >>> shipped = StoriesData.load()
        >>> data = StoriesData.from_texts(shipped.texts[:10], shipped.model, shipped.tokenizer)
        >>> layer_streams(data, "heldout").shape
        torch.Size([273, 5, 64])
    """
    return _streams(data, split, tuple(layers))


def write_layer_streams(
    data: StoriesData,
    path: str | PathLike,
    split: Split = "train",
    layers: Sequence[int] = BLOCKS,
) -> Float[Tensor, "N n d"]:
    """The same in a ``.npy`` file, some stories at a time, and the file as a tensor.

    Pages are read when they are used; what is written into the tensor does not reach the file. Any
    program reads it, and so does :func:`vsae.read_activations`.

    Args:
        data: Text and network.
        path: Where, ending in ``.npy``.
        split: Which stories.
        layers: Which streams.

    Raises:
        ConfigError: ``network.layer``, ``stories.split``.
    """
    shape = (len(data.row_tokens(split)), len(layers), data.model.sizes.dim)
    kind = np.dtype(str(data.model.embedding.dtype).removeprefix("torch."))
    file = np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)
    _fill(torch.from_numpy(file), data, split, layers)
    file.flush()
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


def source() -> Float[Tensor, "N n d"]:
    """The training rows of all layers, named ``stories260K-layers`` among ``vsae.sources``."""
    return layer_streams(StoriesData.load())


@lru_cache(maxsize=2)
def _streams(data: StoriesData, split: Split, layers: tuple[int, ...]) -> Tensor:
    rows, width = len(data.row_tokens(split)), data.model.sizes.dim
    out = torch.empty(rows, len(layers), width, dtype=data.model.embedding.dtype)
    _fill(out, data, split, layers)
    return out


def _fill(out: Tensor, data: StoriesData, split: Split, layers: Sequence[int]) -> None:
    for layer in layers:
        data.model.check_layer(layer)
    starts, at = {}, 0
    for story in data.stories(split):
        starts[story], at = at, at + len(data.tokens[story]) - 1
    for batch in data.batches(split):
        streams = data.model.residuals(batch.tokens)[list(layers)].movedim(0, 2)
        for story, stream, rows in zip(batch.stories, streams, batch.rows, strict=True):
            found = stream[rows]
            out[starts[story] : starts[story] + len(found)] = found
