"""Activations of a modular-addition network, the planes in them, and a slot for each latent."""

import math
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor

from priors.graph import Graph
from toys.modadd import ModAdd
from toys.reproduce.recovery_modadd_settings import SUMS
from vsae.normalizers import AffineNormalizer

SPLIT = 0  # the seed by which rows are held out, the same for all


class Activations:
    """One stream of a network over all inputs, in part held out, and its true planes.

    Args:
        network: A name in ``toys.modadd.NETWORKS``.
        stream: ``numbers`` or ``sums``.
        train: Rows that are not held out.
    """

    def __init__(self, network: str, stream: str, train: int) -> None:
        self.model = ModAdd.load(network)
        self.sums = stream == SUMS
        of_stream = self.model.sum_stream if self.sums else self.model.number_stream
        self.all = of_stream().to(torch.get_default_dtype())
        self.rings = self.model.sum_rings() if self.sums else self.model.number_rings()
        order = torch.randperm(len(self.all), generator=Generator().manual_seed(SPLIT))
        self.train, self.test = self.all[order[:train]], self.all[order[train:]]
        self.normalizer = AffineNormalizer.fit(self.train)

    @property
    def planes(self) -> int:
        """How many key planes there are."""
        return len(self.rings.frequencies)


@lru_cache(maxsize=2)
def activations(network: str, stream: str, train: int) -> Activations:
    """A pure function of its arguments; the last two are kept."""
    return Activations(network, stream, train)


class Slots:
    """The true structure: as many latents on each ring, evenly spaced; spare ones alone.

    Args:
        found: Whose rings.
        latents: ``K``; what does not divide evenly is spare.
    """

    def __init__(self, found: Activations, latents: int) -> None:
        self.per_ring = latents // found.planes
        self.spare = latents - self.per_ring * found.planes
        angle = 2 * math.pi * torch.arange(self.per_ring, dtype=torch.float64) / self.per_ring
        circle = torch.stack([angle.cos(), angle.sin()], 1)
        on_rings = torch.einsum("nc,fcd->fnd", circle, found.rings.planes).flatten(0, 1)
        rows = found.normalizer(found.train[: self.spare]).double()
        atoms = torch.cat([on_rings, torch.nn.functional.normalize(rows, dim=-1)])
        self.atoms: Float[Tensor, "K d"] = atoms.to(found.train.dtype)
        self.sizes = (self.per_ring,) * found.planes + (1,) * self.spare

    @property
    def ring(self) -> Graph:
        """Neighbours on each ring tied."""
        alone = [Graph.blocks([1])] * self.spare
        rings = [Graph.ring(self.per_ring)] * (len(self.sizes) - self.spare)
        return Graph.disjoint([*rings, *alone])

    @property
    def labels(self) -> Int[Tensor, " K"]:
        """The block of each slot."""
        return torch.repeat_interleave(torch.arange(len(self.sizes)), torch.tensor(self.sizes))

    def order(self, atoms: Float[Tensor, "K d"]) -> Int[Tensor, " K"]:
        """The latent that each slot gets: the one-to-one matching of greatest total cosine."""
        slot, latent = linear_sum_assignment(-(self.atoms @ atoms.mT).double().numpy())
        return torch.from_numpy(latent[slot.argsort()])
