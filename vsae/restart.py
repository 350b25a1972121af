"""What a dead latent starts again as: an atom in what it writes, a row in what it reads."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vsae.autoencoder import Autoencoder
from vsae.errors import DataError
from vsae.layered_autoencoder import LayeredAutoencoder
from vsae.layers import columns, per_column


@dataclass(frozen=True, eq=False)
class Restart:
    """Directions of length 1, or 0 where a latent finds nothing to start from.

    Attributes:
        atoms: ``(dead, e)``, the residual in the layers that each latent writes.
        rows: ``(dead, d)``, the same in layers that it reads, and activations in those that it
            reads without writing them.
    """

    atoms: Float[Tensor, "dead e"]
    rows: Float[Tensor, "dead d"]

    @classmethod
    @torch.no_grad()
    def at(
        cls,
        pair: Autoencoder,
        encoder: nn.Module,
        dead: Int[Tensor, " dead"],
        x: Float[Tensor, "dead d"],
        residual: Float[Tensor, "dead e"],
    ) -> "Restart":
        """One row of raw activations and its residual, in the model's units, per dead latent."""
        if not isinstance(pair, LayeredAutoencoder):
            direction = nn.functional.normalize(residual, dim=-1)
            return cls(direction, direction)
        chosen: Any = pair.model.targets
        targets, place = tuple(pair.layers[i] for i in chosen), target_columns(pair)
        writes = _columns_of(getattr(pair.model.decoder, "writes", None), dead, targets, residual)
        reads = _columns_of(getattr(encoder, "reads", None), dead, pair.layers, x)
        rows = pair.normalizer(x).clone()
        rows[:, place] = torch.where(writes, residual, rows[:, place])
        found = torch.where(writes, residual, 0.0), torch.where(reads, rows, 0.0)
        return cls(*(nn.functional.normalize(each, dim=-1) for each in found))


def target_columns(pair: Autoencoder) -> list[int]:
    """Which columns of a row the pair restores: of a flat pair all.

    Example:
        >>> from vsae import topk_crosscoder
        >>> target_columns(topk_crosscoder((2, 2), 8, k=2))
        [0, 1, 2, 3]
    """
    if isinstance(pair, LayeredAutoencoder):
        return columns(pair.model.targets, pair.layers)
    return list(range(pair.d_model))


def check_restart(start: Restart, rows: Int[Tensor, " dead"]) -> None:
    """Raise ``DataError`` (``resample.rows``) for a latent with nothing to write or to read."""
    for of, directions in (("residual in a layer", start.atoms), ("value in a layer", start.rows)):
        nothing = (~directions.any(-1)).nonzero().flatten().tolist()
        if nothing:
            raise DataError(
                f"a row without a {of} that its latent has a part in: got row "
                f"{int(rows[nothing[0]])} for the dead latent number {nothing[0]}, expected one "
                "that is not zero there. Leave those rows out.",
                code="resample.rows",
                context={"row": int(rows[nothing[0]]), "dead": len(rows)},
            )


def _columns_of(
    blocks: Tensor | None, dead: Tensor, layers: tuple[int, ...], like: Tensor
) -> Tensor:
    """Which columns each dead latent has a part in; all of them without blocks."""
    if blocks is None:
        return torch.ones_like(like, dtype=torch.bool)
    return per_column(blocks[dead], layers)
