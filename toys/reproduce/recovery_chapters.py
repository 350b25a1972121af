"""What is told of each part of ``recovery``: method, bars, findings, tables, figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from toys.reproduce.recovery_bars import Bar, bars
from toys.reproduce.recovery_figures import draw_all
from toys.reproduce.recovery_findings import findings
from toys.reproduce.recovery_how import how
from toys.reproduce.recovery_modadd_figure import draw_modadd
from toys.reproduce.recovery_modadd_findings import modadd_details, modadd_findings
from toys.reproduce.recovery_modadd_tables import modadd_tables
from toys.reproduce.recovery_moves import draw_moves, moves_bars, moves_findings, moves_tables
from toys.reproduce.recovery_results import Results
from toys.reproduce.recovery_saelens_data import THEIRS
from toys.reproduce.recovery_saelens_plan import saelens_said
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
from toys.reproduce.recovery_words_how import word_how
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
        tables: By the stem of their files, in order; those without a row are left out.
        draw: Writes the figures to a folder.
        details: Findings for those who want all of them.
    """

    title: str
    how: Sequence[str]
    bars: Sequence[Bar]
    findings: Sequence[str]
    tables: Mapping[str, Table]
    draw: Callable[[Results, Path], list[Path]]
    details: Sequence[str] = ()

    def markdown(self) -> str:
        """All of it but the figures."""
        lines = [f"# {self.title}", "", *(f"{paragraph}\n" for paragraph in self.how)]
        if self.bars:
            told = [f"- **{b.name}**: {b.verdict}. {b.found}" for b in self.bars]
            lines += ["## Bars", "", *told, ""]
        for heading, said in (("Findings", self.findings), ("In detail", self.details)):
            lines += [f"## {heading}", "", *(f"- {text}" for text in said), ""] if said else []
        lines += ["## Tables", "", *(f"{table.markdown()}\n" for table in self.tables.values())]
        return "\n".join(lines).rstrip() + "\n"


def chapter(name: str, results: Results) -> Chapter:
    """Of one part, as if no other had been run."""
    alone = Results(results.settings, {name: results.parts[name]})
    return CHAPTERS[name](alone)


def _data_a(results: Results) -> Chapter:
    tables = {
        "data_a": models_table(results, "data-a"),
        "data_a_saelens": models_table(results, THEIRS),
        "levels": levels_table(results, "data-a"),
        "structure": structure_table(results),
    }
    return Chapter(
        "Exclusive trees, rare and coherent: Data A",
        [*how("data-a", results.settings), saelens_said(results.settings)],
        bars(results),
        findings(results),
        _filled(results, tables),
        draw_all,
    )


def _moves(results: Results) -> Chapter:
    found = Results(results.settings, {"data-a": results.parts["moves"]})
    return Chapter(
        "Moves between latents",
        how("moves", results.settings),
        moves_bars(found),
        [*moves_findings(found)],
        _filled(results, moves_tables(found)),
        lambda _, folder: draw_moves(found, folder),
    )


def _families(results: Results) -> Chapter:
    return Chapter(
        "Copulas, trees, noises, magnitudes and subspaces",
        how("families", results.settings),
        bars(results),
        findings(results),
        _filled(results, dict(family_tables(results))),
        draw_all,
    )


def _stories(results: Results) -> Chapter:
    stable = stability(results)
    tables = {
        "stories": common_table(results),
        "lengths": lengths_table(results, AT),
        "stability": stability_table(stable),
        "laws": laws_table(results),
    }
    return Chapter(
        "Every layer of a small language model",
        how("stories", results.settings),
        story_bars(results, stable),
        [*story_findings(results), *starts(results), *lengths(results)],
        _filled(results, tables),
        draw_stories,
    )


def _calibration(results: Results) -> Chapter:
    return Chapter(
        "What probabilities and intervals are worth",
        how("calibration", results.settings),
        (),
        findings(results)[1:],  # the rule is of comparisons
        _filled(results, {"calibration": calibration_table(results)}),
        draw_all,
    )


def _words(results: Results) -> Chapter:
    again = word_stability(results)
    return Chapter(
        "Nouns, and the concepts of WordNet",
        [word_how(results.settings.words)],
        (),
        word_findings(results),
        _filled(results, word_tables(results, again)),
        draw_words,
        word_details(results, again),
    )


def _modadd(results: Results) -> Chapter:
    return Chapter(
        "Networks that add modulo 59",
        how("modadd", results.settings),
        (),
        modadd_findings(results),
        _filled(results, modadd_tables(results)),
        draw_modadd,
        modadd_details(results),
    )


def _filled(results: Results, tables: Mapping[str, Table]) -> dict[str, Table]:
    """With what was chosen and what it took; without those that have no row."""
    both = {"choices": choices_table(results), "cost": cost_table(results)}
    return {stem: table for stem, table in {**tables, **both}.items() if table.rows}


CHAPTERS: Mapping[str, Callable[[Results], Chapter]] = {
    "data-a": _data_a,
    "moves": _moves,
    "families": _families,
    "stories": _stories,
    "calibration": _calibration,
    "words": _words,
    "modadd": _modadd,
}
"""By part."""
