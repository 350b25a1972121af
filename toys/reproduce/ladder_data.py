"""The toys of ``ladder``, each with its truth on two levels."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from toys.forest import Forest
from toys.magnitudes import PositiveNormal
from toys.manifolds import RingsCase
from toys.tree_cases import TreeCase, TreeToy
from toys.tree_geometry import PackedFamilies
from vsae.batches import stream

TOY, TRAIN, HELD, SECOND = 1_000_000, 1_100_000, 1_200_000, 1_300_000  # random streams
D_MODEL, CLUSTERS, CHILDREN, RINGS, ARCS = 32, 12, 4, 8, 6
TREE = TreeCase(
    forest=Forest.balanced((CLUSTERS, CHILDREN), probability=(0.1, 0.5), exclusive=False),
    geometry=PackedFamilies(dimension=CHILDREN),
    magnitude=PositiveNormal(loc=1.0, scale=0.3),
    d_model=D_MODEL,
    noise=0.05,
)
RING = RingsCase(rings=RINGS, d_model=D_MODEL, rate=0.12)


@dataclass(frozen=True, eq=False)
class Truth:
    """Which features are there, row by row.

    Args:
        x: Activations.
        fine: Whether each fine feature fires: a child of a cluster, or an arc of a ring.
        coarse: Whether each cluster or ring is active.
        angles: Where on each ring a row is; ``None`` without rings.
    """

    x: Float[Tensor, "rows d"]
    fine: Bool[Tensor, "rows F"]
    coarse: Bool[Tensor, "rows C"]
    angles: Float[Tensor, "rows C"] | None = None


@dataclass(frozen=True, eq=False)
class World:
    """A toy with its rows, and directions that are true of it.

    Args:
        train: Rows to train on.
        held: Rows held out.
        offsets: What each fine feature adds to its cluster ``(F, d)``.
        concepts: That and the cluster together.
        clusters: ``(C, d)``.
        parents: The cluster of each fine feature.
        layers: Widths of the layers a row is made of.
    """

    train: Truth
    held: Truth
    offsets: Float[Tensor, "F d"]
    concepts: Float[Tensor, "F d"]
    clusters: Float[Tensor, "C d"]
    parents: Int[Tensor, " F"]
    layers: tuple[int, ...]


def world(name: str, seed: int, rows: int, held: int) -> World:
    """``clusters``, ``layers`` or ``rings``; a new draw of everything for each seed."""
    makers = {"clusters": nested, "layers": layered, "rings": rings}
    return makers[name](seed, rows, held)


def nested(seed: int, rows: int, held: int) -> World:
    """Clusters of fine features that fire together, in superposition."""
    toy = TREE.build(stream(seed, TOY))
    parts = (_of_tree([toy], n, stream(seed, s)) for n, s in ((rows, TRAIN), (held, HELD)))
    return _tree_world([toy], *parts)


def layered(seed: int, rows: int, held: int) -> World:
    """The same features in two layers, where they point elsewhere in each."""
    toys = [TREE.build(stream(seed, s)) for s in (TOY, SECOND)]
    parts = (_of_tree(toys, n, stream(seed, s)) for n, s in ((rows, TRAIN), (held, HELD)))
    return _tree_world(toys, *parts)


def _of_tree(toys: list[TreeToy], rows: int, generator: Generator) -> Truth:
    codes = toys[0].sample(rows, generator).codes
    atoms = torch.cat([toy.dictionary for toy in toys], -1)
    noise = torch.randn(rows, atoms.shape[1], generator=generator)
    fires = codes > 0
    return Truth(codes @ atoms + TREE.noise * noise, fires[:, CLUSTERS:], fires[:, :CLUSTERS])


def _tree_world(toys: list[TreeToy], train: Truth, held: Truth) -> World:
    offsets, concepts = (torch.cat([getattr(t, n) for t in toys], -1) for n in _DIRECTIONS)
    return World(
        train,
        held,
        offsets[CLUSTERS:],
        concepts[CLUSTERS:],
        offsets[:CLUSTERS],
        toys[0].parents[CLUSTERS:],
        (D_MODEL,) * len(toys),
    )


_DIRECTIONS = ("offsets", "concepts")


def rings(seed: int, rows: int, held: int) -> World:
    """Rings in planes of their own; fine features are arcs of them."""
    toy = RING.build(stream(seed, TOY))
    found = []
    for count, number in ((rows, TRAIN), (held, HELD)):
        batch = toy.sample(count, stream(seed, number))
        found.append(Truth(batch.x, toy.arcs(batch, ARCS), batch.active, batch.angles))
    middle = 2 * torch.pi * (torch.arange(ARCS) + 0.5) / ARCS
    concepts = torch.cat([toy.points(ring, middle) for ring in range(RINGS)])
    parents = torch.arange(RINGS).repeat_interleave(ARCS)
    offsets = concepts - RING.height * toy.centres[parents]
    return World(*found, offsets, concepts, toy.centres, parents, (D_MODEL,))
