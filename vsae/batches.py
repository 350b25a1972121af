"""Rows of a data set in an order that is a pure function of seed and step."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from vsae.errors import EmptyDataError, NonFiniteDataError, ShapeError


class Batches:
    """Batch ``t`` of shuffled data: without replacement in an epoch, the last short batch dropped.

    Nothing is kept between batches, so that training resumes at any step with the same rows.

    Args:
        data: ``(N, d)``, shared by all seeds; or ``(R, N, d)``, a data set per seed.
        size: Rows per batch.
        seeds: One, or one per replica; replica ``r`` sees the order it would see alone.

    Raises:
        EmptyDataError: ``data.empty`` if there are fewer rows than a batch.
        NonFiniteDataError: ``data.nonfinite`` naming the first row and column.
        ShapeError: ``data.rank`` or ``data.replicas``.
    """

    def __init__(self, data: Tensor, size: int, seeds: Sequence[int]) -> None:
        if data.dim() not in (2, 3):
            raise ShapeError(
                f"data must be (rows, d) or (replicas, rows, d): got {tuple(data.shape)}.",
                code="data.rank",
            )
        if data.dim() == 3 and len(data) != len(seeds):
            raise ShapeError(
                f"data for {len(data)} replicas: got {len(seeds)} seeds, expected as many.",
                code="data.replicas",
            )
        if not 0 < size <= data.shape[-2]:
            raise EmptyDataError(
                f"a batch of {size} rows from {data.shape[-2]}: expected 1 <= batch_size <= rows.",
                code="data.empty",
                context={"rows": data.shape[-2], "batch_size": size},
            )
        check_finite(data)
        self.data, self.size, self.seeds = data, size, tuple(seeds)
        self.per_epoch = data.shape[-2] // size
        self._epoch, self._order = -1, torch.empty(0)

    def __call__(self, step: int) -> Tensor:
        """Rows of step ``step``: ``(B, d)``, or ``(R, B, d)`` for several seeds."""
        rows = self.rows(step).to(self.data.device, non_blocking=True)
        if len(self.seeds) == 1:
            return self.data.index_select(-2, rows[0])
        flat = self.data.flatten(0, -2)
        if self.data.dim() == 3:
            rows = rows + torch.arange(len(rows), device=rows.device)[:, None] * self.data.shape[-2]
        return flat.index_select(0, rows.reshape(-1)).view(*rows.shape, -1)

    def rows(self, step: int) -> Tensor:
        """Row numbers of step ``step``, ``(seeds, B)``, on the host, where graphs are."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            orders = [_permutation(self.data.shape[-2], seed, epoch) for seed in self.seeds]
            self._epoch, self._order = epoch, torch.stack(orders)
        return self._order[:, place * self.size : (place + 1) * self.size]


def _permutation(rows: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(rows, generator=stream(seed, 1 + epoch))


def stream(seed: int, number: int, device: torch.device | str = "cpu") -> Generator:
    """The ``number``-th independent random stream of a run with this ``seed``."""
    mixed = (seed * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9) % 2**63
    return torch.Generator(device).manual_seed(mixed)


def check_finite(data: Tensor) -> None:
    """Raise ``NonFiniteDataError`` naming the first NaN or infinity of ``data``, if any."""
    if bool(torch.isfinite(data.sum(dtype=torch.float64))):  # one pass; a sum hides no NaN
        return
    bad = (~torch.isfinite(data)).nonzero()
    if len(bad):
        rows, first = len(bad[:, :-1].unique(dim=0)), bad[0].tolist()
        where = f"row {first[-2]}, column {first[-1]}"
        context = {"row": first[-2], "column": first[-1], "values": len(bad), "rows": rows}
        if len(first) > 2:  # data per replica, say
            where, context = f"{where} of part {first[:-2]}", context | {"part": first[:-2]}
        raise NonFiniteDataError(
            f"{len(bad)} non-finite values in {rows} rows: got {data[tuple(first)].item()} at "
            f"{where}, expected finite activations. Drop those rows.",
            code="data.nonfinite",
            context=context,
        )
