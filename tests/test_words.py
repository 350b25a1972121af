"""Nouns and the synsets above them, against the file read by hand; bad files are typed errors."""

import csv
import inspect
import math
from importlib.metadata import EntryPoint
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from toys.words import WordNouns, source
from vsae.errors import DataError

FOLDER = Path(str(files("toys"))) / "data" / "words"
NOUNS = WordNouns.load()


@pytest.fixture(scope="module")
def rows():
    with open(FOLDER / "wordnet_nouns.tsv", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_every_word_has_the_path_and_the_vector_of_the_files(rows):
    with np.load(FOLDER / "glove6B_50d.npz", allow_pickle=False) as archive:
        place = {word: i for i, word in enumerate(archive["words"].tolist())}
        vectors = archive["vectors"]
    assert NOUNS.words == tuple(row["word"] for row in rows)
    depth = NOUNS.depth
    for i, row in enumerate(rows):
        path, at = [], int(NOUNS.node[i])
        assert depth[at] == int(row["depth"])
        assert NOUNS.nodes[at].endswith("." + row["synset_offset_wn30"])
        while at >= 0:
            path.append(NOUNS.nodes[at])
            at = int(NOUNS.parents[at])
        assert ">".join(path[::-1]) == row["hypernym_path"]
        assert torch.equal(NOUNS.vectors[i], torch.from_numpy(vectors[place[row["word"]]]))
        assert bool(NOUNS.clean[i]) == (row["clean"] == "1")


def test_a_forest_with_parents_first():
    assert (NOUNS.parents < torch.arange(len(NOUNS.nodes))).all()
    assert (NOUNS.parents == -1).sum() == 1
    assert len(set(NOUNS.nodes)) == len(NOUNS.nodes)
    assert NOUNS.graph.num_components == 1
    assert NOUNS.graph.num_edges == len(NOUNS.nodes) - 1


def test_words_below_a_node_are_those_with_it_on_their_path(rows):
    members = NOUNS.members()
    for name in ("entity.00001740", "animal.00015388", "feline.02120997", "sofa.04256520"):
        expected = [name in row["hypernym_path"].split(">") for row in rows]
        node = NOUNS.nodes.index(name)
        assert members[:, node].tolist() == expected
        assert NOUNS.below(node).tolist() == np.flatnonzero(expected).tolist()
    assert torch.equal(members.sum(1), NOUNS.depth[NOUNS.node] + 1)


@pytest.mark.parametrize("least", [1, 10, 50])
@pytest.mark.parametrize("nouns", [NOUNS, NOUNS.trusted()], ids=["all", "trusted"])
def test_concepts_are_the_distinct_sets_of_words(nouns, least):
    concepts, members = nouns.concepts(least), nouns.members()
    found = {tuple(column) for column in concepts.members.mT.tolist()}
    chains = {tuple(column) for column in members.mT.tolist() if sum(column) >= least}
    assert found == chains  # every set of words, once
    assert len(found) == len(concepts.names)
    for i, name in enumerate(concepts.names):
        node = nouns.nodes.index(name)
        assert torch.equal(concepts.members[:, i], members[:, node])
        above = node
        while (above := int(nouns.parents[above])) >= 0 and nouns.nodes[
            above
        ] not in concepts.names:
            pass
        parent = int(concepts.parents[i])
        assert (parent < 0) == (above < 0)
        if parent >= 0:
            assert parent < i
            assert concepts.names[parent] == nouns.nodes[above]
            wider = concepts.members[:, parent]
            assert (wider | ~concepts.members[:, i]).all()  # a child's words are its parent's
            assert wider.sum() > concepts.members[:, i].sum()


def test_trusted_words_are_a_subset_with_their_own_vectors():
    trusted = NOUNS.trusted()
    assert 500 < len(trusted.words) < len(NOUNS.words)
    assert trusted.clean.all()
    for i in range(0, len(trusted.words), 97):
        j = NOUNS.words.index(trusted.words[i])
        assert NOUNS.clean[j]
        assert trusted.node[i] == NOUNS.node[j]
        assert torch.equal(trusted.vectors[i], NOUNS.vectors[j])


@pytest.mark.parametrize("nouns", [NOUNS, NOUNS.trusted()], ids=["all", "trusted"])
def test_views_are_words_of_one_synset_and_sisters_of_one_parent(nouns):
    node, parent = nouns.node.tolist(), nouns.parents[nouns.node].tolist()
    count = range(len(node))
    views = [[i, j] for i in count for j in count[i + 1 :] if node[i] == node[j]]
    sisters = [
        [i, j]
        for i in count
        for j in count[i + 1 :]
        if parent[i] == parent[j] >= 0 and node[i] != node[j]
    ]
    assert nouns.views().tolist() == views
    assert nouns.sisters().tolist() == sisters
    assert {nouns.words[i] for i in nouns.views().flatten()} >= {"couch", "sofa"}


def test_views_are_nearer_than_sisters_and_those_than_any_words():
    """Mean cosines, by 3 standard errors: the truth has to do with the vectors."""
    unit = torch.nn.functional.normalize(NOUNS.vectors.double(), dim=-1)
    views, sisters = (
        (unit[a] * unit[b]).sum(-1) for a, b in (NOUNS.views().mT, NOUNS.sisters().mT)
    )
    error = [n.std() / len(n) ** 0.5 for n in (views, sisters)]
    assert views.mean() - sisters.mean() > 3 * math.hypot(*error)
    assert sisters.mean() - (unit @ unit.mT).mean() > 3 * error[1]


def test_source_serves_the_entry_point():
    assert EntryPoint("glove-nouns", "toys.words:source", "vsae.sources").load() is source
    assert not inspect.signature(source).parameters
    assert torch.equal(source(), NOUNS.vectors)
    assert source().dtype == torch.float32
    settings = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert 'glove-nouns = "toys.words:source"' in settings
    for licence in ("toy/LICENSE", "words/WORDNET_LICENSE.txt"):
        assert f'"toys/data/{licence}"' in settings
        assert (FOLDER.parent / licence).is_file()


HEADER = "word\tclean\thypernym_path\n"
GOOD = HEADER + "cat\t1\tentity.1>cat.2\n" + "pup\t0\tentity.1>dog.3\n"
TWO = np.zeros((2, 3), dtype=np.float32)


def written(folder, *, words=("cat", "pup"), vectors=TWO, table=GOOD):
    np.savez(folder / "vectors.npz", words=np.array(words), vectors=vectors)
    (folder / "nouns.tsv").write_text(table, encoding="utf-8")
    return folder / "vectors.npz", folder / "nouns.tsv"


def test_files_of_ones_own(tmp_path):
    nouns = WordNouns.from_files(*written(tmp_path))
    assert nouns.words == ("cat", "pup")
    assert nouns.nodes == ("entity.1", "cat.2", "dog.3")
    assert nouns.parents.tolist() == [-1, 0, 0]
    assert nouns.sisters().tolist() == [[0, 1]]
    assert not len(nouns.views())


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"words": ("cat", "cow")}, "words.file"),
        ({"words": ("cat",)}, "words.file"),
        ({"words": np.array(["cat", None], dtype=object)}, "words.file"),  # would be a pickle
        ({"vectors": TWO.astype(int)}, "words.file"),
        ({"vectors": TWO[0]}, "words.file"),
        ({"vectors": TWO * np.nan}, "data.nonfinite"),
        ({"table": HEADER}, "words.file"),
        ({"table": "word\tclean\ncat\t1\n"}, "words.file"),
        ({"table": HEADER + "cat\t1\n"}, "words.file"),
        ({"table": GOOD + "cat\t1\tcat.2\n"}, "words.forest"),
        ({"table": GOOD + "cat\t1\tentity.1>dog.3>cat.2\n"}, "words.forest"),
    ],
)
def test_wrong_files_are_typed_errors(tmp_path, changes, code):
    with pytest.raises(DataError) as caught:
        WordNouns.from_files(*written(tmp_path, **changes))
    assert caught.value.code == code


def test_missing_and_damaged_files_are_typed_errors(tmp_path):
    vectors, table = written(tmp_path)
    for first, second in (
        (tmp_path / "no.npz", table),
        (vectors, tmp_path / "no.tsv"),
        (table, table),
        (vectors, vectors),
    ):
        with pytest.raises(DataError) as caught:
            WordNouns.from_files(first, second)
        assert caught.value.code == "words.file"
    vectors.write_bytes(vectors.read_bytes()[:100])
    with pytest.raises(DataError) as caught:
        WordNouns.from_files(vectors, table)
    assert caught.value.code == "words.file"
