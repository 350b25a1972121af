"""The numbers behind the page: scores over seeds, and a row per latent and per contribution."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import torch
from matplotlib.figure import Figure

from toys.reproduce.hsae_contexts_cards import Card, Context, TakenApart, every
from toys.reproduce.hsae_contexts_reading import Hierarchy, Reading
from toys.reproduce.hsae_contexts_settings import Settings
from toys.reproduce.hsae_contexts_text import Window
from toys.reproduce.tables import Cell, Table, interval
from vsae import plots


def scores_table(found: Sequence[Hierarchy], flat: Reading | None, chosen: Settings) -> Table:
    """All H-SAEs together, an interval over seeds each, and the flat SAE."""
    rows = [each.scores(chosen) for each in found]
    columns: list[Mapping[str, Cell]] = [{"of": "H-SAE"} | {n: _over(rows, n) for n in rows[0]}]
    if flat is not None:
        columns.append({"of": "TopK SAE, as many latents, as many active"} | flat.scores())
    names = [name for name in columns[0] if name != "of"]
    turned = [
        {"on held-out rows": name} | {str(column["of"]): column.get(name) for column in columns}
        for name in names
    ]
    return Table("What the page is of, with 95 % intervals over seeds", turned)


def _over(rows: Sequence[Mapping[str, Cell]], name: str) -> Cell:
    values = [row[name] for row in rows]
    if all(isinstance(value, int) for value in values) and len(set(values)) == 1:
        return values[0]
    if not all(isinstance(value, int | float) for value in values):
        return None
    return interval(float(value) for value in values)  # pyright: ignore[reportArgumentType]


def latents_table(found: Hierarchy, shown: Mapping[str, Sequence[Card]]) -> Table:
    """A row per latent: numbers alone, no text, as spreadsheets run what begins with ``=``."""
    counts, parents = found.reading.firings.counts, found.tree.parents().tolist()
    on = {kind: {card.latent for card in every(cards)} for kind, cards in shown.items()}
    rows: list[Mapping[str, Cell]] = [
        {
            "latent": latent,
            "parent": parents[latent],
            "rows": int(counts[latent]),
            "rate": float(counts[latent] / found.reading.firings.rows),
            "atom norm": float(found.reading.norms[latent]),
            "commonest token id": int(found.tokens.commonest[latent]),
            "its share": _cell(found.tokens.share[latent]),
            "link": _cell(found.link[latent]),
            "link of a sibling": _cell(found.sibling[latent]),
        }
        | {f"shown as {kind}": int(latent in members) for kind, members in on.items()}
        for latent in range(found.tree.latents)
    ]
    return Table("Latents", rows)


def _cell(value: float) -> float | None:
    return None if value != value else float(value)


def contributions_table(tokens: Sequence[TakenApart]) -> Table:
    """A row per active latent of a token taken apart: numbers alone."""
    return Table(
        "Tokens taken apart",
        [
            {
                "token": place,
                "row": token.row,
                "model": model.model,
                "latent": part.latent,
                "level": part.level,
                "code": part.z,
                "norm": part.norm,
            }
            for place, token in enumerate(tokens, 1)
            for model in token.models
            for part in model.parts
        ],
    )


def shown_text(shown: Mapping[str, Sequence[Card]], tokens: Sequence[TakenApart]) -> dict:
    """Everything on the page as JSON has it, text included."""
    families = {kind: [_card(card) for card in cards] for kind, cards in shown.items()}
    apart = [_place(t.row, t.window) | {"models": [asdict(m) for m in t.models]} for t in tokens]
    return {"families": families, "tokens": apart}


def _card(card: Card) -> dict:
    return {
        "latent": card.latent,
        "name": card.name,
        **asdict(card.facts),
        "strongest": [_context(context) for context in card.strongest],
        "drawn": [_context(context) for context in card.drawn],
        "silent children": card.silent,
        "children": [_card(child) for child in card.children],
    }


def _context(context: Context) -> dict:
    return {"code": context.z} | _place(context.row, context.window) | {"codes": context.codes}


def _place(row: int, window: Window) -> dict:
    texts = [part.text for part in window.parts]
    return {"row": row, "story": window.story, "texts": texts, "at": window.at}


def rates_figure(found: Hierarchy) -> Figure:
    """Histograms of firing rates: parents, and all below them."""
    rates = found.reading.firings.counts / found.reading.firings.rows
    roots, rows = found.tree.roots, found.reading.firings.rows
    drawn = Figure(figsize=(9, 3), layout="constrained")
    left, right = drawn.subplots(1, 2)
    plots.firing_rate_histogram(left, torch.from_numpy(rates[:roots]), rows=rows, label="parents")
    plots.firing_rate_histogram(right, torch.from_numpy(rates[roots:]), rows=rows, label="children")
    return drawn
