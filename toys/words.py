"""Real vectors with a real hierarchy: GloVe vectors of nouns, WordNet as the truth about them."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import as_file, files
from os import PathLike
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from priors.graph import Graph
from vsae.batches import check_finite
from vsae.errors import DataError


@dataclass(frozen=True, eq=False)
class WordConcepts:
    """The concepts of a hierarchy that have words enough to be measured, parents before children.

    Args:
        names: ``C`` names.
        parents: ``(C,)``, the nearest concept above each among these, -1 for none.
        members: ``(N, C)``, whether a word is at or below a concept.
    """

    names: tuple[str, ...]
    parents: Int[Tensor, " C"]
    members: Bool[Tensor, "N C"]


@dataclass(frozen=True, eq=False)
class WordNouns:
    """Nouns, their vectors, and the hypernyms above each, as a forest of synsets.

    The file holds one path of hypernyms per word, that of its first sense by one hypernym at each
    step, so that every synset has one parent. A first sense need not be the sense that the vectors
    saw most of: *turtle* is a garment there. ``clean`` marks the words where the file trusts it.

    Args:
        words: ``N`` words.
        vectors: ``(N, d)`` float32, as published, neither centred nor scaled.
        nodes: ``V`` synsets, name and WordNet 3.0 offset; a parent comes before its children.
        parents: ``(V,)``, the synset above each, -1 for a root.
        node: ``(N,)``, the synset of each word.
        clean: ``(N,)``.

    Raises:
        DataError: ``words.file`` for files that are not what is described here, ``words.forest``
            for a synset with two parents, ``data.nonfinite``.

    Example:
        >>> nouns = WordNouns.load()
        >>> nouns.vectors.shape, len(nouns.nodes)
        (torch.Size([2184, 50]), 3788)
        >>> feline = nouns.nodes.index("feline.02120997")
        >>> sorted(nouns.words[i] for i in nouns.below(feline))
        ['cat', 'cheetah', 'jaguar', 'lion', 'panther']

    Source:
        Pennington, Socher & Manning (2014), *GloVe* (6B, 50 dimensions); Fellbaum (1998),
        *WordNet* (3.0).
    """

    words: tuple[str, ...] = field(repr=False)
    vectors: Float[Tensor, "N d"] = field(repr=False)
    nodes: tuple[str, ...] = field(repr=False)
    parents: Int[Tensor, " V"] = field(repr=False)
    node: Int[Tensor, " N"] = field(repr=False)
    clean: Bool[Tensor, " N"] = field(repr=False)

    @classmethod
    @cache
    def load(cls) -> "WordNouns":
        """The 2184 nouns that ship with this package."""
        folder = files("toys").joinpath("data", "words")
        with (
            as_file(folder.joinpath("glove6B_50d.npz")) as vectors,
            as_file(folder.joinpath("wordnet_nouns.tsv")) as nouns,
        ):
            return cls.from_files(vectors, nouns)

    @classmethod
    def from_files(cls, vectors: str | PathLike, nouns: str | PathLike) -> "WordNouns":
        """Vectors from an ``.npz`` of ``words`` and ``vectors``, hypernyms from a ``.tsv``.

        The table has the columns ``word``, ``clean`` (0 or 1) and ``hypernym_path``, from the root
        down to the word's own synset, separated by ``>``. Words without a path are left out.
        """
        table, rows = read_vectors(vectors), _read_nouns(nouns)
        if missing := [row["word"] for row in rows if row["word"] not in table]:
            raise _wrong(nouns, f"{len(missing)} words without a vector, first {missing[0]!r}")
        paths = [row["hypernym_path"].split(">") for row in rows]
        parents = _forest(paths)
        place = {name: i for i, name in enumerate(parents)}
        found = np.stack([table[row["word"]] for row in rows])
        return cls(
            words=tuple(row["word"] for row in rows),
            vectors=torch.from_numpy(found),
            nodes=tuple(parents),
            parents=torch.tensor([place.get(above, -1) for above in parents.values()]),
            node=torch.tensor([place[path[-1]] for path in paths]),
            clean=torch.tensor([row["clean"] == "1" for row in rows]),
        )

    def trusted(self) -> "WordNouns":
        """Only the words whose first sense is trusted; the same synsets, some without a word."""
        keep = self.clean.nonzero().squeeze(1)
        words = tuple(self.words[i] for i in keep)
        return WordNouns(
            words, self.vectors[keep], self.nodes, self.parents, self.node[keep], self.clean[keep]
        )

    @property
    def depth(self) -> Int[Tensor, " V"]:
        """Number of synsets above each."""
        found: list[int] = []
        for parent in self.parents.tolist():
            found.append(0 if parent < 0 else found[parent] + 1)
        return torch.tensor(found)

    @property
    def graph(self) -> Graph:
        """The forest of synsets as a graph."""
        return Graph.tree(self.parents)

    def members(self) -> Bool[Tensor, "N V"]:
        """Whether each word is at or below each synset."""
        found = torch.zeros(len(self.words), len(self.nodes), dtype=torch.bool)
        rows, at = torch.arange(len(self.words)), self.node
        while len(rows):
            found[rows, at] = True
            above = self.parents[at]
            rows, at = rows[above >= 0], above[above >= 0]
        return found

    def below(self, node: int) -> Int[Tensor, " n"]:
        """The words at or below a synset, by index."""
        return self.members()[:, node].nonzero().squeeze(1)

    def concepts(self, least: int = 10) -> WordConcepts:
        """The synsets with ``least`` words or more, without those that only repeat another's words.

        Where a chain of synsets has the same words (*living thing*, *organism*), the lowest stands
        for all.

        Example:
            >>> concepts = WordNouns.load().concepts(20)
            >>> child = concepts.names.index("placental.01886756")
            >>> concepts.names[concepts.parents[child]]
            'vertebrate.01471682'
        """
        members = self.members()
        count = members.sum(0)
        kept = count >= least
        child = (kept & (self.parents >= 0)).nonzero().squeeze(1)
        same = child[count[child] == count[self.parents[child]]]
        kept[self.parents[same]] = False
        place = {node: i for i, node in enumerate(kept.nonzero().squeeze(1).tolist())}
        parents = [self._above(node, place) for node in place]
        return WordConcepts(
            tuple(self.nodes[i] for i in place), torch.tensor(parents), members[:, kept]
        )

    def _above(self, node: int, place: dict[int, int]) -> int:
        above = int(self.parents[node])
        while above >= 0 and above not in place:
            above = int(self.parents[above])
        return place.get(above, -1)

    def views(self) -> Int[Tensor, "P 2"]:
        """Pairs of words that are two views of one concept: lemmas of the same synset, by index.

        *Couch* and *sofa*, as a translation is of its original. Few, so that what is measured on
        them has wide intervals; :meth:`sisters` are many more, of concepts that are merely near.
        """
        return self._pairs(self.node)

    def sisters(self) -> Int[Tensor, "P 2"]:
        """Pairs of words of different synsets under one parent, by index."""
        pairs = self._pairs(self.parents[self.node])
        return pairs[self.node[pairs[:, 0]] != self.node[pairs[:, 1]]]

    def _pairs(self, label: Tensor) -> Tensor:
        return torch.nonzero((label[:, None] == label).triu(1) & (label >= 0))


def source() -> Float[Tensor, "N d"]:
    """The vectors of all nouns, under the name ``glove-nouns`` of ``vsae.sources``."""
    return WordNouns.load().vectors


def read_vectors(path: str | PathLike) -> dict[str, np.ndarray]:
    """The vector of every word of a file, float32; or ``words.file``."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            words, vectors = archive["words"], archive["vectors"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, BadZipFile) as error:
        raise _wrong(path, str(error)) from error
    if vectors.ndim != 2 or vectors.dtype.kind != "f" or words.shape != vectors.shape[:1]:
        raise _wrong(path, f"words {words.shape} and vectors {vectors.shape} {vectors.dtype}")
    check_finite(torch.from_numpy(vectors))
    return dict(zip(words.tolist(), vectors.astype(np.float32), strict=True))


def _read_nouns(path: str | PathLike) -> list[dict[str, str]]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, ValueError) as error:
        raise _wrong(path, str(error)) from error
    columns = ("word", "clean", "hypernym_path")
    if not rows or any(not row.get(name) for row in rows for name in columns):
        raise _wrong(path, f"{len(rows)} rows, not all with {columns}")
    return rows


def _forest(paths: Sequence[Sequence[str]]) -> dict[str, str]:
    """The parent of each node, "" for roots; parents before children."""
    parents: dict[str, str] = {}
    for path in paths:
        for above, node in zip(("", *path), path, strict=False):
            if parents.setdefault(node, above) != above:
                raise DataError(
                    f"{node} has two parents: got {parents[node]!r} and {above!r}, expected a "
                    "forest. Keep one path per synset.",
                    code="words.forest",
                    context={"node": node},
                )
    return parents


def _wrong(path: str | PathLike, got: str) -> DataError:
    return DataError(
        f"{path} is not what was expected: got {got}. Expected words with vectors, or a table of "
        "words and their hypernyms; get the file again.",
        code="words.file",
        context={"path": str(path)},
    )
