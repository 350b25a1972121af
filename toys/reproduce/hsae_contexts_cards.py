"""What the page says of a latent, and of a token, as values: everything on it, and nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator

from priors.tree import Tree
from toys.reproduce.hsae_contexts_find import Firings, any_roots, worth_reading
from toys.reproduce.hsae_contexts_reading import Hierarchy, Reading
from toys.reproduce.hsae_contexts_settings import Settings
from toys.reproduce.hsae_contexts_text import HeldOutText, Window

PEAKS = 3  # tokens that tell a latent
KINDS = ("Parent", "Child", "Grandchild")  # and all below a grandchild, too


@dataclass(frozen=True)
class Context:
    """A place where a latent fires.

    Args:
        row: Of the held-out activations.
        z: The code there.
        window: The text around it.
        codes: The latent's code at every part of the window, the greatest where it has many rows.
    """

    row: int
    z: float
    window: Window
    codes: tuple[float, ...]


@dataclass(frozen=True)
class Facts:
    """Numbers of a latent; ``None`` where they have no meaning or are not defined.

    Args:
        rows: On which it fires.
        rate: Their share of all.
        share: Of its parent's firings.
        greatest: Code.
        token: At which it fires most often.
        token_share: That token's share of its firings.
        token_share_above: And of its parent's.
        link: Share of the error that it takes away.
        sibling: What a random sibling in its place would.
    """

    rows: int
    rate: float
    share: float | None
    greatest: float
    token: str
    token_share: float
    token_share_above: float | None
    link: float | None
    sibling: float | None


@dataclass(frozen=True)
class Card:
    """A latent, and its children below it, those that fire more first.

    Args:
        latent: Its number.
        name: What it is, and the path to it.
        facts: Numbers.
        strongest: Its greatest codes, one per story.
        drawn: Firings drawn at random.
        children: Those that fire.
        silent: How many do not.
    """

    latent: int
    name: str
    facts: Facts
    strongest: tuple[Context, ...]
    drawn: tuple[Context, ...]
    children: tuple["Card", ...]
    silent: int


@dataclass(frozen=True)
class Contribution:
    """What a latent adds to a reconstruction.

    Args:
        latent: Its number.
        name: As a card's.
        level: 0 for a parent or a latent of a flat SAE.
        z: Its code.
        norm: Of what it adds, in the units the model works in.
        peaks: The tokens where it is strongest, of different stories.
    """

    latent: int
    name: str
    level: int
    z: float
    norm: float
    peaks: tuple[str, ...]


@dataclass(frozen=True)
class Decomposition:
    """A reconstruction taken apart.

    Args:
        model: What it is of.
        explained: Share of the row's squared distance from the mean row.
        parts: Greatest norm first.
    """

    model: str
    explained: float
    parts: tuple[Contribution, ...]


@dataclass(frozen=True)
class TakenApart:
    """A held-out token, and what autoencoders make of it."""

    row: int
    window: Window
    models: tuple[Decomposition, ...]


def name_of(latent: int, tree: Tree) -> str:
    """What a latent is, and the path to it, each step by its place among siblings.

    Example:
        >>> tree = Tree(2, (3,))
        >>> [name_of(latent, tree) for latent in (1, 2, 7)]
        ['Parent 1', 'Child 0.0', 'Child 1.2']
    """
    parents, level, places = tree.parents(), int(tree.levels()[latent]), []
    kind = KINDS[min(level, len(KINDS) - 1)]
    for depth in range(level, 0, -1):
        places.append((latent - tree.offsets[depth]) % tree.branching[depth - 1])
        latent = int(parents[latent])
    return f"{kind} {'.'.join(str(place) for place in (latent, *reversed(places)))}"


class Dealer:
    """Makes cards of latents from what held-out rows show.

    Args:
        found: The H-SAE on held-out rows.
        text: The stories.
        chosen: How much to show.
        generator: Of what is drawn.
    """

    def __init__(
        self, found: Hierarchy, text: HeldOutText, chosen: Settings, generator: Generator
    ) -> None:
        self.found, self.text, self.chosen, self.generator = found, text, chosen, generator
        self.firings, self.tree = found.reading.firings, found.tree
        self._counts, self._parents = self.firings.counts, self.tree.parents().numpy()
        self._levels = self.tree.levels()

    def chosen_roots(self) -> list[int]:
        """By the rule."""
        return worth_reading(self._counts, self.firings.rows, self.tree, self.chosen)

    def drawn_roots(self) -> list[int]:
        """At random."""
        return any_roots(self._counts, self.tree, self.chosen.drawn, self.generator)

    def card(self, latent: int) -> Card:
        """A latent that fires, and all below it that do."""
        count = self.chosen.contexts if self._parents[latent] < 0 else self.chosen.child_contexts
        strongest = self.firings.strongest(latent, self.text.story, count)
        drawn = self.firings.drawn(latent, count, self.generator)
        children = np.flatnonzero(self._parents == latent)
        firing = children[self._counts[children] > 0]
        ordered = firing[np.lexsort((firing, -self._counts[firing]))]
        return Card(
            latent,
            name_of(latent, self.tree),
            self.facts(latent),
            tuple(self.context(latent, row) for row in strongest),
            tuple(self.context(latent, row) for row in drawn),
            tuple(self.card(int(child)) for child in ordered),
            len(children) - len(firing),
        )

    def context(self, latent: int, row: int) -> Context:
        """The text around a row, with the latent's codes in it."""
        window = self.text.window(row, self.chosen.width)
        codes = tuple(max(self.firings.at(latent, part.rows)) for part in window.parts)
        return Context(row, self.firings.at(latent, [row])[0], window, codes)

    def facts(self, latent: int) -> Facts:
        """Numbers of a latent that fires."""
        found, rows, above = self.found, int(self._counts[latent]), int(self._parents[latent])
        token = int(found.tokens.commonest[latent])
        return Facts(
            rows=rows,
            rate=rows / self.firings.rows,
            share=None if above < 0 else rows / int(self._counts[above]),
            greatest=float(self.firings.on(latent)[1].max()),
            token=self.text.name(token),
            token_share=float(found.tokens.share[latent]),
            token_share_above=None if above < 0 else float(found.tokens.shares[token, above]),
            link=_defined(found.link[latent]),
            sibling=_defined(found.sibling[latent]),
        )

    def taken_apart(self, flat: Reading | None) -> list[TakenApart]:
        """Held-out tokens drawn at random, all alike."""
        order = torch.randperm(self.firings.rows, generator=self.generator)
        rows = sorted(order[: self.chosen.tokens].tolist())
        return [self._taken_apart(row, flat) for row in rows]

    def _taken_apart(self, row: int, flat: Reading | None) -> TakenApart:
        models = [decomposition("H-SAE", self.found.reading, row, self._named, self.text)]
        if flat is not None:
            models.append(decomposition("TopK SAE", flat, row, _numbered, self.text))
        return TakenApart(row, self.text.window(row, self.chosen.width), tuple(models))

    def _named(self, latent: int) -> tuple[str, int]:
        return name_of(latent, self.tree), int(self._levels[latent])


