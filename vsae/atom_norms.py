"""The size of an atom of several layers, which a crosscoder's penalty multiplies codes by.

A penalty on :math:`z_k` times the size of atom ``k`` is a penalty on :math:`z_k` alone once every
atom has size 1, which is where :class:`vsae.LayeredDecoder` keeps them: each of the weights in use
is a choice of gauge, and the prior stays a density. Sizes are norms made of the norms in each
layer, so that an atom over its size has size 1.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from priors._prior import check_positive


class AbstractAtomNorm(ABC):
    """A norm of atoms, as a function of their norms in each layer; frozen."""

    @abstractmethod
    def size(self, norms: Float[Tensor, "*K layers"]) -> Float[Tensor, "*K"]:
        """The norm of each atom."""

    @abstractmethod
    def slope(self, norms: Float[Tensor, "*K layers"]) -> Float[Tensor, "*K layers"]:
        """Its derivative by the norm in each layer."""


@dataclass(frozen=True)
class SumOfNorms(AbstractAtomNorm):
    r"""The crosscoder's, :math:`\sum_l \lVert w_{k,l} \rVert_2`: few layers are cheaper than many.

    Example:
        >>> SumOfNorms().size(torch.tensor([[3.0, 4.0]])).item()
        7.0

    Source:
        Lindsey et al. (2024), *Sparse Crosscoders for Cross-Layer Features and Model Diffing*.
    """

    def size(self, norms: Float[Tensor, "*K layers"]) -> Float[Tensor, "*K"]:
        return norms.sum(-1)

    def slope(self, norms: Float[Tensor, "*K layers"]) -> Float[Tensor, "*K layers"]:
        return torch.ones_like(norms)


@dataclass(frozen=True)
class ConcatenatedNorm(AbstractAtomNorm):
    r"""The flat SAE's, :math:`\lVert w_k \rVert_2` of the concatenation: layers are as one.

    Example:
        >>> ConcatenatedNorm().size(torch.tensor([[3.0, 4.0]])).item()
        5.0

    Source:
        Lindsey et al. (2024), *Sparse Crosscoders*, on the ℓ2 variant of the penalty.
    """

    def size(self, norms: Float[Tensor, "*K layers"]) -> Float[Tensor, "*K"]:
        return torch.linalg.vector_norm(norms, dim=-1)

    def slope(self, norms: Float[Tensor, "*K layers"]) -> Float[Tensor, "*K layers"]:
        return norms / self.size(norms)[..., None]


@dataclass(frozen=True)
class MixedNorm(AbstractAtomNorm):
    r"""A weighted sum of both, :math:`a \lVert w_k \rVert_2 + b \sum_l \lVert w_{k,l} \rVert_2`.

    Args:
        concatenated: :math:`a`.
        summed: :math:`b`.

    Raises:
        ConfigError: ``prior.bad_concatenated``, ``prior.bad_summed`` unless positive.

    Example:
        >>> MixedNorm().size(torch.tensor([[3.0, 4.0]])).item()
        5.69...

    Source:
        The weights 1 and 0.1 are those of the package ``crosscoder_learning``.
    """

    concatenated: float = 1.0
    summed: float = 0.1

    def __post_init__(self) -> None:
        check_positive("concatenated", self.concatenated)
        check_positive("summed", self.summed)

    def size(self, norms: Float[Tensor, "*K layers"]) -> Float[Tensor, "*K"]:
        whole = torch.linalg.vector_norm(norms, dim=-1)
        return self.concatenated * whole + self.summed * norms.sum(-1)

    def slope(self, norms: Float[Tensor, "*K layers"]) -> Float[Tensor, "*K layers"]:
        whole = torch.linalg.vector_norm(norms, dim=-1, keepdim=True)
        return self.concatenated * norms / whole + self.summed
