"""The words' tables: at common L0 fidelity and concepts, hierarchies, stability across seeds."""

from collections.abc import Mapping, Sequence
from itertools import groupby

from torch import Tensor

from toys.reproduce.flat_matched import at_l0, cell_at, over_seeds, points_of
from toys.reproduce.jobs import tensors_of
from toys.reproduce.recovery_results import Results, mean
from toys.reproduce.recovery_stories import CONTROLS
from toys.reproduce.recovery_words_arms import WORD_LABELS
from toys.reproduce.recovery_words_data import Split, words
from toys.reproduce.tables import Cell, Interval, Table
from vsae import metrics
from vsae.batches import stream
from vsae.errors import EmptyDataError
from vsae.recipes.recovery import ATOMS, dictionary_of_rows

HELD = {"ev": "EV", "ev_refitted": "EV, amplitudes solved again"}
ASKED = {
    "f1": "concept F1",
    "f1_null": "permuted",
    "found": "concepts found",
    "purity": "purity",
    "purity_null": "permuted purity",
}


def models(results: Results) -> dict[str, list[Mapping]]:
    """Every model and trimming by what it is, in order of tables; none of a job that failed."""
    found: dict[str, list[Mapping]] = {}
    for row in results.parts["words"].rows:
        about = {"file": row["file"], "strength": row["strength"]}
        for model in row.get("models", []):
            found.setdefault(model["name"], []).append(about | model)
    return {name: found[name] for name in WORD_LABELS if name in found}


def placed(rows: Sequence[Mapping], metric: str) -> list[Mapping]:
    """At the L0 of the words that a metric is of: held out for EV, asked about for concepts."""
    return rows if metric in HELD else [row | {"l0": row["l0_asked"]} for row in rows]


def values(results: Results, rows: Sequence[Mapping], metric: str, l0: float) -> list[float] | None:
    """A metric at an L0, seed by seed; nothing unless every seed's sweep reaches it."""
    seeds, own = results.settings.seeds, placed(rows, metric)
    found = [at_l0(points_of(own, seed, metric), l0) for seed in seeds]
    known = [value for value in found if value is not None]
    return known if len(known) == len(seeds) else None


def level(results: Results, rows: Sequence[Mapping], metric: str, l0: float) -> Interval | None:
    """The same over seeds."""
    known = values(results, rows, metric, l0)
    return over_seeds(known) if known else None


def word_tables(results: Results, stable: Sequence[Mapping]) -> dict[str, Table]:
    """By the stem of their files."""
    return {
        "words_fidelity": _at_common(
            results, HELD, "Words, held out: linear in log L0 inside each sweep"
        ),
        "words_concepts": _at_common(
            results,
            ASKED,
            "Words, concepts of WordNet: latents chosen on half of the trusted words, scored on "
            "the other half; by chance 0.05 of concepts are found",
        ),
        "words_family": _families(results),
        "words_stability": Table(
            "Words: share of atoms with a partner above cosine 0.9 in another seed",
            [{k: v for k, v in line.items() if k != "name"} for line in stable],
        ),
    }


def _at_common(results: Results, columns: Mapping[str, str], title: str) -> Table:
    lines = []
    for name, rows in models(results).items():
        line: dict[str, Cell] = {"arm": WORD_LABELS[name]}
        for l0 in results.settings.words.common:
            for metric, label in columns.items():
                cell = cell_at(placed(rows, metric), results.settings.seeds, metric, l0)
                line[f"{label}, L0 {l0:g}"] = cell
        lines.append(line)
    return Table(title, lines)


def _families(results: Results) -> Table:
    names = {
        "l0_asked": "L0",
        "dead": "dead, %",
        "edges": "edges",
        "child_purity": "child purity",
        "child_purity_chance": "its chance",
        "family": "family",
        "family_chance": "family's chance",
        "tied": "latents tied",
    }
    lines = []
    for name, rows in models(results).items():
        whole = [row for row in rows if row["trimmed"] is None]
        for strength, group in _by_strength(whole):
            line: dict[str, Cell] = {"arm": WORD_LABELS[name], "strength": strength}
            line |= {label: mean(group, column) for column, label in names.items()}
            lines.append(line | {"share of edges shuffled": _changed(group)})
    return Table("Words: the latents' own hierarchy against WordNet's", lines)


def _changed(rows: Sequence[Mapping]) -> Cell:
    """What the shuffle changed of WordNet's tree, where it was given to latents."""
    tied = any("tied" in row for row in rows)
    return mean(rows, "changed") or ("no edges" if tied else None)


def _by_strength(rows: Sequence[Mapping]) -> list[tuple[float, list[Mapping]]]:
    def key(row: Mapping) -> float:
        return row["strength"]

    return [(strength, list(group)) for strength, group in groupby(sorted(rows, key=key), key)]


def word_stability(results: Results) -> list[dict]:
    """Per dictionary the share of atoms found again, beside random words and directions."""
    found = []
    for name, rows in models(results).items():
        whole = [row for row in rows if row["trimmed"] is None]
        for strength, group in _by_strength(whole):
            runs = [tensors_of(row)[name] for row in group]
            controls = [random_words(results, row["seed"]) for row in group]
            try:
                shares = metrics.seed_stability(runs, controls)
            except EmptyDataError:  # one seed
                continue
            line = {"name": name, "arm": WORD_LABELS[name], "strength": strength}
            line |= {"L0": mean(group, "l0"), "found again": shares.best}
            line |= {"one to one": shares.one_to_one, "random words": shares.control_best}
            found.append(line | {"random directions": shares.chance})
    return found


def random_words(results: Results, seed: int) -> Tensor:
    """As many training words as there are latents: others than any run starts from."""
    own = results.settings.words
    found = words(Split(seed=seed, least=own.least))
    rows = found.normalizer(found.train)
    return dictionary_of_rows(rows, own.latents, stream(CONTROLS + seed, ATOMS)).W_dec.detach()
