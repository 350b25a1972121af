"""The tables of networks that add, and what they say."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import torch

from toys.reproduce.part4_compare import called, mean, missed, paired
from toys.reproduce.part4_modadd_arms import ARMS, FOUND, RANDOM, TRUE
from toys.reproduce.part4_modadd_data import streams
from toys.reproduce.part4_modadd_jobs import CHANCE
from toys.reproduce.part4_part import Rows
from toys.reproduce.part4_settings import Settings
from toys.reproduce.tables import Cell, Table

DATA = "random data points"  # the control that a dictionary has to beat
LABELS = {name: label for name, (label, _) in ARMS.items()}
COLUMNS = {
    "l0": "L0",
    "ev": "EV",
    "accuracy": "right answers",
    "dead": "dead",
    "planarity": "planarity",
    "in_plane": "in a plane",
    "in_plane_all": "in a plane in every layer",
    "consistent": "one plane in all layers",
    "consistent_dealt": "by chance",
    "several": "in several layers",
}
COMPARED = (("blocks", "blocks-shuffled"), ("rings", "rings-shuffled"))
ASKED = ("planarity", "in_plane", "consistent")
"""Scores on which verdicts are given; planarity decides."""


def models(rows: Rows, network: str, arm: str, start: str) -> Sequence[Mapping]:
    """An arm's from a start, a line per seed."""
    return [
        model
        for row in rows
        if (row["network"], row["arm"]) == (network, arm) and not row["failed"]
        for model in row["models"]
        if model["start"] == start
    ]


def modadd_tables(settings: Settings, rows: Rows) -> dict[str, Table]:
    """By the stem of their files."""
    networks = settings.modadd.networks
    return {
        "modadd_scores": Table("Networks that add: atoms and planes", list(_lines(networks, rows))),
        "modadd_layers": Table(
            "Planarity of atoms, layer by layer; true planes and their shares below",
            list(_by_layer(networks, rows)),
        ),
        "modadd_planes": Table(
            "True planes and their share of the variance of each layer", list(_planes(rows))
        ),
        "modadd_overlap": Table(
            "Greatest cosine between two planes of a layer", list(_overlaps(settings))
        ),
    }


def groups(rows: Rows, network: str) -> Iterator[tuple[str, str, Sequence[Mapping]]]:
    """Label, start and models, controls first."""
    chance = dict.fromkeys(
        model["start"]
        for row in rows
        if (row["network"], row["arm"]) == (network, CHANCE)
        for model in row["models"]
    )
    for start in chance:
        yield start, "–", models(rows, network, CHANCE, start)
    for arm, label in LABELS.items():
        for start in (RANDOM, FOUND, TRUE):
            own = models(rows, network, arm, start)
            if own:
                yield label, start, own


def _lines(networks: Sequence[str], rows: Rows) -> Iterator[dict[str, Cell]]:
    for network in networks:
        for label, start, own in groups(rows, network):
            line: dict[str, Cell] = {"network": network, "arm": label, "start": start}
            yield line | {name: mean(own, key) for key, name in COLUMNS.items()}


def _by_layer(networks: Sequence[str], rows: Rows) -> Iterator[dict[str, Cell]]:
    for network in networks:
        for label, start, own in groups(rows, network):
            line: dict[str, Cell] = {"network": network, "arm": label, "start": start}
            layers = max((len(m.get("planarity_layers") or ()) for m in own), default=0)
            yield line | {
                f"layer {at + 1}": mean(own, "planarity_layers", at) for at in range(layers)
            }


def _planes(rows: Rows) -> Iterator[dict[str, Cell]]:
    for row in rows:
        for plane in row.get("planes", ()):
            line: dict[str, Cell] = {"network": row["network"], "function of": plane["of"]}
            line["frequency"] = plane["frequency"]
            yield line | {f"layer {at + 1}": s for at, s in enumerate(plane["shares"])}


def _overlaps(settings: Settings) -> Iterator[dict[str, Cell]]:
    """Of one function of the numbers, and of two: where it is large, "its plane" is not one."""
    for network in settings.modadd.networks:
        planes = streams(network, settings.modadd.rows).planes
        for layer in range(planes.bases.shape[1]):
            line: dict[str, Cell] = {"network": network, "layer": layer + 1}
            found: dict[str, float] = {"of one function": 0.0, "of two functions": 0.0}
            for (one, mine), (other, theirs) in combinations(
                zip(planes.kinds, planes.bases[:, layer], strict=True), 2
            ):
                column = "of one function" if one == other else "of two functions"
                cosine = float(torch.linalg.matrix_norm(mine @ theirs.mT, ord=2))
                found[column] = max(found[column], cosine)
            yield line | found


def modadd_findings(settings: Settings, rows: Rows) -> list[str]:
    """True structure against shuffled, every arm against random data points, consistency."""
    networks, target = settings.modadd.networks, settings.modadd.training.target
    said = [
        *(_structure(rows, networks, pair, start) for pair in COMPARED for start in (FOUND, TRUE)),
        _missed(rows, networks, target),
        *(_against_data(rows, network) for network in networks),
        *(_consistent(rows, network) for network in networks),
    ]
    return [sentence for sentence in said if sentence]


def _structure(
    rows: Rows, networks: Sequence[str], pair: tuple[str, str], start: str
) -> str | None:
    parts = []
    for network in networks:
        one, other = (models(rows, network, arm, start) for arm in pair)
        for key in ASKED:
            found = paired(one, other, key)
            if found is not None:
                parts.append(f"{network}, {COLUMNS[key]}: **{called(found)}** ({found})")
    if not parts:
        return None
    return f"{LABELS[pair[0]]} against {LABELS[pair[1]]}, from {start}: {'; '.join(parts)}."


def _missed(rows: Rows, networks: Sequence[str], target: float) -> str | None:
    late = [
        f"{network}, {label} from {start} ({mean(own, 'l0')})"
        for network in networks
        for label, start, own in groups(rows, network)
        if start in (FOUND, TRUE, RANDOM) and missed(own, target)
    ]
    return f"The target of L0, {target:g}, was missed by {'; '.join(late)}." if late else None


def _against_data(rows: Rows, network: str) -> str | None:
    control = models(rows, network, CHANCE, DATA)
    verdicts: dict[str, list[str]] = {}
    for label, start, own in groups(rows, network):
        if start in (FOUND, RANDOM):
            verdicts.setdefault(called(paired(own, control, "planarity")), []).append(label)
    if not verdicts:
        return None
    listed = "; ".join(f"{verdict}: {', '.join(arms)}" for verdict, arms in verdicts.items())
    return f"{network}: planarity against {DATA} ({mean(control, 'planarity')}): {listed}."


def _consistent(rows: Rows, network: str) -> str | None:
    parts = []
    for label, start, own in groups(rows, network):
        gain = mean([_gain(model) for model in own], "gain")
        if start in (FOUND, RANDOM) and gain is not None:
            parts.append(f"{label} {gain}")
    if not parts:
        return None
    return (
        f"{network}: share of latents with one plane in all their layers, above what dealing the "
        f"planes of each layer gives: {'; '.join(parts)}."
    )


def _gain(model: Mapping) -> Mapping:
    found, dealt = model.get("consistent"), model.get("consistent_dealt")
    return {"gain": None if found is None or dealt is None else found - dealt}
