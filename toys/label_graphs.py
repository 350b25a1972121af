"""Graphs of the stories: over sentences, over words, over categories; each with its rows' labels.

A graph over what rows are *labelled* with is neither over the rows of a batch nor over latents. It
becomes the first by :meth:`LabelGraph.relevance` and :meth:`LabelGraph.of_rows`, the second by
:meth:`LabelGraph.lifted`.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Generator, Tensor

from priors.graph import Graph
from priors.lifted import lifted_graph
from toys.sentences import Sentences
from toys.word_vectors import WordVectors
from toys.words import WordNouns
from vsae.errors import ShapeError


@dataclass(frozen=True, eq=False)
class LabelGraph:
    """A graph over labels, and the label of every row.

    Args:
        names: ``C`` labels.
        labels: ``(N,)``, the label of each row by index; -1 where it has none.
        graph: Over the labels.

    Raises:
        ShapeError: ``labels.nodes`` if the graph is over other than ``C`` nodes, or a row has a
            label beyond them.

    Example:
        >>> found = LabelGraph(("a", "b", "c"), torch.tensor([0, 1, 1, -1]), Graph.tree([-1, 0, 0]))
        >>> found.of_rows(torch.arange(4)).edges.tolist()
        [[0, 0, 1], [1, 2, 2]]
    """

    names: tuple[str, ...] = field(repr=False)
    labels: Int[Tensor, " N"] = field(repr=False)
    graph: Graph

    def __post_init__(self) -> None:
        most = int(self.labels.max()) if len(self.labels) else -1
        if len(self.names) != self.graph.num_nodes or most >= len(self.names):
            raise ShapeError(
                f"a graph of {self.graph.num_nodes} nodes for {len(self.names)} names and labels "
                f"up to {most}: expected a node for each name and no label beyond.",
                code="labels.nodes",
                context={"nodes": self.graph.num_nodes, "names": len(self.names)},
            )

    def shuffled(self, generator: Generator) -> "LabelGraph":
        """The control: the same rows and labels, the graph's nodes renamed at random."""
        return replace(self, graph=self.graph.shuffled(generator))

    def relevance(self, rows: Int[Tensor, " n"]) -> sparse.csr_array:
        """How much chosen rows have to do with each other: ``(n, n)``, sparse, zero diagonal.

        The weight of the edge between their labels; for one label the greatest weight of the
        graph, 1 if it has no edge. Entries are as many as *pairs* of related rows: choose thousands
        of rows, not all.

        Args:
            rows: By index, each once.
        """
        labels = self.labels[rows].numpy()
        known = np.flatnonzero(labels >= 0)
        place = known, labels[known]
        member = sparse.csr_array(
            (np.ones(len(known)), place), shape=(len(labels), len(self.names))
        )
        same = float(self.graph.weights.max()) if self.graph.num_edges else 1.0
        tied = self.graph.adjacency() + same * sparse.eye_array(len(self.names))
        found = sparse.coo_array(member @ tied @ member.T)
        row, column = found.coords
        kept = row != column
        entries = found.data[kept], (row[kept], column[kept])
        return sparse.csr_array(entries, shape=found.shape)

    def of_rows(self, rows: Int[Tensor, " n"]) -> Graph:
        """The same as a graph over the chosen rows, for :mod:`priors.penalties` of a batch."""
        return Graph.from_scipy(self.relevance(rows))

    def lifted(self, codes: Float[Tensor, "N K"], k: int, *, own: float = 0.0) -> Graph:
        """The graph over latents: :func:`priors.lifted_graph`, of the rows that have a label.

        Args:
            codes: Of all rows.
            k: Neighbours of each latent.
            own: What being active on the same label counts for.

        Raises:
            GraphError: Those of :func:`priors.lifted_graph`.
        """
        known = self.labels >= 0
        nodes = self.labels[known]
        return lifted_graph(self.graph, codes.detach()[known], k, nodes=nodes, own=own)


def sentence_graph(
    sentences: Sentences, points: Float[Tensor, "S w"], *, neighbours: int = 16
) -> LabelGraph:
    """Sentences tied to their nearest by cosine, either way; a sentence of zeros to none.

    The labels are the rows' sentences. ``found.graph`` alone is the graph over sentence codes,
    ``sentences.mean(codes)``.

    Args:
        sentences: The rows' sentences.
        points: Of :func:`toys.word_vectors.glove_sentences` or ``stream_sentences``.
        neighbours: How many of each.
    """
    return LabelGraph(sentences.texts, sentences.rows, Graph.knn(points, neighbours))


def word_graph(
    sentences: Sentences, *, neighbours: int = 8, vectors: WordVectors | None = None
) -> LabelGraph:
    """The words of the rows tied to their nearest in GloVe; a row's label is its token's word.

    Words without a vector are nodes without an edge. Rows inside a word have its label before the
    network has read all of it: see :attr:`toys.sentences.Sentences.word_end`.

    Args:
        sentences: The rows' words.
        neighbours: How many of each.
        vectors: Those that ship with this package if ``None``.
    """
    points = (WordVectors.load() if vectors is None else vectors).of(sentences.words)
    return LabelGraph(sentences.words, sentences.row_word, Graph.knn(points, neighbours))


def category_graph(
    sentences: Sentences, *, least: int = 10, nouns: WordNouns | None = None
) -> LabelGraph:
    """The nouns of the rows by WordNet's categories, which form a tree.

    A row's label is the lowest synset above its word that has ``least`` nouns of the shipped file
    at or below it; the graph ties each such synset to the nearest above. Only nouns whose first
    sense the file trusts are labelled, so most rows have none. ``relevance`` counts rows of one
    category, of its parent and of its children.

    Args:
        sentences: The rows' words.
        least: Nouns of a category.
        nouns: Those that ship with this package, the trusted, if ``None``.
    """
    nouns = WordNouns.load().trusted() if nouns is None else nouns
    concepts = nouns.concepts(least)
    # parents come before children: the last that holds a word is the lowest
    order = torch.arange(1, len(concepts.names) + 1) * concepts.members
    lowest = dict(zip(nouns.words, (order.amax(1) - 1).tolist(), strict=True))
    of_word = torch.tensor([lowest.get(word, -1) for word in sentences.words] + [-1])
    return LabelGraph(concepts.names, of_word[sentences.row_word], Graph.tree(concepts.parents))
