"""What a network loses when a residual stream is replaced: cross-entropy and KL, in nats."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from priors.errors import ConfigError
from toys.stories import Split, StoriesData, StoryBatch

Reconstruct = Callable[[Tensor], Tensor]


def token_cross_entropy(
    logits: Float[Tensor, "B T V"], tokens: Int[Tensor, "B T"]
) -> Float[Tensor, "B targets"]:
    r"""The nats :math:`-\log p(t_{i+1} \mid t_{\le i})` of all tokens but the first, in float64."""
    log_p = logits[:, :-1].double().log_softmax(-1)
    return -log_p.gather(-1, tokens[:, 1:, None]).squeeze(-1)


def cross_entropy(
    logits: Float[Tensor, "B T V"], tokens: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"]
) -> Float[Tensor, ""]:
    r"""The mean nats per predicted token, :math:`-\frac1n \sum \log p(t_{i+1} \mid t_{\le i})`.

    Args:
        logits: Of the next token.
        tokens: The text.
        mask: True at tokens, False at padding; the first token of a sequence is not predicted.

    Raises:
        ConfigError: ``losses.empty`` if no token is predicted.

    Example:
        >>> tokens = torch.zeros(1, 3, dtype=torch.long)
        >>> cross_entropy(torch.zeros(1, 3, 512), tokens, tokens == 0).exp().round().item()
        512.0
    """
    if not mask[:, 1:].any():
        raise ConfigError(
            f"no token is predicted: got a mask {tuple(mask.shape)} with none after the first, "
            "expected at least one.",
            code="losses.empty",
            context={"shape": tuple(mask.shape)},
        )
    return token_cross_entropy(logits, tokens)[mask[:, 1:]].mean()


def token_divergence(
    clean: Float[Tensor, "B T V"], logits: Float[Tensor, "B T V"]
) -> Float[Tensor, "B T"]:
    r"""The nats :math:`\mathrm{KL}(p_\mathrm{clean} \| p)` at every position, in float64."""
    log_p, log_q = clean.double().log_softmax(-1), logits.double().log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


@dataclass(frozen=True, kw_only=True)
class ReplacedLosses:
    r"""Cross-entropy and KL to the untouched network, per predicted token, in nats.

    The share of the loss that a reconstruction recovers is
    :math:`(\mathrm{ce}_a - \mathrm{ce}) / (\mathrm{ce}_a - \mathrm{ce}_\mathrm{clean})`, and of the
    KL :math:`1 - \mathrm{kl}/\mathrm{kl}_a`, with ``a`` the zero or the mean ablation.

    Args:
        ce_clean: Of the untouched network.
        ce_replaced: With reconstructed activations.
        ce_zero: With activations set to zero.
        ce_mean: With activations set to their mean over the training split.
        kl_replaced: KL(untouched ‖ replaced).
        kl_zero: KL(untouched ‖ zero).
        kl_mean: KL(untouched ‖ mean).
        tokens: Number of predicted tokens.
    """

    ce_clean: float
    ce_replaced: float
    ce_zero: float
    ce_mean: float
    kl_replaced: float
    kl_zero: float
    kl_mean: float
    tokens: int


def replaced_losses(
    data: StoriesData, layer: int, reconstruct: Reconstruct, split: Split = "heldout"
) -> ReplacedLosses:
    """The losses when the stream after block ``layer`` becomes ``reconstruct`` of itself.

    Every row is replaced or ablated; BOS, which is never a row, keeps its stream. The prediction
    made at BOS counts in all cross-entropies alike, and so cancels in what is recovered. Ablating
    BOS too would give another reference, ``ln(vocabulary)`` exactly for zero. The untouched logits
    of the last layer and split asked for stay in memory (87 MB held out, 760 MB for training).

    Args:
        data: Text and network.
        layer: Which residual stream; 0 is the embedding.
        reconstruct: Maps rows ``(n, d)`` to rows ``(n, d)``, each on its own; needs no gradient.
        split: Which stories.

    Raises:
        ConfigError: ``stories.reconstruct`` if ``reconstruct`` changes the shape of the rows.

    Example:
        >>> shipped = StoriesData.load()
        >>> data = StoriesData.from_texts(shipped.texts[:10], shipped.model, shipped.tokenizer)
        >>> losses = replaced_losses(data, 2, torch.clone)
        >>> losses.ce_replaced == losses.ce_clean, losses.kl_replaced
        (True, 0.0)
    """
    clean, zero, mean = _references(data, layer, split)
    replaced = _losses(data, layer, reconstruct, split)
    return ReplacedLosses(
        ce_clean=clean[0],
        ce_replaced=replaced[0],
        ce_zero=zero[0],
        ce_mean=mean[0],
        kl_replaced=replaced[1],
        kl_zero=zero[1],
        kl_mean=mean[1],
        tokens=len(data.row_tokens(split)),
    )


@lru_cache(maxsize=64)
def _references(data: StoriesData, layer: int, split: Split) -> tuple[tuple[float, float], ...]:
    mean = data.activations(layer, "train").double().mean(0)
    arms = (torch.clone, torch.zeros_like, lambda x: mean.to(x).expand_as(x))
    return tuple(_losses(data, layer, arm, split) for arm in arms)


@lru_cache(maxsize=1)
def _untouched(
    data: StoriesData, layer: int, split: Split
) -> tuple[tuple[StoryBatch, Tensor, Tensor], ...]:
    streams = ((batch, data.model.stream(batch.tokens, layer)) for batch in data.batches(split))
    return tuple((batch, h, data.model.run_from(h, layer)) for batch, h in streams)


@torch.no_grad()
def _losses(
    data: StoriesData, layer: int, reconstruct: Reconstruct, split: Split
) -> tuple[float, float]:
    entropies, divergences = [], []
    for batch, stream, clean in _untouched(data, layer, split):
        logits = data.model.run_from(_put(stream, batch.rows, reconstruct), layer)
        predicted = batch.mask[:, 1:]
        entropies.append(token_cross_entropy(logits, batch.tokens)[predicted])
        divergences.append(token_divergence(clean[:, :-1], logits[:, :-1])[predicted])
    return torch.cat(entropies).mean().item(), torch.cat(divergences).mean().item()


def _put(stream: Tensor, rows: Tensor, reconstruct: Reconstruct) -> Tensor:
    new = reconstruct(stream[rows])
    if new.shape != stream[rows].shape:
        raise ConfigError(
            f"a reconstruction has another shape: got {tuple(new.shape)}, expected "
            f"{tuple(stream[rows].shape)}. Return one row per row.",
            code="stories.reconstruct",
            context={"got": tuple(new.shape), "expected": tuple(stream[rows].shape)},
        )
    replaced = stream.clone()
    replaced[rows] = new.to(stream)
    return replaced
