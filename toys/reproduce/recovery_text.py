"""Rows of a real network, and what reconstructions of them are worth to it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from jaxtyping import Float
from torch import Tensor

from toys.losses import replaced_losses
from toys.stories import StoriesData
from vsae import metrics
from vsae.normalizers import AffineNormalizer


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Which rows.

    Args:
        layer: The residual stream after this block of stories260K; 0 is the embedding.
        stories: Stories read, one in ten of them held out.
    """

    layer: int
    stories: int


class Text:
    """Training and held-out rows of one layer.

    Args:
        reading: Which.
    """

    def __init__(self, reading: Reading) -> None:
        self.layer, self.data = reading.layer, _read(reading.stories)
        self.train, self.test = (
            self.data.activations(self.layer, split) for split in ("train", "heldout")
        )
        self.normalizer = AffineNormalizer.fit(self.train)

    def worth(self, restored: Float[Tensor, "rows d"]) -> dict[str, float]:
        """Explained variance, and the share of the network's loss that is recovered.

        The loss is that of the mean of the rows, nothing, to that of the rows themselves, all.
        """
        losses = replaced_losses(self.data, self.layer, Replay(restored, self._order()))
        clean, replaced, mean = losses.ce_clean, losses.ce_replaced, losses.ce_mean
        return {
            "ev": float(metrics.explained_variance(self.test, restored)),
            "ce_recovered": metrics.loss_recovered(clean, replaced, mean),
        }

    def _order(self) -> list[int]:
        """Held-out rows in the order in which the network reads them, batch by batch."""
        where = self.data.rows("heldout")[:, 0]
        first = {int(story): at for at, story in reversed(list(enumerate(where.tolist())))}
        lengths = where.bincount()
        order: list[int] = []
        for batch in self.data.batches("heldout"):
            for story in batch.stories:
                order += range(first[story], first[story] + int(lengths[story]))
        return order


class Replay:
    """Rows restored beforehand, handed out as the network asks for them.

    Args:
        restored: Of all held-out rows.
        order: In which they are asked for.
    """

    def __init__(self, restored: Tensor, order: list[int]) -> None:
        self.left: Iterator[int] = iter(order)
        self.restored = restored

    def __call__(self, rows: Tensor) -> Tensor:
        return self.restored[[next(self.left) for _ in rows]]


@lru_cache(maxsize=1)
def _read(stories: int) -> StoriesData:
    everything = StoriesData.load()
    texts = everything.texts[:stories]
    return StoriesData.from_texts(texts, everything.model, everything.tokenizer)


@lru_cache(maxsize=2)
def text(reading: Reading) -> Text:
    """A pure function of its argument; the last two are kept."""
    return Text(reading)
