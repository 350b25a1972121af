"""Rows, splits and activations of the real network, against one story read at a time."""

import hashlib
import inspect
from importlib.metadata import EntryPoint
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from priors.errors import ConfigError
from toys.network import StoriesTransformer
from toys.stories import StoriesData, source
from toys.tokenizer import BOS

DATA = StoriesData.load()
SPLITS = ("train", "heldout")


@pytest.fixture(scope="module")
def few():
    """Twenty stories and a text without a token, in float64."""
    model = StoriesTransformer.load(torch.float64)
    return StoriesData.from_texts((*DATA.texts[:20], ""), model, DATA.tokenizer)


def test_shipped_files_are_those_of_the_notice():
    folder = files("toys").joinpath("data")
    lines = folder.joinpath("NOTICE.md").read_text(encoding="utf-8").splitlines()
    sums = [line.split("  ") for line in lines if len(line.split("  ")[0]) == 64]
    root = Path(str(folder))
    shipped = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}
    assert sorted(name for _, name in sums) == sorted(shipped - {"NOTICE.md"})
    for digest, name in sums:
        assert hashlib.sha256(folder.joinpath(name).read_bytes()).hexdigest() == digest


def test_splits_share_no_story():
    train, heldout = (set(DATA.stories(split)) for split in SPLITS)
    assert train | heldout == set(range(1000))
    assert not train & heldout
    assert len(heldout) == 100
    assert not {DATA.texts[i] for i in train} & {DATA.texts[i] for i in heldout}


@pytest.mark.parametrize("split", SPLITS)
def test_rows_are_all_tokens_but_bos(split):
    rows, tokens = DATA.rows(split), DATA.row_tokens(split)
    assert len(rows) == len(tokens) == sum(len(DATA.tokens[i]) - 1 for i in DATA.stories(split))
    assert (rows[:, 1] > 0).all()
    assert not (tokens == BOS).any()
    for row in range(0, len(rows), 9_973):
        story, at = rows[row].tolist()
        assert DATA.tokens[story][at] == tokens[row]
    assert max(len(t) for t in DATA.tokens) == DATA.model.sizes.context


@pytest.mark.parametrize("layer", [0, 2, 5])
@pytest.mark.parametrize("split", SPLITS)
def test_activations_are_those_of_each_story_alone(few, layer, split):
    alone = [few.model.residuals(few.tokens[i][None])[layer, 0, 1:] for i in few.stories(split)]
    got = few.activations(layer, split)
    assert few.activations(layer, split) is got
    assert got.shape == (len(few.rows(split)), 64)
    torch.testing.assert_close(got, torch.cat(alone), rtol=0, atol=1e-11)


def test_shipped_activations_are_float32_whatever_the_default_dtype():
    assert torch.get_default_dtype() == torch.float64
    x = DATA.activations(1, "heldout")
    assert x.dtype == torch.float32
    assert x.shape == (len(DATA.rows("heldout")), 64)
    assert not x.requires_grad
    assert x.isfinite().all()


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_batches_cover_a_split_once(size):
    batches = list(DATA.batches("heldout", size))
    assert sorted(i for batch in batches for i in batch.stories) == DATA.stories("heldout")
    for batch in batches:
        assert batch.mask.sum(1).tolist() == [len(DATA.tokens[i]) for i in batch.stories]
        assert (batch.rows.sum(1) == batch.mask.sum(1) - 1).all()
        for i, tokens, mask in zip(batch.stories, batch.tokens, batch.mask, strict=True):
            assert torch.equal(tokens[mask], DATA.tokens[i])


def test_bos_has_one_stream_of_outlying_norm():
    # What the documentation says of layer 2, the default of `source`.
    bos = DATA.model.stream(torch.tensor([[BOS]]), 2).norm()
    norms = DATA.activations(2, "heldout").norm(dim=-1)
    assert 10.3 < bos < 10.4
    assert norms.quantile(0.999) < 8.4 < bos


def test_context_is_the_text_around_a_row():
    before, token, after = DATA.context(3, "heldout", width=1000)
    story = int(DATA.rows("heldout")[3, 0])
    assert (before, token) == ("One day,", " a")
    assert len(after) > 500
    assert DATA.texts[story].startswith(before + token + after)
    assert DATA.context(0, "train", width=2) == ("", " One", " day,")


def test_source_serves_the_entry_point():
    assert EntryPoint("stories260K", "toys.stories:source", "vsae.sources").load() is source
    assert inspect.signature(source).parameters["layer"].default == 2
    assert source(0) is DATA.activations(0, "train")


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda few: few.activations(6), "network.layer"),
        (lambda few: few.from_texts(["a"] * 9, few.model, few.tokenizer).stories("heldout"),
         "stories.split"),
    ],
)  # fmt: skip
def test_wrong_input_is_a_typed_error(few, call, code):
    with pytest.raises(ConfigError) as caught:
        call(few)
    assert caught.value.code == code
