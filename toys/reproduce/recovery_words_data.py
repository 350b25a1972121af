"""Vectors of nouns for the recovery benchmark: one word in ten held out, WordNet as the truth."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Int
from torch import Generator, Tensor

from toys.words import WordNouns
from vsae.batches import stream
from vsae.normalizers import AffineNormalizer

TENTHS, HALVES = 10, 18_000_000  # shares of the words; a random stream


@dataclass(frozen=True, kw_only=True)
class Split:
    """Which words are held out, and of which the concepts are known.

    Args:
        seed: Of both; any ten seeds in a row hold out different words.
        least: Trusted words at or below a concept for it to count.
    """

    seed: int
    least: int


@dataclass(frozen=True, eq=False)
class Labels:
    """Words and the concepts that they are at or below.

    Args:
        words: ``(n,)``, by index.
        on: ``(n, C)``.
    """

    words: Int[Tensor, " n"]
    on: Bool[Tensor, "n C"]


class Words:
    """Training and held-out vectors, and what is true of the trusted words.

    Vectors of all nouns are trained on. Labels are those of trusted words: half of them are
    ``known``, from which latents are chosen and trees are given; the other half, ``asked``, are
    for scores alone. A concept that holds every word is none.

    Args:
        split: Which.

    Example:
        >>> words = Words(Split(seed=1, least=16))
        >>> len(words.train), len(words.test), len(words.names)
        (1965, 219, 56)
    """

    def __init__(self, split: Split) -> None:
        nouns = WordNouns.load()
        self.vectors = nouns.vectors
        order = torch.randperm(len(self.vectors), generator=Generator().manual_seed(0))
        held = order % TENTHS == split.seed % TENTHS
        self.held = held.nonzero().flatten()
        self.train, self.test = self.vectors[~held], self.vectors[held]
        self.normalizer = AffineNormalizer.fit(self.train)
        found = nouns.trusted().concepts(split.least)
        some = ~found.members.all(0)
        self.names = tuple(n for n, kept in zip(found.names, some.tolist(), strict=True) if kept)
        self.parents = kept_parents(found.parents, some)
        self.members = found.members[:, some]
        trusted = nouns.clean.nonzero().flatten()
        mixed = torch.randperm(len(trusted), generator=stream(split.seed, HALVES))
        self.known, self.asked = (
            Labels(trusted[half], self.members[half]) for half in mixed.chunk(2)
        )


def kept_parents(parents: Int[Tensor, " C"], kept: Bool[Tensor, " C"]) -> Int[Tensor, " D"]:
    """The nearest kept node above each kept one, -1 for none; parents come before children.

    Example:
        >>> kept_parents(torch.tensor([-1, 0, 1, 1]), torch.tensor([False, True, False, True]))
        tensor([-1,  0])
    """
    above = parents.clone()
    for node in range(len(above)):
        while above[node] >= 0 and not kept[above[node]]:
            above[node] = parents[above[node]]
    place = kept.cumsum(0) - 1
    return torch.where(above >= 0, place[above.clamp(min=0)], -1)[kept]


@lru_cache(maxsize=2)
def words(split: Split) -> Words:
    """A pure function of its argument; the last two are kept."""
    return Words(split)
