"""Rings of residues: the Fourier planes in which points indexed by numbers modulo p lie."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize


@dataclass(frozen=True, eq=False)
class Rings:
    r"""The Fourier planes of a function of residues, :math:`n \mapsto x_n \in \mathbb R^d`.

    .. math:: \hat x_f = \frac1p \sum_n x_n e^{-2πi fn/p}, \quad
        x_n = \bar x + 2 \sum_{f=1}^{(p-1)/2} \mathrm{Re}(\hat x_f)\cos\frac{2πfn}{p}
        - \mathrm{Im}(\hat x_f)\sin\frac{2πfn}{p}

    For each frequency the ``p`` points go ``f`` times round an ellipse in the plane that the real
    and the imaginary part span. *Key* are the frequencies with more than an equal share of the
    power, ``2 / (p - 1)``: no threshold is tuned.

    Args:
        shares: ``((p - 1) / 2,)``, each frequency's share of the variance; frequency 1 first.
        frequencies: ``(F,)`` key frequencies, the strongest first.
        planes: ``(F, 2, d)``, an orthonormal basis of each key frequency's plane. Planes of
            different frequencies need not be orthogonal.

    Example:
        >>> angle = 2 * torch.pi * 2 * torch.arange(5) / 5
        >>> rings = Rings.of(torch.stack([angle.cos(), angle.sin(), torch.ones(5)], 1))
        >>> rings.frequencies.tolist(), [round(share, 3) for share in rings.shares.tolist()]
        ([2], [0.0, 1.0])
        >>> rings.planarity(torch.tensor([[3.0, 4.0, 0.0], [0.6, 0.0, 0.8]])).amax(-1)
        tensor([1.0000, 0.3600], dtype=torch.float64)

    Source:
        Nanda et al. (2023), *Progress measures for grokking*; Zhong et al. (2023), *The Clock and
        the Pizza*.
    """

    shares: Float[Tensor, " half"]
    frequencies: Int[Tensor, " F"]
    planes: Float[Tensor, "F 2 d"]

    @classmethod
    def of(cls, points: Float[Tensor, "p d"]) -> "Rings":
        """The planes of the points of residues 0, 1, … p - 1, for an odd ``p``."""
        waves = torch.fft.rfft(points.double(), dim=0)[1:]
        power = waves.abs().square().sum(-1)
        shares = power / power.sum()
        order = shares.argsort(descending=True)
        key = order[: int((shares > 1 / len(shares)).sum())]
        spans = torch.stack([waves[key].real, waves[key].imag], 1)
        planes = torch.linalg.svd(spans, full_matrices=False).Vh
        return cls(shares, key + 1, planes)

    @property
    def share(self) -> float:
        """The key frequencies' share of the variance over residues."""
        return float(self.shares[self.frequencies - 1].sum())

    def coordinates(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows F 2"]:
        """Orthogonal projection on each plane, in its basis."""
        return torch.einsum("...d,fcd->...fc", x.double(), self.planes)

    def planarity(self, atoms: Float[Tensor, "*K d"]) -> Float[Tensor, "*K F"]:
        """The share of each vector's squared norm that lies in each plane."""
        return self.coordinates(normalize(atoms.double(), dim=-1)).square().sum(-1)

    def angles(self, atoms: Float[Tensor, "*K d"]) -> Float[Tensor, "*K F"]:
        """The direction of each vector's projection on each plane, radians in (-π, π]."""
        along, across = self.coordinates(atoms).unbind(-1)
        return torch.atan2(across, along)

    def explained(self, x: Float[Tensor, "rows d"]) -> float:
        """The share of the rows' variance in the span of all key planes together."""
        centred = x.double() - x.double().mean(0)
        basis = torch.linalg.qr(self.planes.flatten(0, 1).mT).Q
        return float((centred @ basis).square().sum() / centred.square().sum())
