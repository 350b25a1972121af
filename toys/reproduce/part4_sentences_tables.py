"""Tables, findings and the figure of the part ``sentences``."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from toys.reproduce.part4_compare import (
    called,
    chosen,
    mean,
    missed,
    paired,
    value,
)
from toys.reproduce.part4_part import Rows
from toys.reproduce.part4_sentences import ROW_ARMS
from toys.reproduce.part4_settings import Settings
from toys.reproduce.part4_tokens_figures import save
from toys.reproduce.part4_tokens_findings import beside, raw_score
from toys.reproduce.part4_tokens_tables import controls, scores
from toys.reproduce.tables import Cell, Table
from vsae import plots

PAIRS = (
    ("smooth", "shuffled"),
    ("smooth", "l1"),
    ("mixed", "l1"),
    ("mixed", "mixed-shuffled"),
    ("smooth-edges", "shuffled-edges"),
    ("smooth-edges", "l1-edges"),
    ("mixed-edges", "l1-edges"),
    ("mixed-edges", "mixed-shuffled-edges"),
    ("smooth-edges", "smooth"),
    ("mixed-edges", "mixed"),
    ("l1-edges", "l1"),
)


def sentence_tables(settings: Settings, rows: Rows) -> Mapping[str, Table]:
    """All of them."""
    target = settings.sentence_target
    return {
        "sentences_arms": Table(
            f"Held-out sentences, target L0 {target}", list(arms(settings, rows))
        ),
        "sentences_neighbours": Table(
            "Neighbours of held-out sentences, by their codes", list(neighbours(rows))
        ),
        "sentences_edges": Table(
            "Edges of a batch: as many as there were, and as a batch of random rows is expected to "
            "have",
            list(edges(rows)),
        ),
    }


def by_arm(rows: Rows) -> Iterator[tuple[str, list[Mapping]]]:
    """The rows of each arm that has some."""
    for arm in ROW_ARMS:
        found = chosen(rows, arm=arm)
        if found:
            yield arm, found


def arms(settings: Settings, rows: Rows) -> Iterator[dict[str, Cell]]:
    """A line per arm."""
    target = settings.sentence_target
    for _, found in by_arm(rows):
        yield {
            "arm": found[0]["label"],
            "L0": mean(found, "l0"),
            "target": "missed" if missed(found, target) else "met",
            "R²": mean(found, "r2"),
            "R², cut": mean(found, "cut", str(target), "r2"),
            "R², raw": mean(found, "r2_raw"),
            "never active": mean(found, "dead"),
            "median AF": mean(found, "frequency_median"),
            "mean AV": mean(found, "value_over_active"),
            "tr(ZᵀLZ) / ‖Z‖²": mean(found, "rough"),
            "shuffled": mean(found, "rough_shuffled"),
            "β": mean(found, "beta"),
            "CPU s": mean(found, "seconds"),
        }


def neighbours(rows: Rows) -> Iterator[dict[str, Cell]]:
    """Every arm, chance, and what there is without a crosscoder."""
    first = [row for row in chosen(rows) if row.get("neighbours")][:1]
    for name, what in (("chance", "chance"), ("renamed at random, mean", "null_mean")):
        if first:
            yield {"codes": name} | scores(first, ("neighbours",), what)
    for _, found in by_arm(rows):
        yield {"codes": found[0]["label"]} | scores(found, ("neighbours",))
    for line in controls(rows):
        yield {"codes": line.pop("points")} | {k: v for k, v in line.items() if k != "queries"}


def edges(rows: Rows) -> Iterator[dict[str, Cell]]:
    """Of every arm."""
    for _, found in by_arm(rows):
        yield {
            "arm": found[0]["label"],
            "edges": mean(found, "edges"),
            "expected of random rows": mean(found, "edges_expected"),
        }


def sentence_findings(settings: Settings, rows: Rows) -> Iterator[str]:
    """Neighbourhoods and explained variance, arm against arm; who missed the target."""
    late = [
        f"{found[0]['label']} {mean(found, 'l0')}"
        for _, found in by_arm(rows)
        if missed(found, settings.sentence_target)
    ]
    target = settings.sentence_target
    yield f"Targets of L0 ({target}) that were missed: {'; '.join(late) or 'none'}."
    yield from _edges_met(rows)
    ranked = [row for row in chosen(rows) if row.get("neighbours")]
    if not ranked:
        return
    path = ("neighbours", next(iter(ranked[0]["neighbours"])), "ndcg")
    raw = raw_score(rows, path[1])
    for _, found in by_arm(ranked):
        yield beside(found, target, path, raw)
    for one, other in PAIRS:
        said = _pair(settings, chosen(ranked, arm=one), chosen(ranked, arm=other), path)
        if said:
            yield said


def _pair(
    settings: Settings, one: Sequence[Mapping], other: Sequence[Mapping], path: tuple[str, ...]
) -> str | None:
    near = paired(one, other, *path, "value")
    if near is None:
        return None
    plain = paired(one, other, "r2")
    short = paired(one, other, "cut", str(settings.sentence_target), "r2")
    return (
        f"{one[0]['label']} against {other[0]['label']}: neighbourhoods **{called(near)}** "
        f"(NDCG@{path[1]} {near}); R² **{called(plain)}** ({plain}), cut {called(short)} ({short})."
    )


def _edges_met(rows: Rows) -> Iterator[str]:
    pairs = [(chosen(rows, arm=arm), arm) for arm in ("l1", "l1-edges")]
    if all(found for found, _ in pairs):
        (plain, _), (edge, _) = pairs
        yield (
            f"A batch of random rows had {mean(plain, 'edges')} edges of the graph "
            f"({mean(plain, 'edges_expected')} expected), one made of edges "
            f"{mean(edge, 'edges')}."
        )


def sentence_figures(settings: Settings, rows: Rows, folder: Path) -> list[Path]:
    """Explained variance and neighbourhoods, side by side."""
    ranked = {arm: found for arm, found in by_arm(rows) if found[0].get("neighbours")}
    if not ranked:
        return []
    k = next(iter(next(iter(ranked.values()))[0]["neighbours"]))
    figure = Figure(figsize=(14, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    scored = ("neighbours", k, "ndcg")
    first = next(iter(ranked.values()))
    lines = {"chance": value(first[0], *scored, "chance")}
    raw = raw_score(rows, k)
    lines |= {} if raw is None else {"raw activations": raw}
    target = str(settings.sentence_target)
    _bars(left, ranked, ("cut", target, "r2"), {}, f"R², codes cut to {target} entries")
    _bars(right, ranked, (*scored, "value"), lines, f"NDCG@{k} of held-out sentences")
    return [save(figure, folder / "sentences.png")]


def _bars(axis, ranked: Mapping, path: Sequence[str], lines: Mapping, label: str) -> None:
    found = {rows[0]["label"]: mean(rows, *path) for rows in ranked.values()}
    values = {name: cell.mean for name, cell in found.items() if cell}
    errors = {name: cell.half_width or 0.0 for name, cell in found.items() if cell}
    plots.bars(axis, values, errors=errors, references=lines, label=label)
