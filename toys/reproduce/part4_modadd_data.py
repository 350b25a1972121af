"""All layers of a network that adds, the planes of each, and a slot for each latent."""

import math
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor
from torch.nn.functional import normalize

from priors.graph import Graph
from toys.modadd import ModAdd
from toys.modadd_layers import KINDS, LayerPlanes, layer_planes, modadd_streams
from vsae import LayerNormalizer

SPLIT = 0  # the seed by which rows are held out, the same for all


class Streams:
    """The streams of a network over all inputs, in part held out, and its true planes.

    Args:
        network: A name in ``toys.modadd.NETWORKS``.
        rows: Those that are not held out.
    """

    def __init__(self, network: str, rows: int) -> None:
        self.model = ModAdd.load(network)
        self.all = modadd_streams(self.model).to(torch.get_default_dtype())
        self.planes: LayerPlanes = layer_planes(self.model)
        order = torch.randperm(len(self.all), generator=Generator().manual_seed(SPLIT))
        self.train, self.test = self.all[order[:rows]], self.all[order[rows:]]
        self.layers = (self.all.shape[2],) * self.all.shape[1]
        self.normalizer = LayerNormalizer.fit(self.train.flatten(1), self.layers)

    @property
    def count(self) -> int:
        """How many planes there are."""
        return len(self.planes.kinds)

    def waves(self) -> Float[Tensor, "P 2 n d"]:
        r"""The cosine and the sine part of each plane in each layer, in normalised units.

        .. math:: \frac2N \sum_{ab} h^l(a, b) \cos\frac{2πfr(a, b)}p

        and likewise of the sine, with r the plane's function of the numbers: together, over the
        layers, one ring that every layer turns along at once.
        """
        x = self.normalizer(self.all.flatten(1)).double()
        a, b = self.model.pairs().mT
        functions = dict(zip(KINDS, (a, b, a + b, a - b), strict=True))
        found = []
        for kind, frequency in zip(self.planes.kinds, self.planes.frequencies, strict=True):
            turn = 2 * math.pi * frequency * functions[kind].double() / self.model.modulus
            circle = torch.stack([turn.cos(), turn.sin()])
            found.append(2 / len(x) * (circle @ (x - x.mean(0))))
        return torch.stack(found).unflatten(-1, self.all.shape[1:])

    def planarity(self, atoms: Float[Tensor, "K width"]) -> Float[Tensor, "K n P"]:
        """Of atoms, the share of each layer's squared norm in each plane."""
        return self.planes.planarity(atoms.detach().unflatten(1, self.all.shape[1:]))


@lru_cache(maxsize=2)
def streams(network: str, rows: int) -> Streams:
    """A pure function of its arguments; the last two are kept."""
    return Streams(network, rows)


class Slots:
    """The true structure: as many latents around the ring of each plane; spare ones alone.

    Args:
        found: Whose planes.
        latents: ``K``; what does not divide evenly is spare.
    """

    def __init__(self, found: Streams, latents: int) -> None:
        self.each = latents // found.count
        spare = latents - self.each * found.count
        angle = 2 * math.pi * torch.arange(self.each, dtype=torch.float64) / self.each
        circle = torch.stack([angle.cos(), angle.sin()], 1)
        around = torch.einsum("sc,pcnd->psnd", circle, found.waves()).flatten(0, 1).flatten(1)
        rows = found.normalizer(found.train[:spare].flatten(1)).double()
        atoms = torch.cat([normalize(around, dim=-1), normalize(rows, dim=-1)])
        self.atoms: Float[Tensor, "K width"] = atoms.to(found.train.dtype)
        self.sizes = (self.each,) * found.count + (1,) * spare

    @property
    def labels(self) -> Int[Tensor, " K"]:
        """The plane of each slot; the spare ones have each their own."""
        return torch.repeat_interleave(torch.arange(len(self.sizes)), torch.tensor(self.sizes))

    @property
    def ring(self) -> Graph:
        """Neighbours on each ring tied."""
        return Graph.disjoint(
            [Graph.ring(size) if size > 2 else Graph.blocks([size]) for size in self.sizes]
        )

    def order(self, atoms: Float[Tensor, "K width"]) -> Int[Tensor, " K"]:
        """The latent that each slot gets: the one-to-one matching of greatest total cosine."""
        near = self.atoms @ normalize(atoms.detach(), dim=-1).mT
        slot, latent = linear_sum_assignment(-near.double().numpy())
        return torch.from_numpy(latent[slot.argsort()])
