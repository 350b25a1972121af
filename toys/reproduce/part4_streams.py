"""What the real parts of ``part4`` read: all layers of a small network, its sentences, graphs."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from toys.label_graphs import LabelGraph, category_graph, sentence_graph, word_graph
from toys.layer_streams import layer_streams
from toys.sentences import Sentences
from toys.stories import StoriesData
from toys.word_vectors import glove_sentences
from vsae.layer_normalizer import LayerNormalizer


@dataclass(frozen=True, eq=False)
class Rows:
    """Training and held-out rows, as the crosscoders of a part read them.

    Args:
        train: ``(N, layers, d)``.
        test: Held out, likewise.
        units: Each layer centred, E‖x_l‖² = d_l.
    """

    train: Float[Tensor, "N layers d"]
    test: Float[Tensor, "M layers d"]
    units: LayerNormalizer

    @classmethod
    def of(cls, train: Float[Tensor, "N layers d"], test: Float[Tensor, "M layers d"]) -> "Rows":
        """In the units of the training rows."""
        layers = (train.shape[-1],) * train.shape[-2]
        return cls(train, test, LayerNormalizer.fit(train.flatten(1), layers))

    @property
    def layers(self) -> tuple[int, ...]:
        """Width of every layer."""
        return (self.train.shape[-1],) * self.train.shape[-2]


class Streams:
    """The streams after every block of stories260K at every token, and what they were read in.

    Args:
        stories: Stories read, one in ten of them held out.
    """

    def __init__(self, stories: int) -> None:
        everything = StoriesData.load()
        texts = everything.texts[:stories]
        self.data = StoriesData.from_texts(texts, everything.model, everything.tokenizer)
        self.tokens = Rows.of(*(layer_streams(self.data, split) for split in ("train", "heldout")))
        self.read, self.held = (Sentences.of(self.data, split) for split in ("train", "heldout"))

    @cached_property
    def means(self) -> Rows:
        """A row per sentence, the mean over its tokens, as document B has it."""
        pairs = ((self.read, self.tokens.train), (self.held, self.tokens.test))
        return Rows.of(*(s.mean(x.flatten(1)).view(-1, *x.shape[1:]) for s, x in pairs))

    @cached_property
    def sentences(self) -> LabelGraph:
        """Training sentences tied to their 16 nearest by GloVe."""
        return sentence_graph(self.read, glove_sentences(self.read).points)

    @cached_property
    def words(self) -> LabelGraph:
        """Words of the training rows tied to their nearest by GloVe."""
        return word_graph(self.read)

    @cached_property
    def categories(self) -> LabelGraph:
        """Categories of the nouns of the training rows."""
        return category_graph(self.read)

    @cached_property
    def points(self) -> Float[Tensor, "S w"]:
        """Held-out sentences as GloVe has them."""
        return glove_sentences(self.held).points

    def some(self, rows: int, generator: torch.Generator) -> Int[Tensor, " n"]:
        """Training rows drawn without replacement, of which graphs over latents are made."""
        order = torch.randperm(len(self.tokens.train), generator=generator)
        return order[:rows]


@lru_cache(maxsize=1)
def streams(stories: int) -> Streams:
    """The same for all jobs of a process."""
    return Streams(stories)
