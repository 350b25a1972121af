"""Real text and a real network: the residual stream of a story-telling model over its stories."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.resources import files
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from priors.errors import ConfigError
from toys.network import StoriesTransformer
from toys.tokenizer import Tokenizer

Split = Literal["train", "heldout"]


@dataclass(frozen=True, eq=False)
class StoryBatch:
    """Stories of similar length, padded on the right.

    Args:
        stories: Which stories, by index.
        tokens: Token ids, 0 where padded.
        mask: True at tokens, False at padding.
    """

    stories: tuple[int, ...]
    tokens: Int[Tensor, "B T"]
    mask: Bool[Tensor, "B T"]

    @property
    def rows(self) -> Bool[Tensor, "B T"]:
        """The positions that are rows of the data: every token but BOS."""
        rows = self.mask.clone()
        rows[:, 0] = False
        return rows


@dataclass(frozen=True, eq=False)
class StoriesData:
    """Stories, the model that reads them, and the activations of any layer.

    Each story is one sequence: BOS, its tokens, cut at the model's context. A *row* is one token of
    one story, in reading order. BOS is never a row: its stream is one and the same vector in
    every story, of outlying norm (10.4 after block 2, where 99.9 % of the rows are below 8.4).
    Every tenth story is held out from training data.

    The 1000 stories that ship are the first of the language model's own training set: "held out"
    is said of what is trained on the activations, not of the language model. Their paragraphs are
    separated by two newlines, the model was trained with one; the second costs it 7.9 nats and is
    1 % of the tokens.

    Args:
        model: The network that is read.
        tokenizer: Its tokenizer.
        texts: The stories.
        tokens: The token ids of each, BOS first.

    Raises:
        ConfigError: ``stories.split`` for an unknown split or one without a story,
            ``network.layer`` for a layer that does not exist.

    Example:
        >>> data = StoriesData.load()
        >>> data.activations(0, "heldout").shape
        torch.Size([42307, 64])
        >>> data.context(3, "heldout", width=3)
        (' One day,', ' a', ' fast')

    Source:
        Eldan and Li (2023), *TinyStories*. Leaving BOS out follows the practice of SAE training.
    """

    model: StoriesTransformer
    tokenizer: Tokenizer
    texts: tuple[str, ...] = field(repr=False)
    tokens: tuple[Int[Tensor, " _"], ...] = field(repr=False)

    @classmethod
    @cache
    def load(cls) -> "StoriesData":
        """The 1000 TinyStories and the float32 model that ship with this package."""
        path = files("toys").joinpath("data", "text", "tinystories_1000.json")
        texts = json.loads(path.read_text(encoding="utf-8"))
        return cls.from_texts(texts, StoriesTransformer.load(), Tokenizer.load())

    @classmethod
    def from_texts(
        cls, texts: Sequence[str], model: StoriesTransformer, tokenizer: Tokenizer
    ) -> "StoriesData":
        """Any texts, each read as one story."""
        length = model.sizes.context
        tokens = tuple(torch.tensor(tokenizer.encode(text)[:length]) for text in texts)
        return cls(model, tokenizer, tuple(texts), tokens)

    def stories(self, split: Split) -> list[int]:
        """The indices of the stories of a split: 9, 19, 29, … are held out."""
        everything = range(len(self.tokens))
        held = set(everything[9::10])
        splits = {"train": [i for i in everything if i not in held], "heldout": sorted(held)}
        if not splits.get(split):
            raise ConfigError(
                f"no such split or an empty one: got {split!r} of {len(self.tokens)} stories, "
                "expected 'train' or 'heldout' of >= 10. Give more texts.",
                code="stories.split",
                context={"split": split, "stories": len(self.tokens)},
            )
        return splits[split]

    def batches(self, split: Split, size: int = 8) -> Iterator[StoryBatch]:
        """The stories of a split, shortest first, ``size`` at a time."""
        ordered = sorted(self.stories(split), key=lambda i: len(self.tokens[i]))
        for at in range(0, len(ordered), size):
            stories = tuple(ordered[at : at + size])
            lengths = torch.tensor([len(self.tokens[i]) for i in stories])
            tokens = pad_sequence([self.tokens[i] for i in stories], batch_first=True)
            mask = torch.arange(tokens.shape[1]) < lengths[:, None]
            yield StoryBatch(stories, tokens, mask)

    def activations(self, layer: int, split: Split = "train") -> Float[Tensor, "N d"]:
        """The residual stream after block ``layer`` (0: the embedding) at every row.

        The eight last used are kept in memory and shared: do not write into them.
        """
        return _activations(self, layer, split)

    def rows(self, split: Split = "train") -> Int[Tensor, "N 2"]:
        """Where each row of :meth:`activations` was read: (story, position), BOS at 0."""
        return _rows(self, split)

    def row_tokens(self, split: Split = "train") -> Int[Tensor, " N"]:
        """The token that each row of :meth:`activations` was read at."""
        return torch.cat([self.tokens[i][1:] for i in self.stories(split)])

    def context(self, row: int, split: Split = "train", *, width: int = 12) -> tuple[str, str, str]:
        """The text before a row's token, the token, and the text after, for dashboards.

        Args:
            row: Index into :meth:`activations` of the same split.
            split: Which split.
            width: Tokens on either side.
        """
        story, at = self.rows(split)[row].tolist()
        tokens = self.tokens[story].tolist()
        before, after = tokens[max(at - width, 0) : at], tokens[at + 1 : at + 1 + width]
        decode = self.tokenizer.decode
        return decode(before), self.tokenizer.piece(tokens[at]), decode(after)


@lru_cache(maxsize=4)
def _rows(data: StoriesData, split: Split) -> Tensor:
    lengths = [(i, len(data.tokens[i])) for i in data.stories(split)]
    return torch.cat(
        [torch.stack((torch.full((n - 1,), i), torch.arange(1, n)), 1) for i, n in lengths]
    )


@lru_cache(maxsize=8)
def _activations(data: StoriesData, layer: int, split: Split) -> Tensor:
    read: dict[int, Tensor] = {}
    for batch in data.batches(split):
        stream = data.model.stream(batch.tokens, layer)
        read |= {i: h[rows] for i, h, rows in zip(batch.stories, stream, batch.rows, strict=True)}
    return torch.cat([read[i] for i in data.stories(split)])


def source(layer: int = 2) -> Float[Tensor, "N d"]:
    """The training activations of one layer, under the name ``stories260K`` of ``vsae.sources``.

    Args:
        layer: The residual stream after this block; 0 is the embedding, 5 the last.
    """
    return StoriesData.load().activations(layer)
