"""The tokenizer: nothing is lost, and the tokens are those of the plain merging rule."""

import json
import struct
from importlib.resources import files

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from priors.errors import ConfigError
from toys.network import StoriesTransformer
from toys.tokenizer import BOS, Tokenizer

DATA = files("toys").joinpath("data")
RAW = DATA.joinpath("lm", "tok512.bin").read_bytes()
STORIES = json.loads(DATA.joinpath("text", "tinystories_1000.json").read_text(encoding="utf-8"))
TOKENIZER = Tokenizer.load()

# Half of it like stories (so that pairs merge, spaces double and end), half of it anything.
words = st.sampled_from(
    [" ", "  ", "the", "Once", "upon", "â", "’", "\n", "<s>", "<0x0A>", "<unk>"]
)
texts = st.one_of(st.text(), st.lists(st.one_of(words, st.text(max_size=2))).map("".join))


def oracle():
    """The vocabulary of the file, read by steps of the format, without our reader."""
    at, vocabulary = 4, []
    for _ in range(512):
        score, length = struct.unpack("<fi", RAW[at : at + 8])
        vocabulary.append((RAW[at + 8 : at + 8 + length], score))
        at += 8 + length
    assert at == len(RAW)
    return vocabulary


def merge(text, vocabulary):
    """The rule on the whole text at once: merge the best pair, the leftmost of equals."""
    ids = {piece: i for i, (piece, _) in enumerate(vocabulary) if i > 258}
    tokens = []
    for character in " " + text if text else "":
        raw = character.encode()
        tokens += [ids[raw]] if raw in ids else [byte + 3 for byte in raw]
    while True:
        best, where = -1e10, None
        for at in range(len(tokens) - 1):
            a, b = tokens[at : at + 2]
            joined = ids.get(vocabulary[a][0] + vocabulary[b][0]) if min(a, b) > 258 else None
            if joined is not None and vocabulary[joined][1] > best:
                best, where = vocabulary[joined][1], (at, joined)
        if where is None:
            return [1, *tokens]
        tokens[where[0] : where[0] + 2] = [where[1]]


VOCABULARY = oracle()


@given(texts)
def test_no_text_is_lost(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(texts)
def test_tokens_are_those_of_the_rule(text):
    assert TOKENIZER.encode(text) == merge(text, VOCABULARY)


def test_stories():
    assert len(STORIES) == 1000
    assert all(TOKENIZER.decode(TOKENIZER.encode(story)) == story for story in STORIES)
    for story in STORIES[::100]:
        assert TOKENIZER.encode(story[:300]) == merge(story[:300], VOCABULARY)


def test_the_model_writes_the_tokens_we_read():
    # The model learned from the tokens of the original tokenizer, and writes as it learned.
    golden = json.loads(DATA.joinpath("lm", "golden_greedy.json").read_text())["text"]
    written = StoriesTransformer.load().greedy(torch.tensor([[BOS]]), 200)[0].tolist()
    assert TOKENIZER.encode(golden) == written


def test_pieces_and_bytes():
    assert TOKENIZER.encode("") == [BOS]
    assert TOKENIZER.encode("\x00")[-1] == 3
    assert TOKENIZER.piece(BOS) == "<s>"
    assert TOKENIZER.piece(13) == "\n"
    assert TOKENIZER.piece(3 + 0xE2) == "<0xE2>"
    assert TOKENIZER.decode([3 + 0xE2, 3 + 0x82, 3 + 0xAC]) == "€"
    assert TOKENIZER.decode([3 + 0xE2, 3 + 0x41]) == "\ufffdA"
    assert TOKENIZER.decode([403, 407]) == " Once upon"
    assert TOKENIZER.decode([BOS, 403, 407]) == "Once upon"


def test_a_lone_surrogate_is_refused():
    with pytest.raises(UnicodeEncodeError):
        TOKENIZER.encode("a\ud800")


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: Tokenizer.from_bytes(RAW[:-1]), "tokenizer.file"),
        (lambda: Tokenizer.from_bytes(RAW + b"\0\0"), "tokenizer.file"),
        (lambda: Tokenizer.from_bytes(RAW[:102]), "tokenizer.file"),
        (lambda: Tokenizer.from_bytes(b""), "tokenizer.vocabulary"),
        (lambda: Tokenizer([b"x"] * 259, [0.0] * 258), "tokenizer.vocabulary"),
        (lambda: Tokenizer([b"x"] * 259 + [b"a b"], [0.0] * 260), "tokenizer.vocabulary"),
    ],
)
def test_wrong_input_is_a_typed_error(call, code):
    with pytest.raises(ConfigError) as caught:
        call()
    assert caught.value.code == code
