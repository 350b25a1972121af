"""The figure of ``modadd``: atoms against planes, and atoms on the strongest ring."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from toys.modadd import ModAdd
from toys.reproduce.jobs import tensors_of
from toys.reproduce.recovery_figures import write
from toys.reproduce.recovery_modadd import name_of
from toys.reproduce.recovery_modadd_arms import DATA, FOUND, TRUE
from toys.reproduce.recovery_modadd_settings import NUMBERS
from toys.reproduce.recovery_results import Results
from toys.rings import Rings

SHOWN = (
    ("batch_topk", DATA, "BatchTopK"),
    ("ours-coding", DATA, "ours, sparse coding"),
    ("rings-shuffled", FOUND, "V-SAE, rings shuffled,\nfrom an ℓ1 run"),
    ("rings", FOUND, "V-SAE, true rings,\nfrom an ℓ1 run"),
    ("rings-shuffled", TRUE, "V-SAE, rings shuffled,\nfrom the true rings"),
    ("rings", TRUE, "V-SAE, true rings,\nfrom the true rings"),
)
"""Arm, start and title of each panel; of the greatest strength."""


def draw_modadd(results: Results, folder: Path) -> list[Path]:
    """The numbers' stream of the network that is also trained for longer."""
    network = results.settings.modadd.long_network
    rows = {
        row["arm"]: row
        for row in results.parts["modadd"].rows
        if (row["network"], row["stream"]) == (network, NUMBERS)
        and row["updates"] == results.settings.modadd.dense_steps
        and row["models"]
    }
    shown = [(atoms_of(rows[arm], start), title) for arm, start, title in SHOWN if arm in rows]
    panels = [(atoms, title) for atoms, title in shown if atoms is not None]
    if not panels:
        return []
    rings = ModAdd.load(network).number_rings()
    figure = Figure(figsize=(2.35 * len(panels) + 1, 7.2), layout="constrained")
    axes = figure.subplots(2, len(panels), squeeze=False, height_ratios=(2, 1))
    numbers: dict[str, list] = {}
    image = None
    for (atoms, title), above, below in zip(panels, axes[0], axes[1], strict=True):
        image = heat(above, rings, atoms)
        above.set_title(title, fontsize=9)
        around(below, rings, atoms, ModAdd.load(network).weights["embed.W_E"].mT)
        numbers[title.replace("\n", " ")] = rings.planarity(atoms).tolist()
    axes[0, 0].set_ylabel("atoms, by the plane they are most in")
    axes[1, 0].set_ylabel(f"plane of frequency {int(rings.frequencies[0])}")
    figure.colorbar(image, ax=axes[0], fraction=0.03, label="share of the squared norm")
    figure.suptitle(f"{network}: atoms against the planes of its numbers, first seed", fontsize=11)
    return [write(folder, "modadd_planes", (figure, {"frequencies": rings.frequencies.tolist(),
                                                     "shares": numbers}))]  # fmt: skip


def atoms_of(row: Mapping, start: str) -> Tensor | None:
    """The first seed's dictionary from a start, at the greatest strength."""
    strengths = [model["strength"] for model in row["models"] if model["start"] == start]
    return tensors_of(row)[name_of(start, max(strengths))] if strengths else None


def heat(axis: Axes, rings: Rings, atoms: Tensor):
    """Atoms down, planes and what is outside all of them across."""
    shares = rings.planarity(atoms)
    best = shares.max(-1)
    order = (best.indices - best.values / 2).argsort()
    rest = (1 - shares.sum(-1, keepdim=True)).clamp(min=0)
    image = axis.imshow(
        torch.cat([shares, rest], 1)[order].numpy(),
        cmap="magma_r",
        vmin=0,
        vmax=1,
        aspect="auto",
        interpolation="nearest",
    )
    names = [*map(str, rings.frequencies.tolist()), "rest"]
    axis.set_xticks(range(len(names)), names, fontsize=7)
    axis.set_yticks([])
    axis.set_xlabel("frequency", fontsize=8)
    return image


def around(axis: Axes, rings: Rings, atoms: Tensor, numbers: Tensor) -> None:
    """Numbers and atoms in the strongest plane: an atom inside it reaches the circle."""
    points = rings.coordinates(numbers)[:, 0]
    points = points / points.square().sum(-1).mean().sqrt()
    axis.plot(*points.mT.tolist(), ".", color="0.75", markersize=3)
    unit = torch.nn.functional.normalize(atoms.double(), dim=-1)
    for x, y in rings.coordinates(unit)[:, 0].tolist():
        axis.plot(
            [0, x], [0, y], color="#c62828", linewidth=0.9, alpha=0.3 + 0.7 * math.hypot(x, y)
        )
    axis.set_aspect("equal")
    axis.set_xlim(-1.3, 1.3)
    axis.set_ylim(-1.3, 1.3)
    axis.axis("off")
