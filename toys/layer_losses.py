"""What a network loses when several residual streams are replaced, one at a time and together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from priors.errors import ConfigError
from toys.layer_streams import BLOCKS, layer_streams
from toys.losses import ReplacedLosses, token_cross_entropy, token_divergence
from toys.stories import Split, StoriesData

Reconstruct = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class LayeredLosses:
    """Losses of a network whose streams are what a crosscoder makes of them.

    Args:
        layers: Which streams.
        each: For every layer, with that stream alone replaced.
        together: With all of them replaced in one run.
    """

    layers: tuple[int, ...]
    each: tuple[ReplacedLosses, ...]
    together: ReplacedLosses


def layered_losses(
    data: StoriesData,
    reconstruct: Reconstruct,
    split: Split = "heldout",
    layers: Sequence[int] = BLOCKS,
) -> LayeredLosses:
    r"""The losses with streams overwritten by a reconstruction made from the *clean* streams.

    A crosscoder reads the streams of all layers of the untouched network, at each row by itself,
    and gives :math:`\hat h_l` for all. Then the network runs anew:

    - ``each``: the stream after block l becomes :math:`\hat h_l` at every row, and the blocks after
      l run on it as they are;
    - ``together``: the stream after *every* block of ``layers`` becomes :math:`\hat h_l`.

    Together, whatever an earlier layer's error does to the streams between is overwritten in its
    turn, so that only the last of ``layers`` counts: ``together`` equals ``each[-1]``, exactly, and
    says nothing of the others. (The run is made all the same; a test holds the two together.) What
    the earlier reconstructions are worth is in ``each``.

    Every row is replaced or ablated, BOS keeps its stream, and ablations of zero and of the mean
    over the training split are of the same streams as the replacement.

    Args:
        data: Text and network.
        reconstruct: Maps clean rows ``(m, n, d)`` to ``(m, n, d)``, each on its own.
        split: Which stories.
        layers: Which streams, from the lowest up.

    Raises:
        ConfigError: ``stories.reconstruct`` if ``reconstruct`` changes the shape of the rows,
            ``network.layer`` for layers that do not exist or do not ascend.

    Example:
        >>> shipped = StoriesData.load()
        >>> data = StoriesData.from_texts(shipped.texts[:10], shipped.model, shipped.tokenizer)
        >>> found = layered_losses(data, lambda rows: 0.9 * rows, layers=(2, 4))
        >>> found.together == found.each[-1]
        True
    """
    layers = tuple(layers)
    clean, zero, mean = _references(data, split, layers)
    replaced = replaced_runs(data, reconstruct, split, layers)
    tokens = len(data.row_tokens(split))
    losses = [
        ReplacedLosses(
            ce_clean=a[0],
            ce_replaced=b[0],
            ce_zero=c[0],
            ce_mean=d[0],
            kl_replaced=b[1],
            kl_zero=c[1],
            kl_mean=d[1],
            tokens=tokens,
        )
        for a, b, c, d in zip(clean, replaced, zero, mean, strict=True)
    ]
    return LayeredLosses(layers=layers, each=tuple(losses[:-1]), together=losses[-1])


_Losses = list[tuple[float, float]]


@lru_cache(maxsize=8)
def _references(data: StoriesData, split: Split, layers: tuple[int, ...]) -> tuple[_Losses, ...]:
    mean = layer_streams(data, "train", layers).mean(0, dtype=torch.float64)
    arms = (torch.clone, torch.zeros_like, lambda rows: mean.to(rows).expand_as(rows))
    return tuple(replaced_runs(data, arm, split, layers) for arm in arms)


@torch.no_grad()
def replaced_runs(
    data: StoriesData,
    reconstruct: Reconstruct,
    split: Split = "heldout",
    layers: Sequence[int] = BLOCKS,
) -> list[tuple[float, float]]:
    """Cross-entropy and KL to the untouched network with each stream replaced, then with all.

    :func:`layered_losses` without what it is to be compared with; see there.

    Raises:
        ConfigError: As :func:`layered_losses`.
    """
    layers = tuple(layers)
    if not layers or list(layers) != sorted(set(layers)):
        raise ConfigError(
            f"layers to replace: got {layers}, expected some, each once, from the lowest up.",
            code="network.layer",
            context={"layers": layers},
        )
    found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in (*layers, None)]
    for batch in data.batches(split):
        streams = data.model.residuals(batch.tokens)
        clean = data.model.run_from(streams[-1], data.model.num_layers)
        new = _put(streams[list(layers)], batch.rows, reconstruct)
        logits = [data.model.run_from(h, at) for h, at in zip(new, layers, strict=True)]
        logits.append(_together(data, streams[0], new, batch.rows, layers))
        predicted = batch.mask[:, 1:]
        for into, run in zip(found, logits, strict=True):
            entropy = token_cross_entropy(run, batch.tokens)[predicted]
            into.append((entropy, token_divergence(clean[:, :-1], run[:, :-1])[predicted]))
    pairs = [zip(*arm, strict=True) for arm in found]
    return [tuple(torch.cat(part).mean().item() for part in pair) for pair in pairs]


def _together(
    data: StoriesData, stream: Tensor, new: Tensor, rows: Bool[Tensor, "B T"], layers: Sequence[int]
) -> Float[Tensor, "B T V"]:
    """The logits of a run in which each stream is overwritten at the rows as it is reached."""
    at = 0
    for layer, value in zip(layers, new, strict=True):
        stream = torch.where(rows[..., None], value, data.model.advance(stream, at, layer))
        at = layer
    return data.model.run_from(stream, at)


def _put(
    streams: Float[Tensor, "n B T d"], rows: Bool[Tensor, "B T"], reconstruct: Reconstruct
) -> Float[Tensor, "n B T d"]:
    """The streams with all their rows reconstructed."""
    clean = streams[:, rows].movedim(0, 1)
    new = reconstruct(clean)
    if new.shape != clean.shape:
        raise ConfigError(
            f"a reconstruction has another shape: got {tuple(new.shape)}, expected "
            f"{tuple(clean.shape)}. Return one row of all layers per row.",
            code="stories.reconstruct",
            context={"got": tuple(new.shape), "expected": tuple(clean.shape)},
        )
    replaced = streams.clone()
    replaced[:, rows] = new.movedim(1, 0).to(streams)
    return replaced
