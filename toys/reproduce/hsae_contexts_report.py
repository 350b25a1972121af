"""Running ``hsae-contexts`` and writing what it found."""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

from toys.reproduce import arguments, html
from toys.reproduce.hsae_contexts_cards import Card, Dealer, TakenApart
from toys.reproduce.hsae_contexts_reading import Hierarchy, Reading
from toys.reproduce.hsae_contexts_runs import DRAWN, Models, listed, loaded, stories, trained
from toys.reproduce.hsae_contexts_settings import Settings, settings
from toys.reproduce.hsae_contexts_style import STYLE
from toys.reproduce.hsae_contexts_tables import (
    contributions_table,
    latents_table,
    rates_figure,
    scores_table,
    shown_text,
)
from toys.reproduce.hsae_contexts_text import HeldOutText
from toys.reproduce.hsae_contexts_words import TITLE, sections
from toys.reproduce.processes import one_thread
from toys.reproduce.tables import Table
from toys.stories import StoriesData
from vsae.batches import stream
from vsae.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Page:
    """All there is to write.

    Args:
        hierarchy: The H-SAE that is shown.
        shown: Cards of parents, by how they came to be shown.
        tokens: Taken apart.
        tables: By the stem of their files.
    """

    hierarchy: Hierarchy
    shown: dict[str, list[Card]]
    tokens: list[TakenApart]
    tables: dict[str, Table]


def report(options: argparse.Namespace, begun: float) -> tuple[dict, str]:
    """The result as JSON has it, and as people read it; everything else is in the folder."""
    if options.run is not None and options.seeds is not None:
        raise ConfigError(
            f"a saved H-SAE has one seed: got --run {options.run} and --seeds {options.seeds}, "
            "expected one of them. Leave --seeds out.",
            code="contexts.seeds",
        )
    seeds = 1 if options.run is not None else options.seeds
    chosen = settings(
        smoke=options.smoke, seeds=seeds, layer=options.layer, parents=options.parents
    )
    with one_thread():
        return write(models(options, chosen), chosen, options, begun)


def models(options: argparse.Namespace, chosen: Settings) -> Models:
    """Trained, or read from a folder; a tiny run is over before another process has begun."""
    if options.run is not None:
        return loaded(options.run)
    threads = 1 if options.smoke else options.threads
    return trained(chosen, options.out / "autoencoders", threads)


def gathered(found: Models, data: StoriesData, chosen: Settings) -> Page:
    """What held-out text shows of the models."""
    x, text = data.activations(chosen.layer, "heldout"), HeldOutText(data)
    seeds = zip(found.trees, chosen.seeds, strict=True)
    trees = [Hierarchy.of(pair, x, text, seed) for pair, seed in seeds]
    flat = None if found.flat is None else Reading.of(found.flat, x)
    dealer = Dealer(trees[0], text, chosen, stream(chosen.seeds[0], DRAWN + 1))
    drawn, roots = dealer.drawn_roots(), dealer.chosen_roots()
    shown = {
        "chosen": [dealer.card(root) for root in roots],
        "drawn": [dealer.card(root) for root in drawn],
    }
    tokens = dealer.taken_apart(flat)
    tables = {
        "scores": scores_table(trees, flat, chosen),
        "latents": latents_table(trees[0], shown),
        "contributions": contributions_table(tokens),
    }
    return Page(trees[0], shown, tokens, tables)


def document(page: Page, chosen: Settings, options: argparse.Namespace, image: bytes) -> str:
    """The page itself."""
    title = TITLE + " (smoke run: sizes too small to mean anything)" * options.smoke
    parts = sections(
        page.shown,
        page.tokens,
        page.tables["scores"],
        chosen,
        rows=page.hierarchy.reading.firings.rows,
        image=image,
        loaded=options.run is not None,
    )
    return html.page(title, parts, style=STYLE)


def write(
    found: Models, chosen: Settings, options: argparse.Namespace, begun: float
) -> tuple[dict, str]:
    """The page, the data behind it, and ``run.json``."""
    out: Path = options.out
    page = gathered(found, stories(chosen.heldout), chosen)
    for stem, table in page.tables.items():
        table.write_csv(out / "tables", stem)
    image = html.png(rates_figure(page.hierarchy))
    (out / "rates.png").write_bytes(image)
    arguments.write_json(out / "contexts.json", shown_text(page.shown, page.tokens))
    (out / "contexts.html").write_text(document(page, chosen, options, image), encoding="utf-8")
    result = {
        "reproduction": "hsae-contexts",
        "out": str(out),
        "page": str(out / "contexts.html"),
        "smoke": options.smoke,
        "settings": chosen.to_dict(),
        "scores": page.tables["scores"].records(),
        "shown": {kind: [card.latent for card in cards] for kind, cards in page.shown.items()},
        "autoencoders": listed(found.folders),
        "run": None if options.run is None else str(options.run),
        "wall_seconds": time.monotonic() - begun,
    }
    run = result | {"threads": options.threads, "versions": arguments.versions()}
    arguments.write_json(out / "run.json", run)
    said = page.tables["scores"].markdown()
    return result, f"{said}\n\nPage: {result['page']} ({result['wall_seconds']:.0f} s)"
