"""The tokenizer of the shipped language model: greedy byte-pair merging with byte fallback."""

import re
import struct
from collections.abc import Iterable
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise

from priors.errors import ConfigError

BOS, EOS = 1, 2
_FIRST_BYTE, _FIRST_PIECE = 3, 259


class Tokenizer:
    r"""Byte-pair encoding that merges, again and again, the adjacent pair of the highest score.

    Text is prefixed with one space, cut into characters, each a token of its own if the vocabulary
    has it and its UTF-8 bytes (token ``byte + 3``) otherwise; the leftmost of equal scores merges
    first. No text is lost: ``decode(encode(text)) == text``.

    Args:
        pieces: The bytes of every token: unknown, BOS, EOS, 256 bytes, then the vocabulary.
        scores: The merge priority of every token; higher merges first.

    Raises:
        ConfigError: ``tokenizer.vocabulary`` if the lists do not describe such a vocabulary.

    Example:
        >>> tokenizer = Tokenizer.load()
        >>> tokenizer.encode("Once upon a time")
        [1, 403, 407, 261, 378]
        >>> [tokenizer.piece(token) for token in (403, 407, 261)]
        [' Once', ' upon', ' a']

    Source:
        Kudo and Richardson (2018), *SentencePiece*; file format of Karpathy's llama2.c.
    """

    def __init__(self, pieces: list[bytes], scores: list[float]) -> None:
        _check(pieces, scores)
        self.pieces, self.scores = tuple(pieces), tuple(scores)
        # Control and byte tokens are spelled like text ("<0x0A>") but never match text.
        self._ids = {piece: i for i, piece in enumerate(pieces) if i >= _FIRST_PIECE}
        self._encode_word = lru_cache(maxsize=65_536)(self._merge)

    @classmethod
    def load(cls) -> "Tokenizer":
        """The 512-token vocabulary that ships with this package."""
        raw = files("toys").joinpath("data", "lm", "tok512.bin").read_bytes()
        return cls.from_bytes(raw)

    @classmethod
    def from_bytes(cls, raw: bytes) -> "Tokenizer":
        """A llama2.c tokenizer file: int32 longest length; per token float32, int32, bytes.

        Raises:
            ConfigError: ``tokenizer.file`` if the bytes end early.
        """
        pieces, scores, at = [], [], 4
        while at < len(raw):
            if at + 8 > len(raw):
                raise _truncated(len(raw), at + 8)
            score, length = struct.unpack_from("<fi", raw, at)
            at += 8 + length
            if length < 0 or at > len(raw):
                raise _truncated(len(raw), at)
            scores.append(score)
            pieces.append(raw[at - length : at])
        return cls(pieces, scores)

    def encode(self, text: str) -> list[int]:
        """BOS, then the tokens of ``text``.

        Raises:
            UnicodeEncodeError: If ``text`` holds a lone surrogate, which UTF-8 cannot write.
        """
        # No piece has a space after another character, so no merge crosses these borders.
        words = re.findall(r" *[^ ]+| +", " " + text) if text else []
        return [BOS, *(token for word in words for token in self._encode_word(word))]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of ``tokens``; the space in front of the text goes if they begin with BOS.

        Bytes that are not UTF-8, which a model may write, become U+FFFD.
        """
        tokens = list(tokens)
        raw = b"".join(map(self.raw, tokens))
        if tokens[:1] == [BOS]:
            raw = raw.removeprefix(b" ")
        return raw.decode("utf-8", errors="replace")

    def piece(self, token: int) -> str:
        """How one token reads in a table or dashboard: its text, or its name if it is no text."""
        raw = self.pieces[token]
        if token < _FIRST_BYTE:
            return raw.decode().strip()
        if token < _FIRST_PIECE:
            value = token - _FIRST_BYTE
            return chr(value) if value < 128 else raw.decode()
        return raw.decode("utf-8", errors="replace")

    def raw(self, token: int) -> bytes:
        """The bytes a token writes; none for unknown, BOS and EOS. They need not be UTF-8."""
        if token < _FIRST_BYTE:
            return b""
        return bytes([token - _FIRST_BYTE]) if token < _FIRST_PIECE else self.pieces[token]

    def _merge(self, word: str) -> tuple[int, ...]:
        tokens: list[int] = []
        for character in word:
            raw = character.encode()
            known = self._ids.get(raw)
            tokens += [byte + _FIRST_BYTE for byte in raw] if known is None else [known]
        while (best := self._best_pair(tokens)) is not None:
            at, merged = best
            tokens[at : at + 2] = [merged]
        return tuple(tokens)

    def _best_pair(self, tokens: list[int]) -> tuple[int, int] | None:
        pairs = (
            (at, self._ids[joined])
            for at, (a, b) in enumerate(pairwise(tokens))
            if min(a, b) >= _FIRST_PIECE
            and (joined := self.pieces[a] + self.pieces[b]) in self._ids
        )
        return max(pairs, key=lambda pair: self.scores[pair[1]], default=None)


def _check(pieces: list[bytes], scores: list[float]) -> None:
    inner_space = [piece for piece in pieces[_FIRST_PIECE:] if re.search(rb"[^ ] ", piece)]
    if len(pieces) == len(scores) and len(pieces) >= _FIRST_PIECE and not inner_space:
        return
    raise ConfigError(
        f"not a vocabulary: got {len(pieces)} pieces, {len(scores)} scores and pieces with an "
        f"inner space {inner_space[:3]}, expected equal numbers >= {_FIRST_PIECE} and none. "
        "Train the tokenizer with whitespace splitting and byte fallback.",
        code="tokenizer.vocabulary",
        context={"pieces": len(pieces), "scores": len(scores), "inner_space": inner_space[:3]},
    )


def _truncated(got: int, expected: int) -> ConfigError:
    return ConfigError(
        f"not a llama2.c tokenizer: got {got} bytes, expected at least {expected}. "
        "Download it again.",
        code="tokenizer.file",
        context={"got": got, "expected": expected},
    )
