"""``vsae reproduce part1 --frontier``: every arm's strength swept, compared at matched L0."""

import argparse
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence

from toys.reproduce import arguments, part1_runs, part1_tables
from toys.reproduce.part1_arms import ARMS, L1Arm, VariationalArm
from toys.reproduce.part1_claims import pairs
from toys.reproduce.part1_frontier_figure import draw
from toys.reproduce.part1_matched import COMMON, cell_at, matched_pair
from toys.reproduce.part1_report import LATENTS, constants, failures, split
from toys.reproduce.part1_runs import FAMILIES, Job
from toys.reproduce.part1_tables import FAMILY, select
from toys.reproduce.part1_verdicts import Claim, a25, a26, headline
from toys.reproduce.tables import Table

SWEPT = tuple(
    name
    for name, arm in ARMS.items()
    if isinstance(arm, L1Arm) or (isinstance(arm, VariationalArm) and arm.rectified)
)
"""The arms with exact zeros: at a linear code's L0, about K whatever β is, nothing can match."""


def report(options: argparse.Namespace, settings: dict, begun: float) -> tuple[dict, str]:
    """The result as JSON has it, and as people read it."""
    if settings["smoke"]:
        settings = settings | {"cases": ["case3"]}
    rows = part1_runs.run_all(list(jobs(settings)), settings["threads"])
    settings = settings | {"sweeps": {name: list(ARMS[name].sweep) for name in SWEPT}}
    groups = grouped(rows)
    tables = [table for key, found in groups.items() for table in matched_tables(key, found)]
    claims = {key: judge(found) for key, found in groups.items()}
    figures = [
        draw(found, data, size, options.out / "figures" / f"frontier_{data}_{size}.png")
        for (data, size), found in groups.items()
    ]
    long = part1_tables.long_table(rows)
    long.write_csv(options.out, "frontier_points")
    part1_tables.model_table(rows).write_csv(options.out, "frontier_models")
    matched_table = Table("MSE at matched L0", [row for table in tables for row in table.rows])
    matched_table.write_csv(options.out, "frontier")
    text = markdown(settings, claims, tables)
    (options.out / "frontier.md").write_text(text + "\n", encoding="utf-8")
    result = {
        "reproduction": "part1 --frontier",
        "out": str(options.out),
        "settings": settings | constants(),
        "verdicts": {
            f"{data} {size}": [claim.to_dict() for claim in found]
            for (data, size), found in claims.items()
        },
        "matched": matched_table.records(),
        "table": long.records(),
        "figures": [str(path) for path in figures],
        "failed": failures(rows),
        "wall_seconds": time.monotonic() - begun,
    }
    run = {name: result[name] for name in ("settings", "failed", "wall_seconds")}
    arguments.write_json(
        options.out / "frontier_run.json", run | {"versions": arguments.versions()}
    )
    return result, f"{text}\n\nWritten to {options.out} in {result['wall_seconds']:.0f} s."


def jobs(settings: dict) -> Iterable[Job]:
    """Every arm at every strength, with as many latents as features and with 32."""
    for data in settings["data"]:
        same = defaultdict(list)
        for case in settings["cases"]:
            same[FAMILIES[data][case].features].append(case)
        for name in SWEPT:
            for strength in ARMS[name].sweep[:: 5 if settings["smoke"] else 1]:
                yield from split(settings, data, name, LATENTS, strength, settings["cases"])
                for cases in same.values():
                    yield from split(settings, data, name, None, strength, cases)


def grouped(rows: Sequence[dict]) -> dict[tuple[str, str], list[dict]]:
    """By family and number of latents, ``K32`` or ``KF``."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["data"], "K32" if row["latents"] == LATENTS else "KF"].append(row)
    return dict(groups)


def matched_tables(key: tuple[str, str], rows: Sequence[dict]) -> Iterable[Table]:
    """Per case, arms down and common L0 across; cells are empty where a sweep does not reach."""
    data, size = key
    seeds = sorted({row["seed"] for row in rows})
    for case in dict.fromkeys(row["case"] for row in rows):
        found = {name: select(rows, case=case, arm=name) for name in SWEPT}
        cells = {l0: {name: cell_at(found[name], seeds, l0) for name in SWEPT} for l0 in COMMON}
        reached = [l0 for l0 in COMMON if any(cells[l0].values())]
        lines = [
            {"data": data, "K": size, "case": case, "arm": ARMS[name].label}
            | {f"L0 = {l0:g}": cells[l0][name] for l0 in reached}
            for name in SWEPT
        ]
        yield Table(f"MSE at matched L0, {case}, {size}; {FAMILY[data]}", lines)


def judge(rows: Sequence[dict]) -> list[Claim]:
    """The claims at matched L0. "β large" is 1 and above; it is sparser than the smallest swept."""
    iso = select(rows, arm="isotropic")
    swept = sorted({row["strength"] for row in iso})
    large = [row for row in iso if row["strength"] >= 1.0]
    ends = ({"arm": "isotropic", "strength": strength} for strength in (swept[-1], swept[0]))
    return [
        headline(_matched(rows, iso, "l1")),
        headline(_matched(rows, select(rows, arm="cholesky"), "l1"), "headline (learned Cholesky)"),
        a25(_matched(rows, large, "l1"), pairs(rows, *ends)),
        a26(_matched(rows, select(rows, arm="cholesky"), "isotropic")),
        a26(
            _matched(rows, select(rows, arm="cholesky"), "diagonal"), "A26 (against learned scales)"
        ),
    ]


def _matched(rows: Sequence[dict], arm: Sequence[dict], base: str) -> list:
    seeds = sorted({row["seed"] for row in rows})
    return [
        matched_pair(case, select(arm, case=case), select(rows, case=case, arm=base), seeds)
        for case in dict.fromkeys(row["case"] for row in rows)
    ]


def markdown(settings: dict, claims: dict, tables: Sequence[Table]) -> str:
    """The report."""
    lines = ["# Part 1 at matched sparsity", "", HOW, "", "## Verdicts", ""]
    for (data, size), found in claims.items():
        lines += [f"*{size}; {FAMILY[data]}*", ""]
        lines += [f"- **{claim}** — “{claim.statement}” Rule: {claim.rule}." for claim in found]
        lines += [""]
    lines += ["## Tables", "", *(part for table in tables for part in (table.markdown(), ""))]
    lines += ["## Settings", "", *(f"- {name}: {value}" for name, value in settings.items())]
    return "\n".join(lines)


HOW = """\
Each arm's strength (λ of the ℓ1 SAE, β of V-SAEs) is swept. Per seed, points that another point of
the same arm beats in both L0 and MSE are dropped, and log MSE is interpolated linearly in log L0 at
common values of L0, never extrapolated. K32 has 32 latents; KF as many as the case has features."""
