"""Contexts, families and tokens taken apart as HTML; every string of the data is escaped here."""

import math
from collections.abc import Sequence
from html import escape

from toys.reproduce.hsae_contexts_cards import Card, Context, Decomposition, Facts, TakenApart
from toys.reproduce.hsae_contexts_style import LEVELS
from toys.reproduce.hsae_contexts_text import Part, Window
from toys.reproduce.tables import number


def percent(share: float) -> str:
    """A share, to three digits.

    Example:
        >>> percent(0.01234), percent(-0.5)
        ('1.23 %', '−50 %')
    """
    return f"{number(100 * share)} %".replace("-", "−")


def level(z: float, greatest: float) -> int:
    """How strongly a firing is shown: from 1 to 5, in equal steps of the latent's greatest code.

    Example:
        >>> [level(z, 10.0) for z in (0.1, 2.0, 2.1, 10.0)]
        [1, 1, 2, 5]
    """
    if not greatest > 0:
        return 1
    return min(max(math.ceil(LEVELS * z / greatest), 1), LEVELS)


def story(window: Window, codes: Sequence[float], greatest: float) -> str:
    """The text of a window; where the latent fires it is marked, and framed where it is about."""
    marked = "".join(
        _marked(part, z, greatest, here=place == window.at)
        for place, (part, z) in enumerate(zip(window.parts, codes, strict=True))
    )
    before, after = "…" * window.before, "…" * window.after
    return f'<span class="story">{before}{marked}{after}</span>'


def _marked(part: Part, z: float, greatest: float, *, here: bool) -> str:
    if not z and not here:
        return escape(part.text)
    text = part.text.lstrip(" ")  # the line under a word begins with the word
    space, text = (part.text[: len(part.text) - len(text)], text) if text else ("", "␣")
    kind = f"a{level(z, greatest)}" + " here" * here
    return f'{space}<mark class="{kind}">{escape(text)}</mark>'


def contexts(found: Sequence[Context], greatest: float) -> str:
    """A list of them, each after the code of the framed token."""
    items = "\n".join(
        f'<li><span class="code">{escape(number(c.z))}</span>'
        f"{story(c.window, c.codes, greatest)}</li>"
        for c in found
    )
    return f'<ol class="contexts">\n{items}\n</ol>'


def facts(about: Facts, *, above: str = "parent") -> str:
    """What numbers say, in words."""
    said = [f"fires on {percent(about.rate)} of tokens ({about.rows} rows)"]
    if about.share is not None:
        said.append(f"{percent(about.share)} of its {above}’s firings")
    token = f"commonest token {about.token}: {percent(about.token_share)} of its firings"
    if about.token_share_above is not None:
        token += f" ({percent(about.token_share_above)} of its {above}’s)"
    said.append(token)
    if about.link is not None:
        link = f"takes away {percent(about.link)} of the error"
        if about.sibling is not None:
            link += f" (a random sibling in its place: {percent(about.sibling)})"
        said.append(link)
    return f'<p class="facts">{escape("; ".join(said))}.</p>'


def family(card: Card, *, anchor: str, unfolded: int, deep: int = 0) -> str:
    """A latent's contexts, and beneath it, indented, those of its children."""
    head = min(3 + deep, 6)
    title = f'<h{head} id="{escape(anchor)}">{escape(card.name)}</h{head}>'
    return "\n".join(
        [
            title,
            facts(card.facts),
            contexts(card.strongest, card.facts.greatest),
            _folded(
                f"{len(card.drawn)} of its firings, drawn at random",
                contexts(card.drawn, card.facts.greatest),
            ),
            _children(card, anchor=anchor, unfolded=unfolded, deep=deep),
        ]
    )


def _children(card: Card, *, anchor: str, unfolded: int, deep: int) -> str:
    if not card.children and not card.silent:
        return ""
    shown = [
        family(child, anchor=f"{anchor}-{child.latent}", unfolded=unfolded, deep=deep + 1)
        for child in card.children
    ]
    rest, parts = shown[unfolded:], shown[:unfolded]
    if rest:
        word = "child that fires" if len(rest) == 1 else "children that fire"
        parts.append(_folded(f"{len(rest)} more {word} less", "\n".join(rest)))
    if card.silent:
        word = "child never fires" if card.silent == 1 else "children never fire"
        parts.append(f'<p class="facts">{card.silent} {word} on held-out text.</p>')
    return '<div class="children">\n' + "\n".join(parts) + "\n</div>"


def _folded(summary: str, inside: str) -> str:
    return f"<details>\n<summary>{escape(summary)}</summary>\n{inside}\n</details>"


def families(cards: Sequence[Card], *, kind: str, unfolded: int) -> list[str]:
    """Links to the families, then each in an article of its own."""
    links = "\n".join(
        f'<li><a href="#{kind}-{card.latent}">{escape(card.name)}</a>: '
        f"{escape(card.facts.token)}, {percent(card.facts.rate)}</li>"
        for card in cards
    )
    listed = f'<nav aria-label="Parents, {escape(kind)}">\n<ul>\n{links}\n</ul>\n</nav>'
    articles = [
        "<article>\n"
        + family(card, anchor=f"{kind}-{card.latent}", unfolded=unfolded)
        + "\n</article>"
        for card in cards
    ]
    return [listed, *articles]


def taken_apart(token: TakenApart, place: int) -> str:
    """A token in its context, and a table per autoencoder."""
    codes = [float(at == token.window.at) for at in range(len(token.window.parts))]
    tables = "\n".join(_decomposition(model) for model in token.models)
    return (
        f"<article>\n<h3>Token {place}</h3>\n"
        f'<ol class="contexts">\n<li>{story(token.window, codes, 1.0)}</li>\n</ol>\n'
        f"{tables}\n</article>"
    )


def _decomposition(found: Decomposition) -> str:
    rows = "\n".join(
        f"<tr><td>{'↳ ' * part.level}{escape(part.name)}</td>"
        f"<td>{escape(number(part.norm))}</td><td>{escape(number(part.z))}</td>"
        f'<td class="peaks">{escape(", ".join(part.peaks))}</td></tr>'
        for part in found.parts
    )
    caption = f"{found.model}: explains {percent(found.explained)} of this row"
    head = "".join(f'<th scope="col">{name}</th>' for name in ("latent", "norm", "code"))
    head += '<th scope="col" class="peaks">strongest at</th>'
    return (
        f'<div class="wide"><table>\n<caption>{escape(caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>"
    )
