"""The layers of networks that add, and the Fourier planes that lie in each: true blocks."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from toys.modadd import ModAdd
from toys.rings import Rings

KINDS = ("first", "second", "sum", "difference")
"""The functions of the two numbers a, b modulo p: a, b, a + b and a - b."""


@dataclass(frozen=True, eq=False)
class LayerPlanes:
    """Planes over the layers of a network; each is a block of features that turns together.

    A plane is one frequency of a function of one of ``KINDS``; it is here if that frequency is key
    in some layer.

    Args:
        kinds: ``P``, of what the plane is a function.
        frequencies: ``P``, how many times it goes round.
        shares: ``(P, n)``, how much of a layer's variance over all inputs lies on that frequency
            of that function. Functions of different kinds are uncorrelated over all inputs, and so
            are frequencies: what is missing to 1 depends on both numbers in another way.
        bases: ``(P, n, 2, d)``, an orthonormal basis of the plane in each layer.
        whole: ``(4, n)``, the share of the variance that is a function of each kind, at all
            frequencies.
    """

    kinds: tuple[str, ...]
    frequencies: tuple[int, ...]
    shares: Float[Tensor, "P n"]
    bases: Float[Tensor, "P n 2 d"]
    whole: Float[Tensor, "4 n"]

    def planarity(self, atoms: Float[Tensor, "K n d"]) -> Float[Tensor, "K n P"]:
        """The share of each atom's squared norm in each layer that lies in each plane."""
        unit = normalize(atoms.double(), dim=-1)
        return torch.einsum("knd,pncd->knpc", unit, self.bases).square().sum(-1)


def modadd_streams(model: ModAdd, layers: Sequence[int] | None = None) -> Float[Tensor, "N n d"]:
    """The residual stream at the last token, off which the answer is read, for all ``p²`` inputs.

    Args:
        model: The network.
        layers: Which streams: after each block if ``None``. Layer 0 is the embedding of ``b``
            alone and has only ``p`` different rows.

    Example:
        >>> modadd_streams(ModAdd.load("three-blocks")).shape
        torch.Size([3481, 3, 128])
    """
    layers = range(1, model.num_layers + 1) if layers is None else layers
    return model.residuals(model.pairs())[list(layers), :, 1].movedim(0, 1)


def layer_planes(model: ModAdd, layers: Sequence[int] | None = None) -> LayerPlanes:
    r"""The planes of every layer, by the mean of its stream over the inputs of equal a, b, a ± b.

    .. math:: \bar h(c) = \frac1p \sum_{a + b = c} h(a, b)

    and likewise of the other kinds. A kind counts in a layer if its function has more than 1 % of
    the layer's variance, a frequency as in :class:`toys.rings.Rings`: with more than an equal share
    of the function's.

    Args:
        model: The network.
        layers: As of :func:`modadd_streams`.

    Example:
        >>> planes = layer_planes(ModAdd.load("pizza"))
        >>> for kind, f, share in zip(planes.kinds, planes.frequencies, planes.shares.tolist()):
        ...     print(kind, f, [round(value, 2) for value in share])
        first 3 [0.02]
        first 15 [0.01]
        first 17 [0.02]
        second 3 [0.02]
        second 15 [0.02]
        second 17 [0.03]
        sum 3 [0.32]
        sum 15 [0.16]
        sum 17 [0.39]

    Source:
        Zhong et al. (2023), *The Clock and the Pizza*.
    """
    streams = modadd_streams(model, layers).double()
    streams = streams - streams.mean(0)
    a, b = model.pairs().mT
    residues = [r % model.modulus for r in (a, b, a + b, a - b)]
    total = streams.square().sum((0, 2))
    means = [_means(streams, residue, model.modulus) for residue in residues]
    whole = torch.stack([m.square().sum((0, 2)) * model.modulus / total for m in means])
    planes = []
    for kind, mean, share in zip(KINDS, means, whole, strict=True):
        planes += _planes(kind, mean, share)
    kinds, frequencies, shares, bases = zip(*planes, strict=True)
    return LayerPlanes(kinds, frequencies, torch.stack(shares), torch.stack(bases), whole)


def _means(streams: Tensor, residue: Tensor, modulus: int) -> Float[Tensor, "p n d"]:
    total = streams.new_zeros(modulus, *streams.shape[1:])
    return total.index_add(0, residue, streams) / modulus


def _planes(kind: str, mean: Tensor, whole: Tensor) -> list[tuple[str, int, Tensor, Tensor]]:
    """Those of one kind, by frequency."""
    waves = torch.fft.rfft(mean, dim=0)[1:]
    power = waves.abs().square().sum(-1)
    counts = [layer for layer, share in enumerate(whole.tolist()) if share > 0.01]
    key = sorted({f for at in counts for f in Rings.of(mean[:, at]).frequencies.tolist()})
    shares = power / power.sum(0) * whole
    spans = torch.stack([waves.real, waves.imag], -2)
    bases = torch.linalg.svd(spans, full_matrices=False).Vh
    return [(kind, f, shares[f - 1], bases[f - 1]) for f in key]
