"""What a part of ``vsae reproduce part4`` is: its jobs, and what is made of their rows."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from toys.reproduce.jobs import Job
from toys.reproduce.part4_settings import Settings
from toys.reproduce.tables import Table

Rows = Sequence[Mapping]
"""A row per job, in the order of the part's jobs; each has ``seconds``, what training took, and
``failed``, the message of a run that became non-finite, or ``None``."""


@dataclass(frozen=True, eq=False)
class Part:
    """A question, and how it is answered.

    Args:
        question: As the report's heading has it.
        how: What is done and by which rule it is judged, with the numbers of the run.
        jobs: All of them; parts may share some.
        tables: By the stem of their files, which must be the part's own (``tokens_…``).
        findings: Sentences; verdicts are decided by code.
        figures: Draws into a folder, and says which files.
    """

    question: str
    how: Callable[[Settings], str]
    jobs: Callable[[Settings], Iterable[Job]]
    tables: Callable[[Settings, Rows], Mapping[str, Table]]
    findings: Callable[[Settings, Rows], Sequence[str]]
    figures: Callable[[Settings, Rows, Path], Sequence[Path]]
