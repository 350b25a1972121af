"""The llama2.c checkpoint file: seven integers, then float32 tensors in a fixed order."""

import struct
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from priors.errors import ConfigError


@dataclass(frozen=True)
class TransformerSizes:
    """The seven integers that open a llama2.c file, in the order of the file.

    Args:
        dim: Width of the residual stream ``d``.
        hidden_dim: Width of the feed-forward layer.
        layers: Number of blocks.
        heads: Number of query heads; each has ``dim / heads`` dimensions.
        kv_heads: Number of key and value heads; each serves ``heads / kv_heads`` query heads.
        vocabulary: Number of tokens, negative when the unembedding is not the embedding.
        context: Longest sequence, in tokens.

    Raises:
        ConfigError: ``network.sizes`` if a size is below 1 or does not divide as it must.
    """

    dim: int
    hidden_dim: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    context: int

    def __post_init__(self) -> None:
        sizes = {f.name: abs(getattr(self, f.name)) for f in fields(self)}
        sizes |= {f.name: getattr(self, f.name) for f in fields(self) if f.name != "vocabulary"}
        if min(sizes.values()) < 1 or self.heads % self.kv_heads or self.dim % (2 * self.heads):
            raise ConfigError(
                f"impossible transformer sizes: got {sizes}, expected all >= 1, heads a multiple "
                "of kv_heads and dim of 2 * heads. Check that the file is a llama2.c checkpoint.",
                code="network.sizes",
                context=sizes,
            )

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @property
    def tokens(self) -> int:
        return abs(self.vocabulary)


def read_checkpoint(raw: bytes) -> tuple[TransformerSizes, dict[str, Tensor]]:
    """The sizes and named weights of a llama2.c checkpoint (legacy float32 format).

    Args:
        raw: The whole file.

    Returns:
        The sizes, and a state dict for :class:`toys.network.StoriesTransformer`.

    Raises:
        ConfigError: ``network.file`` if the length is wrong, ``network.sizes`` if the header is.

    Source:
        ``export.py`` (legacy export) of github.com/karpathy/llama2.c.
    """
    if len(raw) < 28:
        raise _wrong_file(len(raw), 28)
    sizes = TransformerSizes(*struct.unpack("<7i", raw[:28]))
    return sizes, _read_weights(raw, sizes)


def _wrong_file(got: int, expected: int) -> ConfigError:
    return ConfigError(
        f"not a llama2.c checkpoint: got {got} bytes, expected {expected}. Download it again.",
        code="network.file",
        context={"got": got, "expected": expected},
    )


def _layout(sizes: TransformerSizes) -> list[tuple[str, tuple[int, ...]]]:
    d, h, n = sizes.dim, sizes.hidden_dim, sizes.layers
    kv, rotary = sizes.kv_heads * sizes.head_dim, (sizes.context, sizes.head_dim // 2)
    layout = [("embedding", (sizes.tokens, d)), ("attention_norm.weight", (n, d))]
    layout += [("attention.wq", (n, d, d)), ("attention.wk", (n, kv, d))]
    layout += [("attention.wv", (n, kv, d)), ("attention.wo", (n, d, d))]
    layout += [("feed_forward_norm.weight", (n, d)), ("feed_forward.w1", (n, h, d))]
    layout += [("feed_forward.w2", (n, d, h)), ("feed_forward.w3", (n, h, d))]
    layout += [("norm.weight", (d,)), ("cos", rotary), ("sin", rotary)]
    return layout + [("unembedding", (sizes.tokens, d))] * (sizes.vocabulary < 0)


def _read_weights(raw: bytes, sizes: TransformerSizes) -> dict[str, Tensor]:
    layout = _layout(sizes)
    expected = 28 + 4 * sum(int(np.prod(shape)) for _, shape in layout)
    if len(raw) != expected:
        raise _wrong_file(len(raw), expected)
    values, weights, at = np.frombuffer(raw, "<f4", offset=28).astype(np.float32), {}, 0
    for name, shape in layout:
        size = int(np.prod(shape))
        tensor = torch.from_numpy(values[at : at + size].reshape(shape))
        at += size
        if name in ("cos", "sin"):  # The file's rotations are float32 roundings of the formula.
            continue
        if "." in name and name != "norm.weight":
            weights |= {f"blocks.{i}.{name}": layer for i, layer in enumerate(tensor)}
        else:
            weights[name] = tensor
    weights.setdefault("unembedding", weights["embedding"])
    return weights
