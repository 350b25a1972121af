"""The table, and a description of the machine without its name."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import torch
from results import Result, Skipped

HEAD = """\
# Benchmarks

Written by `python tests/benchmarks --out docs/benchmarks.md{flag}`; no number is typed by hand.

Every line is a ratio of two contestants in one process on one pinned thread, float32, taken in
turn after a warm-up: the median over rounds, its quartiles, and the ratio of the fastest calls.
Times are CPU time, so that a busy neighbour does not count. {allocator}

Machine: {machine}.

| claim | bar | measured | quartiles | of minima | | per call |
|---|---|---|---|---|---|---|
"""
TUNED = "The allocator keeps freed memory, for all contestants."
DEFAULT = "The allocator is the system's default, for all contestants."
VERDICT = {True: "met", False: "**not met**", None: ""}


def markdown(results: Sequence[Result | Skipped], *, tuned: bool) -> str:
    head = HEAD.format(
        flag=" --tune-allocator" if tuned else "",
        allocator=TUNED if tuned else DEFAULT,
        machine=machine(),
    )
    return head + "\n".join(map(_line, results)) + "\n"


def machine() -> str:
    """Processor, cores and versions."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return (
        f"{_processor()}, {os.cpu_count()} cores ({cores} used), {platform.system()}, Python "
        f"{platform.python_version()}, torch {torch.__version__} "
        f"({torch.backends.cpu.get_cpu_capability()})"
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def _line(result: Result | Skipped) -> str:
    if isinstance(result, Skipped):
        return f"| {result.claim} | | not measured: {result.why} | | | | |"
    spread = "" if result.spread is None else f"{result.spread[0]:.2f} – {result.spread[1]:.2f}"
    minima = "" if result.of_minima is None else f"{result.of_minima:.2f}"
    return (
        f"| {result.claim} | {result.bar} | {result.value:.2f} | {spread} | {minima} "
        f"| {VERDICT[result.met]} | {result.times} |"
    )
