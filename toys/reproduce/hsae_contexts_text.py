"""Held-out text as a page can show it: whole characters, nothing invisible, no other story."""

import codecs
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from toys.stories import StoriesData
from toys.tokenizer import Tokenizer


@dataclass(frozen=True)
class Piece:
    """Some whole characters.

    Args:
        text: As the tokens have it.
        tokens: Where in the story the tokens stand that they are of; more than one where the bytes
            of a character are tokens of their own.
    """

    text: str
    tokens: range


def pieces(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[Piece]:
    """A story cut between tokens, but never inside a character; bytes that are none are U+FFFD.

    Example:
        >>> tokenizer = Tokenizer.load()
        >>> [piece.text for piece in pieces(tokenizer, tokenizer.encode("Once 好")[1:])]
        [' Once', ' ', '好']
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    found, first, text = [], 0, ""
    for at, token in enumerate(tokens):
        text += decoder.decode(tokenizer.raw(token), final=at == len(tokens) - 1)
        if not decoder.getstate()[0]:  # no bytes wait for more
            found.append(Piece(text, range(first, at + 1)))
            first, text = at + 1, ""
    return found


def visible(text: str) -> str:
    r"""``text`` with line breaks as ↵, and every character that has no form of its own as its code.

    Control characters are not allowed in HTML, and those that turn the direction of writing would
    make a page say what it does not.

    Example:
        >>> visible("a\n\x00\u202eb")
        'a↵⟨U+0000⟩⟨U+202E⟩b'
    """
    return "".join(map(_form, text))


def _form(character: str) -> str:
    if character == "\n":
        return "↵"
    kind = unicodedata.category(character)
    if kind[0] == "C" or kind in ("Zl", "Zp"):
        return f"⟨U+{ord(character):04X}⟩"
    return character


def quoted(text: str) -> str:
    """A token by itself: visible, and its spaces too."""
    return "“" + visible(text).replace(" ", "␣") + "”"


@dataclass(frozen=True)
class Part:
    """A piece of a window.

    Args:
        text: Visible.
        rows: The rows of held-out activations that were read at it.
    """

    text: str
    rows: range


@dataclass(frozen=True)
class Window:
    """The text around one row, of its story alone.

    Args:
        story: Which.
        parts: In order.
        at: Which of them the row is in.
        before: Whether the story has text before the first part.
        after: Whether it has text after the last.
    """

    story: int
    parts: tuple[Part, ...]
    at: int
    before: bool
    after: bool


class HeldOutText:
    """The held-out stories, by row of their activations.

    Args:
        data: Only its held-out split is read.
    """

    def __init__(self, data: StoriesData) -> None:
        self._data = data
        self._rows = data.rows("heldout").numpy()
        self.story: np.ndarray = self._rows[:, 0]
        self.tokens: np.ndarray = data.row_tokens("heldout").numpy()
        self.pieces = cache(self._pieces)

    def _pieces(self, story: int) -> list[Piece]:
        """Of a story, BOS left out, which is no row."""
        tokens = self._data.tokens[story].tolist()
        return pieces(self._data.tokenizer, tokens[1:])

    def window(self, row: int, width: int) -> Window:
        """The text around a row, ``width`` pieces on either side at most."""
        everything, here = self._place(row)
        first = row - self._position(row)
        low, high = max(here - width, 0), min(here + width + 1, len(everything))
        parts = tuple(
            Part(visible(p.text), range(first + p.tokens.start, first + p.tokens.stop))
            for p in everything[low:high]
        )
        return Window(int(self.story[row]), parts, here - low, low > 0, high < len(everything))

    def token(self, row: int) -> str:
        """The piece that a row was read at, in quotes."""
        everything, here = self._place(row)
        return quoted(everything[here].text)

    def _place(self, row: int) -> tuple[list[Piece], int]:
        """The pieces of a row's story, and which of them the row is in."""
        everything, position = self.pieces(int(self.story[row])), self._position(row)
        return everything, next(i for i, p in enumerate(everything) if position in p.tokens)

    def _position(self, row: int) -> int:
        return int(self._rows[row, 1]) - 1  # BOS is not among the pieces

    def name(self, token: int) -> str:
        """A token of the vocabulary, in quotes."""
        return quoted(self._data.tokenizer.piece(token))
