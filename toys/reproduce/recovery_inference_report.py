"""What is told of inference on the true dictionary: what iterations bring, what encoders keep."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toys.reproduce.flat_matched import over_seeds
from toys.reproduce.recovery_arms import COLOURS
from toys.reproduce.recovery_figures import OURS, Drawn, write
from toys.reproduce.recovery_findings import RULE, compared
from toys.reproduce.recovery_inference import Key
from toys.reproduce.recovery_inference_guides import (
    BATCH,
    EMPTY,
    ENCODERS,
    LINEAR,
    MLP,
    TOPK,
)
from toys.reproduce.recovery_results import Results, differences, mean
from toys.reproduce.recovery_settings import Settings
from toys.reproduce.recovery_tables import COLUMNS
from toys.reproduce.tables import Cell, Table

STARTS: Mapping[str, tuple[str, str]] = {
    EMPTY: ("the empty code", OURS),
    LINEAR: ("the linear encoder", "#1565c0"),
    MLP: ("the encoder with hidden units", "#00897b"),
    TOPK: ("TopK's encoder", COLOURS["topk"]),
    BATCH: ("BatchTopK's encoder", COLOURS["batch_topk"]),
}
"""Where guides start, as people read it, and the colour of figures."""

FROZEN = TOPK, BATCH  # of other models, trained on reconstruction
SHOWN = ("f1", "precision", "recall", "l0", "f1_trimmed", "ev", "dead")
INFERENCE = """\
Of every draw the recipe's model is built on the truth: true features as atoms, independent gates
and amplitudes of the rates and moments that true codes of other rows have; the noise is the
recipe's, a row's own above {inference_noise:g}, and not the toy's. That features fire together is
not in the prior. MCC is 1 by construction. *Iterations* are of the mean field, δ =
{inference_damping:g}, the last one whole, from the empty code. *Encoders*, one matrix, or with
hidden units ({inference_hidden} per latent), learn what {inference_teacher} of these infer
(`vsae.distil`), and iterations start from them. *TopK* and *BatchTopK*, with AuxK, are the field's:
of truth they have the dictionary, which stays, the atoms as their encoder's start, and the mean L0
as k, but no rates and no sizes; their encoders learn by reconstruction. All encoders see
{inference_seen} rows of Data A, {inference_small_seen} of a copula, {inference_batch} per update;
whether they would gain from more was not tried. Each has the learning rate of the greatest F1 + EV
of {inference_rates}, or of {inference_topk_rates} for the field's, on generator seed {choosing},
case by case, after as many rows. The gap is in nats of ELBO a row, against {inference_last}
iterations, on {inference_gaps} held-out rows. Time is CPU time of encoding {inference_timed} rows
as the library does, as a share of that of {inference_last} iterations, all in turns in one process:
about so much. Seconds of distilled encoders include their teacher, and the library's own look at
the gap. Reported are seeds {seeds}, of Data A {first}."""


def inference_numbers(chosen: Settings) -> dict[str, object]:
    """The numbers of the method, by the names it has for them."""
    own = chosen.inference
    return {
        "inference_noise": chosen.recipe.final_noise,
        "inference_damping": chosen.recipe.damping,
        "inference_teacher": chosen.recipe.iterations,
        "inference_hidden": own.hidden,
        "inference_batch": own.batch,
        "inference_seen": own.seen,
        "inference_small_seen": own.small_seen,
        "inference_rates": ", ".join(f"{rate:g}" for rate in own.rates),
        "inference_topk_rates": ", ".join(f"{rate:g}" for rate in own.topk_rates),
        "inference_last": own.iterations[-1],
        "inference_gaps": own.gaps,
        "inference_timed": own.timed,
    }


def by_guide(results: Results, case: str) -> dict[Key, list[Mapping]]:
    """The finished models of a case, in order of tables and of seeds."""
    found: dict[Key, list[Mapping]] = {}
    for model in models(results, case):
        if model["failed"] is None:
            found.setdefault((model["start"], model["iterations"]), []).append(model)
    order = list(STARTS)
    return {
        key: sorted(found[key], key=lambda model: model["seed"])
        for key in sorted(found, key=lambda key: (order.index(key[0]), key[1]))
    }


def models(results: Results, case: str) -> Iterator[Mapping]:
    """All models of a case, with the seed that each is of; failed ones, too."""
    for row in results.parts["inference"].rows:
        if row["case"] == case:
            yield from ({**model, "seed": row["seed"]} for model in row["models"])


def last(results: Results) -> Key:
    """What all others are compared with."""
    return EMPTY, results.settings.inference.iterations[-1]


def label(key: Key) -> str:
    """A guide as people read it."""
    start, count = key
    many = f"{count} iteration" + "s" * (count != 1)
    if start == EMPTY:
        return many
    name = STARTS[start][0]
    return f"{name}, then {many}" if count else f"{name} alone"


def inference_findings(results: Results) -> Iterator[str]:
    """Rules, and what follows from them, case by case."""
    yield RULE
    for case in results.settings.inference.cases:
        found = by_guide(results, case)
        for start in STARTS:
            yield from against(case, found, last(results), start)
        yield from errors(case, found, last(results))
        for model in models(results, case):
            if model["failed"]:
                name = label((model["start"], model["iterations"]))
                yield f"{case}, left out, not finite: {name}, seed {model['seed']}."


def against(
    case: str, found: Mapping[Key, Sequence[Mapping]], base: Key, start: str
) -> Iterator[str]:
    """All iterations against fewer, or against guides that start elsewhere."""
    said = []
    for key, rows in found.items():
        if key[0] == start and key != base and differences(found.get(base, []), rows, "f1"):
            gap = "" if start in FROZEN else f", gap {mean(rows, 'gap')} nats a row"
            verdict = compared(found[base], rows, "f1")
            said.append(
                f"{label(key)} (F1 {mean(rows, 'f1')}): {verdict}{gap}, about "
                f"{mean(rows, 'time')} of its time"
            )
    if said:
        whole = f"{label(base)} (F1 {mean(found[base], 'f1')})"
        yield f"{case}, {whole} against {'; '.join(said)}."


def errors(case: str, found: Mapping[Key, Sequence[Mapping]], base: Key) -> Iterator[str]:
    """What is invented, and what is missed."""
    shown = [key for key in found if key == base or not key[1]]
    if len(shown) > 1:
        said = (
            f"{label(key)} {mean(found[key], 'precision')} and {mean(found[key], 'recall')}"
            for key in shown
        )
        yield f"{case}, precision and recall: {'; '.join(said)}."


def inference_tables(results: Results) -> dict[str, Table]:
    """Of every case all guides, means over seeds; and the learning rates that were tried."""
    tables = {
        f"inference_{case.replace('-', '_')}": Table(
            f"{case}: inference on the true dictionary; true L0 {l0_of(results, case)}",
            [*lines(results, case)],
        )
        for case in results.settings.inference.cases
    }
    tried: list[dict[str, Cell]] = [
        {"case": row["case"], "encoder": label((row["arm"], 0)), "lr": row["lr"]}
        | {COLUMNS[c]: row.get(c) for c in ("f1", "precision", "recall", "l0", "ev")}
        | {"s": row["seconds"], "failed": row["failed"]}
        for row in results.parts["inference"].searched
    ]
    rates = Table("Learning rates of encoders on the true dictionary, on the choosing seed", tried)
    return tables | {"inference_rates": rates}


def l0_of(results: Results, case: str) -> Cell:
    """How many features fire on a row."""
    rows = [row for row in results.parts["inference"].rows if row["case"] == case]
    return mean(rows, "true_l0")


def lines(results: Results, case: str) -> Iterator[dict[str, Cell]]:
    """The guides of one case."""
    found, base = by_guide(results, case), last(results)
    for key, rows in found.items():
        line: dict[str, Cell] = {"guide": label(key), "seeds": len(rows)}
        line |= {COLUMNS[c]: mean(rows, c) for c in SHOWN}
        gains = differences(rows, found.get(base, []), "f1")
        if key != base and gains:
            line[f"F1 − {label(base)}"] = over_seeds(gains)
        line["gap, nats a row"] = mean(rows, "gap")
        line[f"time, of {label(base)}"] = mean(rows, "time")
        if key[0] in ENCODERS and not key[1]:  # of what starts there nothing was trained
            line |= {"lr": rows[0]["lr"], "s": mean(rows, "seconds")}
        yield line


def draw_inference(results: Results, folder: Path) -> list[Path]:
    """The figure, if there is something to show; its path."""
    cases = results.settings.inference.cases
    found = {case: of for case in cases if (of := by_guide(results, case))}
    return [write(folder, "inference", inference_figure(found))] if found else []


def inference_figure(found: Mapping[str, Mapping[Key, Sequence[Mapping]]]) -> Drawn:
    """F1 against iterations, a panel per case, a line from wherever guides start."""
    figure = Figure(figsize=(1.2 + 4.3 * len(found), 4.8), layout="constrained")
    axes, shown = figure.subplots(1, len(found), squeeze=False)[0], {}
    for axis, (case, of) in zip(axes, found.items(), strict=True):
        shown[case] = panel(axis, of)
        axis.set_title(case, fontsize=10)
        axis.set_xlabel("iterations of the mean field")
    axes[0].set_ylabel("F1 of firings, held-out rows")
    every = [axis.get_legend_handles_labels() for axis in axes]
    lines = {name: line for found in every for line, name in zip(*found, strict=True)}
    figure.legend(
        lines.values(),
        lines,
        loc="outside lower center",
        ncols=len(lines),
        fontsize=9,
        frameon=False,
    )
    figure.suptitle(
        "The true dictionary, and only inference differs: means over seeds, 95 % intervals",
        fontsize=11,
    )
    return figure, shown


def panel(axis: Axes, found: Mapping[Key, Sequence[Mapping]]) -> dict:
    """One case; an encoder alone is at 0 iterations, and each line a little beside the next."""
    counts = sorted({count for _, count in found})
    shown = {}
    for shift, (start, (name, colour)) in enumerate(STARTS.items()):
        cells = {n: mean(rows, "f1") for (own, n), rows in found.items() if own == start}
        points = {n: cell for n, cell in cells.items() if cell is not None}
        if not points:
            continue
        centres = [cell.mean for cell in points.values()]
        axis.errorbar(
            [counts.index(n) + 0.08 * (shift - 1.5) for n in points],
            centres,
            yerr=[cell.half_width or 0.0 for cell in points.values()],
            fmt="D" if start in FROZEN else "o-",
            color=colour,
            ms=5,
            linewidth=1.4,
            capsize=2,
            label=f"from {name}" if start not in FROZEN else f"{name}, trained on reconstruction",
        )
        halves = [cell.half_width for cell in points.values()]
        shown[name] = {"iterations": list(points), "f1": centres, "half_width": halves}
    names = [str(n) if n else "0\nencoder\nalone" for n in counts]
    axis.set_xticks(range(len(counts)), names)
    axis.grid(axis="y", linewidth=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    return shown
