"""The dictionary of a crosscoder: one atom per latent in every layer it writes to."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vsae.atom_norms import AbstractAtomNorm, SumOfNorms
from vsae.decoders import LinearDecoder
from vsae.errors import ConfigError
from vsae.layers import check_blocks, check_layers, per_column


class LayeredDecoder(LinearDecoder):
    r"""``mean_l = b_l + Σ_k z_k · w_{k,l}`` for all layers at once, atoms of size 1 in a norm.

    The rows of ``W_dec`` (K, Σ_l d_l) hold an atom's parts in each layer, one after another, so
    that whatever works with a flat dictionary works with this one. The size that is 1 decides what
    a penalty on codes costs: of atoms of *any* size, penalised by ``z_k`` times their size, every
    one has the same reconstruction and the same penalty as one of these. The training loop removes
    the gradient along it, and divides by it.

    Args:
        latents: Number of latents :math:`K`.
        layers: Width of each layer, in activation units.
        norm: The size, e.g. :class:`vsae.SumOfNorms` (if ``None``).
        bias: Whether there is a bias ``b_dec`` (Σd,), in activation units.
        writes: Whether a latent has an atom in a layer, ``(K, layers)``; in all if ``None``.
            Elsewhere its atom is 0 and stays so.

    Raises:
        ConfigError: ``layers.widths``, ``layers.blocks``, ``layers.norm``.

    Example:
        >>> decoder = LayeredDecoder(8, (3, 2))
        >>> decoder(torch.zeros(5, 8)).shape, decoder.layer_norms().sum(-1).allclose(torch.ones(8))
        (torch.Size([5, 5]), True)

    Source:
        Lindsey et al. (2024), *Sparse Crosscoders for Cross-Layer Features and Model Diffing*.
    """

    def __init__(
        self,
        latents: int,
        layers: Sequence[int],
        *,
        norm: AbstractAtomNorm | None = None,
        bias: bool = True,
        writes: Bool[Tensor, "K layers"] | None = None,
    ) -> None:
        self.layers = check_layers(layers)
        super().__init__(latents, sum(self.layers), bias=bias)
        self.norm = _checked(SumOfNorms() if norm is None else norm)
        self.register_buffer("writes", check_blocks("writes", writes, latents, self.layers))
        self.project()

    def split(self, rows: Float[Tensor, "*rows d"]) -> tuple[Float[Tensor, "*rows d_l"], ...]:
        """The layers of a concatenation, apart."""
        return rows.split(self.layers, -1)

    def layer_norms(self) -> Float[Tensor, "*K layers"]:
        """The ℓ2 norm of every atom in every layer, ``(K, layers)``."""
        return _norms(self.W_dec, self.layers)

    @torch.no_grad()
    def project_gradient(self) -> None:
        gradient = self.W_dec.grad
        if gradient is None:
            return
        if self.writes is not None:
            gradient.mul_(per_column(self.writes, self.layers))
        norms = _norms(self.W_dec, self.layers)
        slope = self.norm.slope(norms)
        steep = torch.where(norms > 0, slope / norms, 0.0)  # of a layer without an atom: no side
        normal = per_column(steep, self.layers).mul_(self.W_dec)
        along = torch.linalg.vecdot(gradient, normal) / torch.linalg.vecdot(normal, normal)
        gradient.addcmul_(along[..., None], normal, value=-1)

    def has_left(self) -> bool:
        norms = self.layer_norms().detach()
        if self.writes is not None and bool(((norms != 0) & ~self.writes).any()):
            return True
        size = self.norm.size(norms)
        return bool(((size - 1).abs() > 16 * torch.finfo(size.dtype).eps).any())

    @torch.no_grad()
    def project(self) -> None:
        if self.writes is not None:
            self.W_dec.mul_(per_column(self.writes, self.layers))
        self.W_dec.div_(self.norm.size(self.layer_norms())[..., None])


def _checked(norm: AbstractAtomNorm) -> AbstractAtomNorm:
    if isinstance(norm, AbstractAtomNorm):
        return norm
    raise ConfigError(
        f"the size of an atom is a norm: got {norm!r}, expected e.g. SumOfNorms(), "
        "ConcatenatedNorm() or MixedNorm().",
        code="layers.norm",
    )


def _norms(atoms: Tensor, layers: tuple[int, ...]) -> Tensor:
    parts = atoms.split(layers, -1)
    return torch.stack([torch.linalg.vector_norm(part, dim=-1) for part in parts], -1)