def _numbered(latent: int) -> tuple[str, int]:
    return f"Latent {latent}", 0


def decomposition(
    model: str,
    reading: Reading,
    row: int,
    named: Callable[[int], tuple[str, int]],
    text: HeldOutText,
) -> Decomposition:
    """Everything that is active at a row, the greatest contribution first.

    Args:
        model: What the page calls it.
        reading: Of it.
        row: Of held-out activations.
        named: The name and level of a latent.
        text: The stories.
    """
    codes = reading.firings.codes[[row], :].tocoo()
    parts = [
        Contribution(
            int(latent),
            *named(int(latent)),
            float(z),
            abs(float(z)) * float(reading.norms[latent]),
            peaks(reading.firings, int(latent), text),
        )
        for latent, z in zip(codes.col, codes.data, strict=True)
    ]
    ordered = sorted(parts, key=lambda part: (-part.norm, part.latent))
    return Decomposition(model, float(reading.explained[row]), tuple(ordered))


def peaks(firings: Firings, latent: int, text: HeldOutText) -> tuple[str, ...]:
    """The distinct tokens at a latent's strongest rows, one per story."""
    rows = firings.strongest(latent, text.story, 4 * PEAKS)
    return tuple(dict.fromkeys(text.token(row) for row in rows))[:PEAKS]


def every(cards: Sequence[Card]) -> list[Card]:
    """Cards and all below them."""
    return [each for card in cards for each in (card, *every(card.children))]


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
