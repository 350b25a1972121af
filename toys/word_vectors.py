"""GloVe vectors of whatever words there are, and sentences made of them."""

from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import as_file, files

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from toys.sentences import Sentences, words_of
from toys.stories import Split, StoriesData
from toys.words import read_vectors


@dataclass(frozen=True, eq=False)
class WordVectors:
    """The GloVe vectors that ship with this package, of nouns and of common words of all kinds.

    Example:
        >>> vectors = WordVectors.load()
        >>> len(vectors.table), vectors.of(("dog", "zzz")).norm(dim=1).bool().tolist()
        (3686, [True, False])

    Source:
        Pennington, Socher & Manning (2014), *GloVe* (6B, 50 dimensions).
    """

    table: dict[str, np.ndarray] = field(repr=False)

    @classmethod
    @cache
    def load(cls) -> "WordVectors":
        """The file of :class:`toys.words.WordNouns`, with the words that are no nouns."""
        path = files("toys").joinpath("data", "words", "glove6B_50d.npz")
        with as_file(path) as file:
            return cls(read_vectors(file))

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        return len(next(iter(self.table.values())))

    def of(self, words: tuple[str, ...]) -> Float[Tensor, "V w"]:
        """The vector of each word, zeros where there is none: float32, as published."""
        none = np.zeros(self.width, np.float32)
        return torch.from_numpy(np.stack([self.table.get(word, none) for word in words]))


@dataclass(frozen=True, eq=False)
class SentenceVectors:
    """Sentences as points, and how much of them that rests on.

    Args:
        points: ``(S, w)``, centred; zeros for a sentence of which nothing is known.
        covered: The share of all words, counted as often as they occur, that were known.
        empty: The share of sentences without a known word.
    """

    points: Float[Tensor, "S w"]
    covered: float
    empty: float


def glove_sentences(sentences: Sentences, vectors: WordVectors | None = None) -> SentenceVectors:
    r"""Each sentence as the weighted mean of its words' vectors, rare words weighing more.

    .. math:: e_s = \frac{\sum_{w \in s} \mathrm{idf}_w v_w}{\sum_{w \in s} \mathrm{idf}_w}
        - \bar e, \qquad \mathrm{idf}_w = \log\frac{S}{\#\{s : w \in s\}}

    over known words, each as often as it occurs. The vectors know nothing of the network whose
    activations are looked into, so that a graph of theirs is evidence from outside; they know
    nothing of word order either. Words without a vector are left out.

    Args:
        sentences: From :class:`toys.sentences.Sentences`; idf is counted over them.
        vectors: Those that ship with this package if ``None``.

    Example:
        >>> shipped = StoriesData.load()
        >>> data = StoriesData.from_texts(shipped.texts[:10], shipped.model, shipped.tokenizer)
        >>> found = glove_sentences(Sentences.of(data, "train"))
        >>> found.points.shape[1], round(found.covered, 1), found.empty < 0.05
        (50, 0.7, True)

    Source:
        Arora, Liang & Ma (2017), *A simple but tough-to-beat baseline for sentence embeddings*
        (frequency weights and centring; their weights and their first component are others).
    """
    table = (WordVectors.load() if vectors is None else vectors).table
    counts = [Counter(words_of(text)) for text in sentences.texts]
    frequency = Counter(word for found in counts for word in found)
    idf = {word: np.log(len(counts) / times) for word, times in frequency.items()}
    width = len(next(iter(table.values())))
    points = np.zeros((len(counts), width))
    known = np.zeros(len(counts), bool)
    for row, found in enumerate(counts):
        weight = {word: times * idf[word] for word, times in found.items() if word in table}
        if total := sum(weight.values()):
            points[row] = sum(w * table[word].astype(float) for word, w in weight.items()) / total
            known[row] = True
    points[known] -= points[known].mean(0) if known.any() else 0.0
    tokens = Counter()
    for found in counts:
        tokens.update(found)
    covered = sum(times for word, times in tokens.items() if word in table)
    return SentenceVectors(
        torch.from_numpy(points), covered / tokens.total(), 1 - float(known.mean())
    )


def stream_sentences(data: StoriesData, split: Split = "train", layer: int = 0) -> SentenceVectors:
    """Each sentence as the mean of the network's own residual stream over its rows, centred.

    Use a layer that the crosscoder does not read: of those that it does, nearness in the graph is
    nearness in its input. Layer 0, the embedding, is then a bag of tokens.

    Args:
        data: Text and network.
        split: Which stories.
        layer: Which stream.

    Raises:
        ConfigError: ``network.layer``, ``stories.split``.
    """
    means = Sentences.of(data, split).mean(data.activations(layer, split).double())
    return SentenceVectors(means - means.mean(0), 1.0, 0.0)
