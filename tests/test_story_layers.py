"""Streams of several layers, sentences and words of rows, graphs of labels: against loops."""

import collections
import itertools
import math
import re
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from priors.errors import ConfigError
from priors.graph import Graph
from priors.penalties import sample_graph_smoothness
from toys.label_graphs import LabelGraph, category_graph, sentence_graph, word_graph
from toys.layer_losses import layered_losses
from toys.layer_streams import layer_streams, source, write_layer_streams
from toys.losses import replaced_losses
from toys.network import StoriesTransformer
from toys.sentences import Sentences, sentence_spans, words_of
from toys.stories import StoriesData
from toys.word_vectors import WordVectors, glove_sentences, stream_sentences
from toys.words import WordNouns
from vsae.activations import read_activations
from vsae.errors import ShapeError

SHIPPED = StoriesData.load()


@pytest.fixture(scope="module")
def few():
    model = StoriesTransformer.load(torch.float64)
    return StoriesData.from_texts(SHIPPED.texts[:20], model, SHIPPED.tokenizer)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# Streams


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_streams_are_the_activations_of_each_layer(few, split):
    layers = (0, 5, 2)
    streams = layer_streams(few, split, layers)
    assert streams.shape == (len(few.rows(split)), 3, 64)
    for i, layer in enumerate(layers):
        torch.testing.assert_close(streams[:, i], few.activations(layer, split))


def test_a_file_of_streams_is_the_same_and_is_not_written_into(few, tmp_path):
    path = tmp_path / "streams.npy"
    mapped = write_layer_streams(few, path, "heldout")
    streams = layer_streams(few, "heldout")
    assert torch.equal(mapped, streams)
    mapped.zero_()
    assert np.array_equal(np.load(path), streams.numpy())
    torch.testing.assert_close(read_activations(str(path)), streams.float())


def test_layers_that_do_not_exist_are_refused(few):
    for layers in ((1, 6), (-1,)):
        with pytest.raises(ConfigError) as caught:
            layer_streams(few, "heldout", layers)
        assert caught.value.code == "network.layer"


# Sentences


@given(st.text(alphabet='aB.!?"\n ’', max_size=40))
def test_sentences_are_the_text(text):
    spans = sentence_spans(text)
    if not text.strip():
        assert spans == []
        return
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))
    assert all(text[a:b].strip() for a, b in spans)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?", ["One.", " Two!", " Three?"]),
        ("Wait... what? No.", ["Wait... what?", " No."]),
        ('"Go!" he said. "Why?" Tim asked.', ['"Go!" he said.', ' "Why?"', " Tim asked."]),
        ("Mrs. Bear and Dr. Owl met. Mr. Fox", ["Mrs. Bear and Dr. Owl met.", " Mr. Fox"]),
        ("A title\n\nIt was 3.50 o'clock.\n", ["A title\n\n", "It was 3.50 o'clock.\n"]),
        ("The End.\n\nNext", ["The End.", "\n\nNext"]),
        ("He said “no.” Then", ["He said “no.”", " Then"]),
    ],
)
def test_where_sentences_end(text, sentences):
    assert [text[a:b] for a, b in sentence_spans(text)] == sentences


def test_rows_are_in_the_sentence_and_the_word_they_end_in(few):
    """The text read so far is decoded at each row: its last letter's place tells both."""
    found = Sentences.of(few, "heldout")
    row = 0
    for story in few.stories("heldout"):
        text, tokens = few.texts[story], few.tokens[story].tolist()
        spans = sentence_spans(" " + text)
        first = found.story.tolist().index(story)
        for i in range(1, len(tokens)):
            at = len(few.tokenizer.decode(tokens[: i + 1]))  # with the space in front
            mine = next(k for k, (a, b) in enumerate(spans) if a <= at < b)
            assert found.rows[row] == first + mine
            tail = re.search(r"[A-Za-z']+$", (" " + text)[: at + 1])
            whole = re.match(r"[A-Za-z']*", (" " + text)[at + 1 :]).group()
            word = found.row_word[row]
            if tail is None:
                assert word == -1
            elif word >= 0:
                assert found.words[word] in (tail.group() + whole).lower()
                assert found.word_end[row] == (not re.match(r"'?[a-z]", whole, re.I))
            row += 1
    assert row == len(found.rows) == len(found.row_word) == len(found.word_end)
    assert found.texts[0] == few.texts[few.stories("heldout")[0]].split(".")[0] + "."


