"""Running ``recovery-16k`` and writing what it found and what the whole would take."""

import argparse
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from toys.reproduce import arguments
from toys.reproduce.html import DPI
from toys.reproduce.processes import one_thread
from toys.reproduce.recovery_16k_precision import Difference, difference
from toys.reproduce.recovery_16k_runs import FIELD, Phase, Trained, field, ours, scored
from toys.reproduce.recovery_16k_settings import Settings16k, settings
from toys.reproduce.recovery_16k_world import World, forget_peak
from toys.reproduce.recovery_tables import COLUMNS as QUALITY
from toys.reproduce.tables import Cell, Table, interval
from toys.synth import DATA_A

GROUPS = 32  # of features by rank, in the figure
COLUMNS = {name: title for name, title in QUALITY.items() if name != "f1_trimmed"} | {
    "true_l0": "true L0",
    "seconds": "s",
    "memory": "peak memory, GiB",
}


def report(options: argparse.Namespace, begun: float) -> tuple[dict, str]:
    """The result as JSON has it, and as people read it; everything else is in the folder."""
    chosen = settings(smoke=options.smoke, seeds=options.seeds, share=options.share)
    device = device_of(options.device)
    with one_thread():
        torch.set_num_threads(options.threads)
        exact = difference(device)
        half = device.type == "cuda" and exact.small
        rows, phases, toy = run_all(chosen, device, half=half)
    out, tables = options.out, all_tables(chosen, rows, phases, toy, exact)
    for stem, table in tables.items():
        table.write(out / "tables", stem)
    pictures = [draw(rows, out / "figures")]
    text = markdown(chosen, device, half, tables)
    (out / "recovery-16k.md").write_text(text + "\n", encoding="utf-8")
    result = {
        "reproduction": "recovery-16k",
        "out": str(out),
        "smoke": options.smoke,
        "device": str(device),
        "bfloat16": half,
        "settings": chosen.to_dict(),
        "tables": {stem: table.records() for stem, table in tables.items()},
        "figures": [str(path) for path in pictures],
        "wall_seconds": time.monotonic() - begun,
    }
    run = result | {"threads": options.threads, "versions": arguments.versions()}
    arguments.write_json(out / "run.json", run)
    return result, f"{text}\n\nWritten to {out} in {result['wall_seconds']:.0f} s."


def device_of(name: str) -> torch.device:
    """Where to train."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def run_all(
    chosen: Settings16k, device: torch.device, *, half: bool
) -> tuple[list[dict], list[Phase], list[float]]:
    """Both arms on every seed: scores, what phases took, what making each toy took."""
    rows, phases, toy = [], [], []
    for seed in chosen.seeds:
        world = World(chosen, seed, device)
        toy.append(world.seconds)
        for found in arms(world, half=half):
            rows.append(scored(world, found))
            phases += found.phases
    return rows, phases, toy


def arms(world: World, *, half: bool) -> Iterator[Trained]:
    """One after another: the last is let go before the next is made."""
    forget_peak(world.device)
    yield ours(world, half=half)
    forget_peak(world.device)
    yield field(world)


def all_tables(
    chosen: Settings16k,
    rows: Sequence[Mapping],
    phases: Sequence[Phase],
    toy: Sequence[float],
    exact: Difference,
) -> dict[str, Table]:
    """By the stem of their files."""
    names = list(dict.fromkeys(row["arm"] for row in rows))
    models = []
    for name in names:
        own = [row for row in rows if row["arm"] == name]
        line: dict[str, Cell] = {"arm": name, "latents": own[0]["latents"]}
        line |= {"rows seen": own[0]["rows"], "seeds": len(own)}
        models.append(line | {title: over(row[c] for row in own) for c, title in COLUMNS.items()})
    return {
        "models": Table(f"Held-out rows, {chosen.share:g} of the protocol", models),
        "cost": cost_table(chosen, phases, toy),
        "precision": Table(
            "bfloat16 products against float32, mean field, Data A", [asdict(exact)]
        ),
    }


def over(values: Iterable[float | None]) -> Cell:
    """Mean and interval; nothing of what was not measured."""
    known = [value for value in values if value is not None]
    return interval(known) if known else None


def cost_table(chosen: Settings16k, phases: Sequence[Phase], toy: Sequence[float]) -> Table:
    """What was measured, and hours of the whole at the same rate: one thread, or this GPU."""
    done, all_steps = chosen.spread_steps
    hours = sum(toy) / len(toy) / done * all_steps / 3600
    lines: list[dict[str, Cell]] = [
        {"arm": "toy", "phase": "directions", "steps": done, "of": all_steps, "hours of all": hours}
    ]
    for phase in phases[: len(phases) // len(toy)]:  # of the first seed
        line: dict[str, Cell] = {"arm": phase.arm, "phase": phase.name, "batch": phase.batch}
        line |= {"steps": phase.steps, "of": phase.whole, "s before": phase.setup}
        line |= {"s per step": phase.seconds / phase.steps, "rows per s": phase.rows_per_second}
        lines.append(line | {"hours of all": phase.hours()})
        if phase.arm == FIELD:
            long = chosen.published // phase.batch
            lines.append({"arm": FIELD, "phase": "published length", "of": long})
            lines[-1]["hours of all"] = phase.hours(long)
    return Table("What takes what: measured, and hours of the whole protocol at this rate", lines)


def draw(rows: Sequence[Mapping], folder: Path) -> Path:
    """Best cosines by how often features fire, first seed; and the numbers behind it."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis, shown = figure.subplots(), {}
    for row in (row for row in rows if row["seed"] == rows[0]["seed"]):
        means = [float(part.mean()) for part in np.array_split(np.array(row["best"]), GROUPS)]
        shown[row["arm"]] = means
        axis.plot(range(1, GROUPS + 1), means, marker=".", label=row["arm"])
    axis.axhline(rows[0]["chance"], color="#999999", linestyle=":", label="chance MCC")
    axis.set_xlabel(f"features by rate, most frequent first, in {GROUPS} groups")
    axis.set_ylabel("mean best |cosine|")
    axis.set_ylim(0, 1)
    axis.legend()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "cosines.png"
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    data = {"best_cosine": shown, "chance": rows[0]["chance"]}
    arguments.write_json(path.with_suffix(".json"), data)
    return path


def markdown(
    chosen: Settings16k, device: torch.device, half: bool, tables: Mapping[str, Table]
) -> str:
    """The report: what was done, tables, settings."""
    steps, all_steps = chosen.spread_steps
    said = "bfloat16, as they are exact enough" if half else "float32"
    lines = [
        "# 16 384 features",
        "",
        f"{chosen.case.features} features in {chosen.case.d_model} dimensions, on {device.type}; "
        f"{chosen.share:g} of the protocol: directions {steps} of {all_steps} steps along their "
        f"descent, each phase that share of its rows. Products of the mean field: {said}. Rows are "
        "drawn when training asks for them. Seconds are of this process on a CPU, of the wall on a "
        "GPU. Hours of the whole follow from the rate of this run.",
        "",
        f"{FIELD} has one learning rate, {chosen.lr:g}, which was not tuned at this size, so that "
        "it may do better than here. How exact bfloat16 products are was measured on Data A with "
        f"its true dictionary ({DATA_A.d_model} dimensions), not at this size nor on a learned "
        "dictionary.",
        "",
    ]
    for table in tables.values():
        lines += [table.markdown(), ""]
    values = chosen.to_dict().items()
    return "\n".join([*lines, "## Settings", "", *(f"- {n}: {v}" for n, v in values)])
