"""What the numbers say, counted by rules that were written before them."""

from collections.abc import Iterator

from toys.reproduce.flat_arms import ARMS, BASE
from toys.reproduce.flat_data import TITLES
from toys.reproduce.flat_matched import METRICS, OF, Contrast, Outcome, at_l0, points_of
from toys.reproduce.flat_tables import Results, label
from toys.reproduce.tables import interval, number

RULE = (
    "Rule: per seed, an arm's metric minus {base}'s is averaged over the common values of L0 that "
    "both sweeps reach in every seed; the arm is better or worse if the t-interval over seeds, at "
    "95 % for all comparisons of one metric on one data together (Bonferroni), is wholly on one "
    "side of zero, and undecided otherwise; not comparable without a common L0."
)


def findings(results: Results) -> list[str]:
    """Sentences, each with its count."""
    lines = [RULE.format(base=label(BASE))]
    for data, metrics in OF.items():
        lines += [versus(results, data, metric) for metric in metrics]
        lines += [untrained(results, data, metric) for metric in metrics if metric != "dead"]
    lines.append(chance(results))
    lines += leaders(results)
    return lines + failures(results)


def versus(results: Results, data: str, metric: str) -> str:
    """How many arms are better than the baseline, and which."""
    found = results.contrasts(data, metric)
    groups = [_group(found, outcome) for outcome in Outcome]
    title = f"{METRICS[metric].label}, {TITLES[data]}, against {label(BASE)}"
    return f"{title}: {'; '.join(group for group in groups if group)}."


def _group(found: list[Contrast], outcome: Outcome) -> str:
    names = [_named(c) for c in found if c.outcome is outcome]
    return f"{outcome} {len(names)} of {len(found)} ({', '.join(names)})" if names else ""


def _named(found: Contrast) -> str:
    if found.gain is None:
        return label(found.arm)
    sign = 1 if METRICS[found.metric].higher else -1
    difference = sign * found.gain.mean
    mark = "+" if difference >= 0 else "−"
    return f"{label(found.arm)} {mark}{number(abs(difference), digits=2)}"


def untrained(results: Results, data: str, metric: str) -> str:
    """How many arms beat a dictionary that was never trained, at every common L0 they reach."""
    control, seeds = results.of(data, "untrained"), results.settings.seeds
    beaten = []
    for arm in ARMS:
        rows = results.of(data, arm)
        gaps = [_gaps(rows, control, seeds, metric, l0) for l0 in results.settings.common(data)]
        reached = [gap for gap in gaps if gap]
        if reached and all(interval(gap).low > 0 for gap in reached):
            beaten.append(label(arm))
    return (
        f"{METRICS[metric].label}, {TITLES[data]}: {len(beaten)} of {len(ARMS)} arms are above "
        f"untrained TopK at every common L0 they reach (95 % interval of the difference above 0)."
    )


def _gaps(rows, control, seeds, metric: str, l0: float) -> list[float]:
    pairs = [
        (at_l0(points_of(rows, seed, metric), l0), at_l0(points_of(control, seed, metric), l0))
        for seed in seeds
    ]
    return [] if any(None in pair for pair in pairs) else [one - two for one, two in pairs]


def chance(results: Results) -> str:
    """How many arms find features beyond chance at every strength."""
    found = []
    for arm in ARMS:
        rows = results.of("toy", arm)
        strengths = dict.fromkeys(row["strength"] for row in rows)
        excess = [
            [row["mcc"] - results.chance[row["seed"]] for row in rows if row["strength"] == s]
            for s in strengths
            if not any(row["failed"] for row in rows)
        ]
        if excess and all(interval(values).low > 0 for values in excess):
            found.append(label(arm))
    return (
        f"MCC above that of random unit atoms at every strength (95 % interval above 0): "
        f"{len(found)} of {len(ARMS)} arms."
    )


def leaders(results: Results) -> Iterator[str]:
    """Which arm has the highest mean at each common L0, and whether the lead is decided."""
    for data, metrics in OF.items():
        for metric in (m for m in metrics if METRICS[m].higher):
            parts = [_leader(results, data, metric, l0) for l0 in results.settings.common(data)]
            title = f"Highest mean {METRICS[metric].label}, {TITLES[data]}"
            yield f"{title}: {'; '.join(part for part in parts if part) or 'none'}."


def _leader(results: Results, data: str, metric: str, l0: float) -> str:
    seeds = results.settings.seeds
    values = {}
    for arm in ARMS:
        curves = [points_of(results.of(data, arm), seed, metric) for seed in seeds]
        found = [at_l0(curve, l0) for curve in curves]
        if None not in found:
            values[arm] = found
    if len(values) < 2:
        return ""
    first, second = sorted(values, key=lambda arm: -sum(values[arm]))[:2]
    gaps = [one - two for one, two in zip(values[first], values[second], strict=True)]
    lead = "ahead of" if interval(gaps).low > 0 else "not separable from"
    return f"{label(first)} at L0 {l0:g} ({lead} {label(second)})"


def failures(results: Results) -> list[str]:
    """Models that became non-finite."""
    failed = [row for row in results.rows if row["failed"] is not None]
    return [
        f"Not finite: {label(row['arm'])} at {ARMS[row['arm']].knob} = {row['strength']:g}, "
        f"{TITLES[row['data']]}, seed {row['seed']}."
        for row in failed
    ]
