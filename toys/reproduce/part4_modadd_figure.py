"""The figure of networks that add: which plane each atom lies in, layer by layer."""

from collections.abc import Mapping
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from toys.reproduce.jobs import tensors_of
from toys.reproduce.part4_modadd_arms import ARMS
from toys.reproduce.part4_modadd_data import Streams, streams
from toys.reproduce.part4_part import Rows
from toys.reproduce.part4_settings import Settings
from toys.reproduce.part4_tokens_figures import save

SHOWN = ("l1", "batch_topk", "isotropic", "blocks", "blocks-shuffled")


def modadd_figures(settings: Settings, rows: Rows, folder: Path) -> list[Path]:
    """A picture per network: arms across, layers down, of the first seed."""
    drawn = []
    for network in settings.modadd.networks:
        mine = {row["arm"]: row for row in rows if row["network"] == network and not row["failed"]}
        shown = [mine[arm] for arm in SHOWN if arm in mine]
        if shown:
            figure = picture(streams(network, settings.modadd.rows), shown)
            figure.suptitle(f"{network}: atoms (down) against true planes (across), first seed")
            drawn.append(save(figure, folder / f"modadd_{network}.png"))
    return drawn


def picture(found: Streams, rows: list[Mapping]) -> Figure:
    """The share of each atom in each plane, weighted by how much of it is in the layer."""
    layers = len(found.layers)
    figure = Figure(figsize=(2.5 * len(rows) + 1, 2.6 * layers + 1), layout="constrained")
    axes = figure.subplots(layers, len(rows), squeeze=False)
    image = None
    for column, row in enumerate(rows):
        atoms = tensors_of(row)["atoms"]
        shares, norms = found.planarity(atoms), _relative(atoms, layers)
        order = (shares * norms[..., None]).sum(1).argmax(-1).argsort(stable=True)
        for layer in range(layers):
            values = (shares[:, layer] * norms[:, layer, None])[order]
            image = _panel(axes[layer, column], values)
            axes[layer, column].set_ylabel(f"layer {layer + 1}" if not column else "")
        axes[0, column].set_title(ARMS[row["arm"]][0], fontsize=9)
        axes[-1, column].set_xticks(range(found.count), names(found), fontsize=6, rotation=90)
    figure.colorbar(image, ax=axes, fraction=0.03, label="share of the plane × relative norm")
    return figure


def names(found: Streams) -> list[str]:
    """Function and frequency of each plane."""
    short = {"first": "a", "second": "b", "sum": "a+b", "difference": "a−b"}
    planes = found.planes
    return [f"{short[k]}, {f}" for k, f in zip(planes.kinds, planes.frequencies, strict=True)]


def _relative(atoms: Tensor, layers: int) -> Tensor:
    norms = atoms.unflatten(1, (layers, -1)).norm(dim=-1)
    return norms / norms.amax(1, keepdim=True).clamp(min=torch.finfo(norms.dtype).tiny)


def _panel(axis: Axes, values: Tensor):
    image = axis.imshow(
        values.numpy(), cmap="magma_r", vmin=0, vmax=1, aspect="auto", interpolation="nearest"
    )
    axis.set_xticks([])
    axis.set_yticks([])
    return image