def test_all_stories_have_sentences_of_sense():
    found = Sentences.of(SHIPPED, "heldout")
    assert len(found.rows) == len(SHIPPED.row_tokens("heldout")) == 42307
    sizes = found.rows.bincount()
    assert (sizes > 0).all()
    assert (found.rows.diff() >= 0).all()
    assert 1500 < len(found) < 2500  # half of the stories are cut at the context
    assert 15 < sizes.double().median() < 30
    counted = {word for text in found.texts for word in words_of(text)}
    assert set(found.words) <= counted


def test_means_of_sentences(few):
    found = Sentences.of(few, "heldout")
    values = torch.randn(len(found.rows), 3, generator=generator())
    loops = [values[found.rows == s].mean(0) for s in range(len(found))]
    torch.testing.assert_close(found.mean(values), torch.stack(loops))


# Vectors of sentences


def test_glove_sentences_against_loops(few):
    found = Sentences.of(few, "heldout")
    table = WordVectors.load().table
    made = glove_sentences(found)
    texts = [words_of(text) for text in found.texts]
    points, known, tokens = [], 0, 0
    for words in texts:
        total, weight = np.zeros(50), 0.0
        for word in words:
            tokens += 1
            if word in table:
                known += 1
                idf = math.log(len(texts) / sum(word in other for other in texts))
                total, weight = total + idf * table[word].astype(float), weight + idf
        points.append(total / weight if weight else np.zeros(50))
    points = np.array(points)
    has = points.any(1)
    points[has] -= points[has].mean(0)
    assert_allclose(made.points, points, atol=1e-12)
    assert made.covered == known / tokens
    assert made.empty == pytest.approx(1 - has.mean())


def test_how_much_of_the_text_the_vectors_cover():
    """Enough to speak of sentences; nouns alone would not be."""
    found = Sentences.of(SHIPPED, "heldout")
    made = glove_sentences(found)
    assert made.covered > 0.6
    assert made.empty < 0.03
    nouns = set(WordNouns.load().words)
    words = [word for text in found.texts for word in words_of(text)]
    assert sum(word in nouns for word in words) / len(words) < 0.2


def test_sentences_of_streams(few):
    made = stream_sentences(few, "heldout", 0)
    found = Sentences.of(few, "heldout")
    x = few.activations(0, "heldout")
    means = torch.stack([x[found.rows == s].mean(0) for s in range(len(found))])
    torch.testing.assert_close(made.points, means - means.mean(0))


# Graphs


def label_graph(seed):
    """A few labels, ties between about half of their pairs, rows with and without a label."""
    draw = np.random.default_rng(seed)
    labels, rows = draw.integers(2, 6), draw.integers(1, 10)
    edges = [e for e in itertools.combinations(range(labels), 2) if draw.random() < 0.5]
    ends = torch.tensor(edges).view(-1, 2).mT.long().contiguous()
    graph = Graph(ends, torch.from_numpy(0.5 + draw.random(len(edges))), int(labels))
    of_rows = torch.from_numpy(draw.integers(-1, labels, rows))
    return LabelGraph(tuple("abcde"[:labels]), of_rows, graph)


