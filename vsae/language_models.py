"""Activations of a causal language model loaded with ``transformers`` (extra ``lm``)."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vsae.errors import EmptyDataError, ShapeError


@torch.no_grad()
def hidden_states(
    model: nn.Module,
    batches: Iterable[dict[str, Int[Tensor, "rows length"]]],
    *,
    layer: int | Sequence[int],
) -> Float[Tensor, "tokens d"] | Float[Tensor, "tokens layers d"]:
    """The residual stream after ``layer`` blocks, one row per token that is not padding.

    Args:
        model: Anything that answers ``model(**batch, output_hidden_states=True).hidden_states``, as
            every causal model of ``transformers`` does; on the device of the batches.
        batches: What a tokenizer returns with ``return_tensors="pt"``: ``input_ids``, and
            ``attention_mask`` where there is padding.
        layer: 0 is the embedding, ``l`` the output of block ``l``; not the last block, whose state
            these models return after their final normalisation. Several layers, read in one pass,
            are rows for a crosscoder.

    Returns:
        Float32 rows on the CPU, batch after batch: ``(tokens, d)``, or ``(tokens, layers, d)``.

    Raises:
        ShapeError: ``hidden_states.layer`` if the model has no such layer, or it is the last.
        EmptyDataError: ``data.empty`` if there is no batch.
    """
    rows = [_rows(model, batch, layer) for batch in batches]
    if not rows:
        raise EmptyDataError("no batches: got 0, expected >= 1.", code="data.empty")
    return torch.cat(rows)


def _rows(model: nn.Module, batch: dict[str, Tensor], layer: int | Sequence[int]) -> Tensor:
    states = model(**batch, output_hidden_states=True).hidden_states
    layers = (layer,) if isinstance(layer, int) else tuple(layer)
    for number in layers:
        if not 0 <= number < len(states) - 1:
            raise ShapeError(
                f"layer {number} cannot be read here: expected 0 … {len(states) - 2}. The state of "
                "the last block is returned after the final normalisation; hook that block "
                "instead.",
                code="hidden_states.layer",
            )
    real = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()
    read = [states[number][real].float().cpu() for number in layers]
    return read[0] if isinstance(layer, int) else torch.stack(read, 1)
