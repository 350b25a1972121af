"""What is told of each part of ``recovery``: method, bars, findings, tables, figures."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from toys.reproduce.recovery_ablation_report import (
    ablation_findings,
    ablation_tables,
    draw_ablations,
)
from toys.reproduce.recovery_absorption_figure import draw_absorption
from toys.reproduce.recovery_absorption_report import absorption_findings, absorption_tables
from toys.reproduce.recovery_bars import Bar, bars_table, cost, families, recovered, structure
from toys.reproduce.recovery_figures import draw_calibration, draw_data_a, draw_families
from toys.reproduce.recovery_findings import RULE, calibrations, on_data_a, on_families
from toys.reproduce.recovery_gates_report import draw_gates, gates_findings, gates_tables
from toys.reproduce.recovery_how import how
from toys.reproduce.recovery_inference_report import (
    draw_inference,
    inference_findings,
    inference_tables,
)
from toys.reproduce.recovery_modadd_figure import draw_modadd
from toys.reproduce.recovery_modadd_findings import modadd_details, modadd_findings
from toys.reproduce.recovery_modadd_tables import modadd_tables
from toys.reproduce.recovery_moves import draw_moves, moves_bars, moves_findings, moves_tables
from toys.reproduce.recovery_results import Results
from toys.reproduce.recovery_saelens_data import THEIRS
from toys.reproduce.recovery_story_bars import AT, lengths, starts, story_bars, story_findings
from toys.reproduce.recovery_story_figures import draw_stories
from toys.reproduce.recovery_story_tables import (
    common_table,
    laws_table,
    lengths_table,
    stability,
    stability_table,
)
from toys.reproduce.recovery_tables import (
    calibration_table,
    choices_table,
    cost_table,
    family_tables,
    levels_table,
    models_table,
    structure_table,
)
from toys.reproduce.recovery_words_figure import draw_words
from toys.reproduce.recovery_words_findings import word_details, word_findings
from toys.reproduce.recovery_words_tables import word_stability, word_tables
from toys.reproduce.tables import Table


@dataclass(frozen=True, eq=False)
class Chapter:
    """The report of a part.

    Args:
        title: What it is about.
        how: What was done, in paragraphs.
        bars: Claims that were to be reached.
        findings: What the numbers say, by rules.
        tables: By the stem of their files, in order.
        draw: Writes the figures to a folder.
        failed: Models that became non-finite.
        details: Findings for those who want all of them.
    """

    title: str
    how: Sequence[str]
    bars: Sequence[Bar]
    findings: Sequence[str]
    tables: Mapping[str, Table]
    draw: Callable[[Path], list[Path]]
    failed: Sequence[Mapping]
    details: Sequence[str] = ()

    def markdown(self) -> str:
        """All of it but the figures."""
        lines = [f"# {self.title}", "", *(f"{paragraph}\n" for paragraph in self.how)]
        if self.bars:
            told = [f"- **{b.name}** ({b.rule}): {b.verdict}. {b.found}" for b in self.bars]
            lines += ["## Bars", "", *told, ""]
        lines += ["## Findings", "", *(f"- {text}" for text in self.findings)]
        lines += [*(f"- Not finite: {_short(row)}" for row in self.failed), ""]
        if self.details:
            lines += ["## In detail", "", *(f"- {text}" for text in self.details), ""]
        lines += ["## Tables", "", *(f"{table.markdown()}\n" for table in self.tables.values())]
        return "\n".join(lines).rstrip() + "\n"


def chapter(name: str, results: Results) -> Chapter:
    """Of one part, as if no other had been run."""
    alone = Results(results.settings, {name: results.parts[name]})
    return CHAPTERS[name](alone)


def _chapter(
    results: Results,
    title: str,
    *,
    findings: Sequence[str],
    tables: Mapping[str, Table],
    draw: Callable[[Results, Path], list[Path]],
    bars: Sequence[Bar] = (),
    details: Sequence[str] = (),
) -> Chapter:
    """With the rules of its bars, what was chosen and what it took; no table without a row."""
    ((name, part),) = results.parts.items()
    more = {"choices": choices_table(results), "cost": cost_table(results)}
    known = {"bars": bars_table(bars), **tables, **more}
    return Chapter(
        title,
        how(name, results.settings),
        bars,
        findings,
        {stem: table for stem, table in known.items() if table.rows},
        partial(draw, results),
        [*_failed(part.rows)],
        details,
    )


def _data_a(results: Results) -> Chapter:
    return _chapter(
        results,
        "Exclusive trees, rare and coherent: Data A",
        bars=[*recovered(results), *structure(results), *cost(results)],
        findings=[*on_data_a(results)],
        tables={
            "data_a": models_table(results, "data-a"),
            "data_a_saelens": models_table(results, THEIRS),
            "levels": levels_table(results, "data-a"),
            "structure": structure_table(results),
        },
        draw=draw_data_a,
    )


def _moves(results: Results) -> Chapter:
    found = Results(results.settings, {"data-a": results.parts["moves"]})
    return _chapter(
        results,
        "Moves between latents",
        bars=moves_bars(found),
        findings=[*moves_findings(found)],
        tables=moves_tables(found),
        draw=lambda _, folder: draw_moves(found, folder),
    )


def _ablations(results: Results) -> Chapter:
    return _chapter(
        results,
        "Data A, the recipe with less",
        findings=[*ablation_findings(results)],
        tables=ablation_tables(results),
        draw=draw_ablations,
    )


def _families(results: Results) -> Chapter:
    return _chapter(
        results,
        "Copulas, trees, noises, magnitudes and subspaces",
        bars=[*families(results)],
        findings=[*on_families(results)],
        tables=dict(family_tables(results)),
        draw=draw_families,
    )


def _gates(results: Results) -> Chapter:
    return _chapter(
        results,
        "Structure of gates that is known",
        findings=[*gates_findings(results)],
        tables=gates_tables(results),
        draw=draw_gates,
    )


def _absorption(results: Results) -> Chapter:
    return _chapter(
        results,
        "Absorption and hedging, against their exact solutions",
        findings=[*absorption_findings(results)],
        tables=absorption_tables(results),
        draw=draw_absorption,
    )


def _inference(results: Results) -> Chapter:
    return _chapter(
        results,
        "Inference on the true dictionary",
        findings=[*inference_findings(results)],
        tables=inference_tables(results),
        draw=draw_inference,
    )


def _stories(results: Results) -> Chapter:
    stable = stability(results)
    return _chapter(
        results,
        "Every layer of a small language model",
        bars=story_bars(results, stable),
        findings=[RULE, *story_findings(results), *starts(results), *lengths(results)],
        tables={
            "stories": common_table(results),
            "lengths": lengths_table(results, AT),
            "stability": stability_table(stable),
            "laws": laws_table(results),
        },
        draw=draw_stories,
    )


def _calibration(results: Results) -> Chapter:
    return _chapter(
        results,
        "What probabilities and intervals are worth",
        findings=[*calibrations(results)],
        tables={"calibration": calibration_table(results)},
        draw=draw_calibration,
    )


def _words(results: Results) -> Chapter:
    again = word_stability(results)
    return _chapter(
        results,
        "Nouns, and the concepts of WordNet",
        findings=word_findings(results),
        tables=word_tables(results, again),
        draw=draw_words,
        details=word_details(results, again),
    )


def _modadd(results: Results) -> Chapter:
    return _chapter(
        results,
        "Networks that add modulo 59",
        findings=[RULE, *modadd_findings(results)],
        tables=modadd_tables(results),
        draw=draw_modadd,
        details=modadd_details(results),
    )


def _failed(rows: Sequence[Mapping]) -> Iterator[Mapping]:
    """Models that became non-finite, also of those that one job has made."""
    for row in rows:
        if row["failed"]:
            yield row
        for model in row.get("models", ()):
            if model.get("failed"):
                yield {"case": row["case"], "seed": row["seed"], **model}


def _short(row: Mapping) -> str:
    names = ("case", "network", "stream", "layer", "arm", "start", "strength", "seed", "failed")
    return ", ".join(f"{name} {row[name]}" for name in names if row.get(name) is not None)


CHAPTERS: Mapping[str, Callable[[Results], Chapter]] = {
    "data-a": _data_a,
    "moves": _moves,
    "ablations": _ablations,
    "families": _families,
    "gates": _gates,
    "absorption": _absorption,
    "inference": _inference,
    "stories": _stories,
    "calibration": _calibration,
    "words": _words,
    "modadd": _modadd,
}
"""By part."""