@given(st.integers(0, 2**31))
@settings(max_examples=100)
def test_relevance_of_rows_against_loops(seed):
    found = label_graph(seed)
    rows = torch.randperm(len(found.labels), generator=generator(seed))
    weights = found.graph.adjacency().toarray()
    same = weights.max() if weights.any() else 1.0
    dense = found.relevance(rows).toarray()
    for i, j in itertools.product(range(len(rows)), repeat=2):
        a, b = found.labels[rows[i]], found.labels[rows[j]]
        expected = 0.0 if i == j or min(a, b) < 0 else same if a == b else weights[a, b]
        assert dense[i, j] == pytest.approx(expected)
    codes = torch.randn(len(rows), 3, generator=generator(seed))
    energy = torch.zeros(())
    for i, j in itertools.combinations(range(len(rows)), 2):
        energy = energy + dense[i, j] * (codes[i] - codes[j]).square().sum()
    torch.testing.assert_close(sample_graph_smoothness(codes, found.of_rows(rows)), energy)


@given(st.integers(0, 2**31))
@settings(max_examples=100)
def test_lifted_to_latents_against_loops(seed):
    """All pairs of latents: k is as great as it can be."""
    found = label_graph(seed)
    codes = torch.rand(len(found.labels), 4, generator=generator(seed)) + 0.1
    adjacency, labels = found.graph.adjacency().toarray(), found.labels.tolist()
    if max(labels) < 0:
        return
    sums = np.zeros((len(found.names), 4))
    for label, code in zip(labels, codes.numpy(), strict=True):
        if label >= 0:
            sums[label] += code
    profile = sums / np.linalg.norm(sums, axis=0)
    expected = profile.T @ (adjacency + 0.5 * np.eye(len(sums))) @ profile
    lifted = found.lifted(codes, 3, own=0.5).adjacency().toarray()
    np.fill_diagonal(expected, 0)
    assert_allclose(lifted, expected, atol=1e-12)
    shuffled = found.shuffled(generator(seed))
    assert torch.equal(shuffled.labels, found.labels)
    assert sorted(shuffled.graph.degree.tolist()) == pytest.approx(
        sorted(found.graph.degree.tolist())
    )


def test_graphs_of_the_stories():
    found = Sentences.of(SHIPPED, "heldout")
    of_sentences = sentence_graph(found, glove_sentences(found).points, neighbours=16)
    assert of_sentences.graph.num_nodes == len(found)
    assert (of_sentences.graph.degree > 0).double().mean() > 0.97
    of_words = word_graph(found)
    names = np.array(of_words.names)
    near = collections.defaultdict(set)
    for a, b in of_words.graph.edges.mT.tolist():
        near[names[a]].add(names[b])
        near[names[b]].add(names[a])
    assert "cat" in near["dog"]
    assert "dad" in near["mom"]
    unknown = [i for i, name in enumerate(names) if name not in WordVectors.load().table]
    assert (of_words.graph.degree[unknown] == 0).all()
    categories = category_graph(found)
    labelled = categories.labels >= 0
    assert 0.03 < labelled.double().mean() < 0.3
    nouns = WordNouns.load().trusted()
    members = nouns.concepts(10).members
    for row in labelled.nonzero().flatten()[::37].tolist():
        word, label = found.words[found.row_word[row]], int(categories.labels[row])
        holds = members[nouns.words.index(word)]
        assert holds[label]
        children = categories.graph.edges[1][categories.graph.edges[0] == label]
        assert not holds[children].any()  # the lowest


def test_a_graph_of_other_labels_is_refused():
    for labels, names in (([0, 3], 3), ([0, 1], 4)):
        with pytest.raises(ShapeError) as caught:
            LabelGraph(tuple("abcd"[:names]), torch.tensor(labels), Graph.ring(3))
        assert caught.value.code == "labels.nodes"


# Losses


def mixed(rows):
    """A reconstruction in which every layer's depends on all."""
    return 0.7 * rows + 0.2 * rows.mean(1, keepdim=True) + 0.01 * rows.flip(-1)


