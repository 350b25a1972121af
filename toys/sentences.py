"""The sentences of the stories, and the sentence and the word that each row was read in."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from toys.stories import Split, StoriesData

# Some quotation marks of the stories are UTF-8 that was once read as Windows-1252: â€œ, â€, â€™.
_CLOSING = "[\"'”’)\\]â€œ™\x9d]*"
_END = re.compile(
    rf"(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)[.!?…]+{_CLOSING}(?=\s+[^\sa-z]|\s*$)|\n\s*\n"
)
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)*", re.IGNORECASE | re.ASCII)


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Where the sentences of a text begin and end, in characters; together they are the text.

    A sentence ends after ``.``, ``!``, ``?`` or ``…`` and any closing quotation marks, where
    space follows and then no lower-case letter, or at the text's end; not after Mr, Mrs, Ms or Dr;
    and at an empty line. What is said and who says it are one sentence if the latter begins in
    lower case (*"Hi!" said Tim.*) and two if not (*"Hi!" Tim said.*). Space before a sentence
    belongs to it.

    Example:
        >>> text = 'Mr. Fox ran. "Stop!" said Tim. He did'
        >>> [text[a:b] for a, b in sentence_spans(text)]
        ['Mr. Fox ran.', ' "Stop!" said Tim.', ' He did']
    """
    spans, start = [], 0
    for end in [*(match.end() for match in _END.finditer(text)), len(text)]:
        if text[start:end].strip():
            spans.append((start, end))
            start = end
    if spans:  # space at the end
        spans[-1] = (spans[-1][0], len(text))
    return spans


@dataclass(frozen=True, eq=False)
class Sentences:
    """Sentences and words of the rows of a split.

    Args:
        texts: ``S`` sentences that have rows, in reading order. A story is cut at the model's
            context: the rows of its last sentence may be a part of it.
        story: ``(S,)``, the story of each.
        rows: ``(N,)``, the sentence that each row of ``data.activations`` was read in.
        words: The different words, lower case, in alphabetical order.
        row_word: ``(N,)``, the word that each row's token ends in, by index; -1 outside of words.
        word_end: ``(N,)``, whether the token is the last of its word: there the network has read
            all of it.

    Example:
        >>> shipped = StoriesData.load()
        >>> data = StoriesData.from_texts(shipped.texts[:10], shipped.model, shipped.tokenizer)
        >>> found = Sentences.of(data, "heldout")
        >>> found.texts[1], found.words[found.row_word[3]]
        (' He loved to speed down the street and feel the wind in his hair.', 'a')
    """

    texts: tuple[str, ...] = field(repr=False)
    story: Int[Tensor, " S"] = field(repr=False)
    rows: Int[Tensor, " N"] = field(repr=False)
    words: tuple[str, ...] = field(repr=False)
    row_word: Int[Tensor, " N"] = field(repr=False)
    word_end: Bool[Tensor, " N"] = field(repr=False)

    @classmethod
    def of(cls, data: StoriesData, split: Split = "train") -> "Sentences":
        """Those of the rows of a split; the four last used are kept."""
        return _sentences(data, split)

    def __len__(self) -> int:
        return len(self.texts)

    def mean(self, values: Float[Tensor, "N w"]) -> Float[Tensor, "S w"]:
        """The mean over each sentence's rows, such as of codes, in float64 and then as given."""
        total = values.new_zeros(len(self), values.shape[1], dtype=torch.float64)
        total.index_add_(0, self.rows, values.double())
        return (total / self.rows.bincount(minlength=len(self))[:, None]).to(values.dtype)


def words_of(text: str) -> list[str]:
    """The words of a text in lower case: letters, with apostrophes inside.

    Example:
        >>> words_of("Don't, said Tim's dog.")
        ["don't", 'said', "tim's", 'dog']
    """
    return [word.lower() for word in _WORD.findall(text)]


@dataclass(frozen=True)
class _Place:
    """Where a row was read: its sentence and its word, each with where it begins."""

    sentence: tuple[int, int]
    word: str | None
    last: bool


def _places(data: StoriesData, story: int) -> Iterator[_Place]:
    text = " " + data.texts[story]  # as the tokenizer has it
    spans = sentence_spans(text)
    letters = [(m.span(), m.group().lower()) for m in _WORD.finditer(text)]
    sizes = [len(c.encode()) for c in text]
    character = [i for i, size in enumerate(sizes) for _ in range(size)]  # of each byte
    sentence, word, read = 0, 0, 0
    for token in data.tokens[story][1:].tolist():
        read += len(data.tokenizer.raw(token))
        at = character[read - 1]
        while at >= spans[sentence][1]:
            sentence += 1
        while word < len(letters) and at >= letters[word][0][1]:
            word += 1
        inside = word < len(letters) and letters[word][0][0] <= at
        last = inside and at == letters[word][0][1] - 1
        yield _Place((story, sentence), letters[word][1] if inside else None, last)


@lru_cache(maxsize=4)
def _sentences(data: StoriesData, split: Split) -> Sentences:
    places = [place for story in data.stories(split) for place in _places(data, story)]
    number = {place: i for i, place in enumerate(dict.fromkeys(p.sentence for p in places))}
    words = sorted({p.word for p in places if p.word is not None})
    index = {word: i for i, word in enumerate(words)}
    texts = []
    for story, sentence in number:
        text = " " + data.texts[story]
        start, end = sentence_spans(text)[sentence]
        texts.append(text[max(start, 1) if sentence == 0 else start : end])
    return Sentences(
        texts=tuple(texts),
        story=torch.tensor([story for story, _ in number]),
        rows=torch.tensor([number[p.sentence] for p in places]),
        words=tuple(words),
        row_word=torch.tensor([-1 if p.word is None else index[p.word] for p in places]),
        word_end=torch.tensor([p.last for p in places]),
    )
