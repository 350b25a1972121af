"""Priors that believe latents to stand in the slots of a network's planes, and shuffled ones."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from priors import BlockDiagonalPrior, Graph, IsotropicPrior
from toys.reproduce.quickstart_structure import Belief, laplacian_prior
from vsae.batches import stream


@runtime_checkable
class PlaneSlots(Protocol):
    """Which plane each latent is of, and its neighbours on the ring."""

    @property
    def labels(self) -> Tensor: ...

    @property
    def ring(self) -> Graph: ...


@runtime_checkable
class OnPlanes(Protocol):
    """What an arm knows: slots, how many latents, how strong a ring is, a stream for shuffles."""

    @property
    def slots(self) -> PlaneSlots: ...

    @property
    def latents(self) -> int: ...

    @property
    def ratio(self) -> float: ...

    @property
    def shuffles(self) -> int: ...


def isotropic(where: OnPlanes, belief: Belief, seed: int) -> nn.Module:
    """Independent latents."""
    return IsotropicPrior(where.latents, scale=belief.scale, loc=belief.mean)


def blocks(where: OnPlanes, belief: Belief, seed: int) -> nn.Module:
    """A learned precision inside the slots of each plane."""
    labels = where.slots.labels
    return BlockDiagonalPrior.from_labels(labels, scale=belief.scale, loc=belief.mean)


def shuffled_blocks(where: OnPlanes, belief: Belief, seed: int) -> nn.Module:
    """The same blocks of other latents."""
    labels = where.slots.labels
    dealt = labels[torch.randperm(len(labels), generator=stream(seed, where.shuffles))]
    return BlockDiagonalPrior.from_labels(dealt, scale=belief.scale, loc=belief.mean)


def rings(where: OnPlanes, belief: Belief, seed: int) -> nn.Module:
    """The Laplacian of neighbours on each ring."""
    return laplacian_prior(where.slots.ring, belief, ratio=where.ratio)


def shuffled_rings(where: OnPlanes, belief: Belief, seed: int) -> nn.Module:
    """The same graph of other latents."""
    graph = where.slots.ring.shuffled(stream(seed, where.shuffles))
    return laplacian_prior(graph, belief, ratio=where.ratio)