def test_losses_of_each_layer_and_of_all_together(few):
    """By hand: a story at a time, in the blocks themselves."""
    layers, model = (1, 3, 4), few.model
    found = layered_losses(few, mixed, layers=layers)
    alone: list[list] = [[] for _ in layers]
    together = []
    for story in few.stories("heldout"):
        tokens = few.tokens[story][None]
        streams = model.residuals(tokens)
        new = mixed(streams[list(layers)].squeeze(1).movedim(0, 1)[1:])
        cos, sin = model.cos[: tokens.shape[1]], model.sin[: tokens.shape[1]]

        for into, replaced in zip(
            [*alone, together], [*((at,) for at in layers), layers], strict=True
        ):
            stream = streams[0]
            for at, block in enumerate(model.blocks, 1):
                stream = block(stream, cos, sin)
                if at in replaced:
                    stream = torch.cat([stream[:, :1], new[None, :, layers.index(at)]], 1)
            logits = model.norm(stream) @ model.unembedding.mT
            targets = tokens[0, 1:]
            into.append(
                torch.nn.functional.cross_entropy(logits[0, :-1], targets, reduction="none")
            )
    for loss, own in zip(found.each, alone, strict=True):
        assert loss.ce_replaced == pytest.approx(torch.cat(own).mean().item(), rel=1e-12)
    assert found.together.ce_replaced == pytest.approx(torch.cat(together).mean().item(), rel=1e-12)


def test_only_the_last_replaced_stream_decides(few):
    found = layered_losses(few, mixed)
    assert found.together == found.each[-1]
    assert len({loss.ce_replaced for loss in found.each}) == 5


def test_references_are_those_of_one_layer(few):
    found = layered_losses(few, torch.clone, layers=(2, 5))
    for loss, layer in zip(found.each, (2, 5), strict=True):
        alone = replaced_losses(few, layer, torch.clone)
        for name in ("ce_clean", "ce_replaced", "ce_zero", "ce_mean", "kl_zero", "kl_mean"):
            assert getattr(loss, name) == pytest.approx(getattr(alone, name), rel=1e-9)
        assert loss.ce_replaced == pytest.approx(loss.ce_clean, rel=1e-12)
        assert loss.kl_replaced == pytest.approx(0, abs=1e-12)
        assert loss.tokens == alone.tokens


def test_a_layer_gets_its_own_reconstruction(few):
    found = layered_losses(few, lambda rows: 0.5 * rows, layers=(1, 4))
    for loss, layer in zip(found.each, (1, 4), strict=True):
        alone = replaced_losses(few, layer, lambda x: 0.5 * x)
        assert loss.ce_replaced == pytest.approx(alone.ce_replaced, rel=1e-12)
        assert loss.kl_replaced == pytest.approx(alone.kl_replaced, rel=1e-9)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda data: layered_losses(data, lambda rows: rows[:, :1]), "stories.reconstruct"),
        (lambda data: layered_losses(data, torch.clone, layers=(3, 2)), "network.layer"),
        (lambda data: layered_losses(data, torch.clone, layers=()), "network.layer"),
        (lambda data: layered_losses(data, torch.clone, layers=(5, 6)), "network.layer"),
    ],
)
def test_faults_are_named(few, call, code):
    with pytest.raises(ConfigError) as caught:
        call(few)
    assert caught.value.code == code


@pytest.mark.float32
def test_single_precision():
    data = StoriesData.from_texts(SHIPPED.texts[:10], SHIPPED.model, SHIPPED.tokenizer)
    found = layered_losses(data, torch.clone)
    assert found.together.ce_replaced == pytest.approx(found.together.ce_clean, rel=1e-6)
    assert layer_streams(data, "heldout").dtype == torch.float32


def test_the_source_of_all_layers_is_an_entry_point():
    written = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    line = 'stories260K-layers = "toys.layer_streams:source"'
    assert line in written
    name, target = (part.strip().strip('"') for part in line.split(" = "))
    assert EntryPoint(name, target, "vsae.sources").load() is source
