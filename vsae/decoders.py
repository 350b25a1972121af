"""Dictionaries: from a code to the mean of an activation."""

from abc import abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from priors.replicas import rows_affine
from vsae.slots import bag


class Projected(nn.Module):
    """A module whose parameters live on a manifold; the training loop calls its two methods."""

    @abstractmethod
    def project_gradient(self) -> None:
        """Keep of each gradient what lies in the tangent space; before the optimiser."""

    @abstractmethod
    def has_left(self) -> bool:
        """Whether the parameters are off the manifold by more than rounding."""

    @abstractmethod
    def project(self) -> None:
        """Put the parameters back on the manifold; after the optimiser."""


class FreeDecoder(nn.Module):
    r"""``mean = b_dec + Σ_k z_k · atom_k`` with atoms of any norm.

    Any penalty on codes is evaded by ``z → εz, W → W/ε`` unless codes are noisy: prefer
    :class:`LinearDecoder`.

    Args:
        latents: Number of latents :math:`K`.
        d_model: Width :math:`d` of an activation.
        bias: Whether there is a bias ``b_dec`` (d,), in activation units.

    Example:
        >>> FreeDecoder(8, 3)(torch.zeros(5, 8)).shape
        torch.Size([5, 3])
    """

    def __init__(self, latents: int, d_model: int, *, bias: bool = True) -> None:
        super().__init__()
        self.latents, self.d_model, self.bias = latents, d_model, bias
        self.W_dec = nn.Parameter(_random_atoms(latents, d_model))
        self.b_dec = nn.Parameter(torch.zeros(d_model)) if bias else None

    def forward(
        self, z: Float[Tensor, "*rows K"], support: Int[Tensor, "*rows K"] | None = None
    ) -> Float[Tensor, "*batch d"]:
        """Dense ``z`` (B, K), or amplitudes ``z`` (B, W) of the latents ``support`` (B, W)."""
        return decode(z, support, self.W_dec, self.b_dec)

    def atoms_of(self, latents: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """The atoms of some latents."""
        return self.W_dec.index_select(0, latents)


class LinearDecoder(Projected):
    r"""``mean = b_dec + Σ_k z_k · atom_k``; the rows of ``W_dec`` (K, d) are unit atoms.

    Unit norm fixes the scale gauge: without it every penalty on codes is evaded by shrinking them
    and growing the atoms. The training loop removes the gradient along each atom and renormalises.

    Args:
        latents: Number of latents :math:`K`.
        d_model: Width :math:`d` of an activation.
        bias: Whether there is a bias ``b_dec`` (d,), in activation units.

    Example:
        >>> LinearDecoder(8, 3).W_dec.norm(dim=-1).allclose(torch.ones(8))
        True

    Source:
        Bricken et al. (2023), *Towards Monosemanticity*, appendix "Advice for training SAEs".
    """

    def __init__(self, latents: int, d_model: int, *, bias: bool = True) -> None:
        super().__init__()
        self.latents, self.d_model, self.bias = latents, d_model, bias
        self.W_dec = nn.Parameter(_random_atoms(latents, d_model))
        self.b_dec = nn.Parameter(torch.zeros(d_model)) if bias else None

    def forward(
        self, z: Float[Tensor, "*rows K"], support: Int[Tensor, "*rows K"] | None = None
    ) -> Float[Tensor, "*batch d"]:
        """Dense ``z`` (B, K), or amplitudes ``z`` (B, W) of the latents ``support`` (B, W)."""
        return decode(z, support, self.W_dec, self.b_dec)

    def atoms_of(self, latents: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """The atoms of some latents."""
        return self.W_dec.index_select(0, latents)

    @torch.no_grad()
    def project_gradient(self) -> None:
        if self.W_dec.grad is not None:
            along = torch.linalg.vecdot(self.W_dec.grad, self.W_dec)
            self.W_dec.grad.addcmul_(along[..., None], self.W_dec, value=-1)

    def has_left(self) -> bool:
        norm = torch.linalg.vector_norm(self.W_dec.detach(), dim=-1)
        return bool(((norm - 1).abs() > 16 * torch.finfo(norm.dtype).eps).any())

    @torch.no_grad()
    def project(self) -> None:
        self.W_dec.div_(torch.linalg.vector_norm(self.W_dec, dim=-1, keepdim=True))


def decode(z: Tensor, support: Tensor | None, atoms: Tensor, bias: Tensor | None) -> Tensor:
    """``bias + Σ_k z_k · atom_k`` of dense codes, or ``bias + Σ_j z_j · atom_{support_j}``."""
    if support is None:
        return rows_affine(z, atoms, bias)
    width = z.shape[-1]
    mean = bag(support.reshape(-1, width), z.reshape(-1, width), atoms)
    mean = mean if z.dim() == 2 else mean.view(*z.shape[:-1], -1)
    return mean if bias is None else mean + bias


def _random_atoms(latents: int, d_model: int) -> Tensor:
    return nn.functional.normalize(torch.randn(latents, d_model), dim=-1)
