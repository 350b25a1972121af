"""A belief about weights: an encoder's rows meet no other latent's atom."""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vsae.errors import ConfigError

EPSILON = 1e-6  # the released code's, added to norms


class AbstractBiorthogonality(nn.Module):
    r"""``-weight · penalty(E, D)`` as an unnormalised log-density of weights, per row of data.

    Of :math:`M = E D^\top` (m, m) only sums are needed; where :math:`m > d` they come from two
    ``(d, d)`` products, so that no ``(m, m)`` array exists.

    Args:
        encoder: With rows ``W_enc`` (m, d), shared with the guide.
        decoder: With atoms ``W_dec`` (m, d).
        weight: λ beside the squared error, at least 0.

    Raises:
        ConfigError: ``biorthogonality.setting`` for a negative weight or fewer than two latents.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, *, weight: float) -> None:
        super().__init__()
        if not 0 <= weight < float("inf") or len(decoder.W_dec) < 2:
            raise ConfigError(
                "bi-orthogonality needs a weight of at least 0 and two latents or more: got "
                f"{weight=} and {len(decoder.W_dec)} latents.",
                code="biorthogonality.setting",
            )
        self.encoder, self.decoder, self.weight = encoder, decoder, float(weight)

    def forward(self) -> Float[Tensor, ""]:
        rows, atoms = self.encoder.W_enc, self.decoder.W_dec
        with torch.autocast(rows.device.type, enabled=False):  # sums of many squares
            return -self.weight * self.penalty(rows, atoms)

    @abstractmethod
    def penalty(self, rows: Float[Tensor, "m d"], atoms: Float[Tensor, "m d"]) -> Tensor:
        """What the weight multiplies."""


class Biorthogonality(AbstractBiorthogonality):
    r"""The mean square of what a row and another latent's atom have in common.

    .. math:: \frac1{m^2 - m} \sum_{i \ne j} \langle E_i, D_j \rangle^2

    Args:
        encoder: With rows ``W_enc`` (m, d), shared with the guide.
        decoder: With atoms ``W_dec`` (m, d).
        weight: λ beside the squared error, at least 0.

    Example:
        >>> from vsae import DictionaryEncoder, LinearDecoder
        >>> decoder = LinearDecoder(8, 3)
        >>> bool(Biorthogonality(DictionaryEncoder(decoder), decoder, weight=0.1)() < 0)
        True

    Source:
        Muchane, Richardson, Park & Veitch (2025), 2506.01197, eq. 3.4, squared: the published norm
        over :math:`m^2 - m` has a gradient that shrinks with :math:`m`.
    """

    def penalty(self, rows: Tensor, atoms: Tensor) -> Tensor:
        return off_diagonal(rows, atoms) / _pairs(rows)


class FrobeniusBiorthogonality(AbstractBiorthogonality):
    r"""The published form: a norm, not squared, over the number of pairs.

    .. math:: \frac{\lVert E D^\top - \mathrm{diag}(E D^\top) \rVert_F}{m^2 - m}

    Args:
        encoder: With rows ``W_enc`` (m, d), shared with the guide.
        decoder: With atoms ``W_dec`` (m, d).
        weight: λ beside the squared error, at least 0.

    Source:
        Muchane, Richardson, Park & Veitch (2025), 2506.01197, eq. 3.4.
    """

    def penalty(self, rows: Tensor, atoms: Tensor) -> Tensor:
        return _root(off_diagonal(rows, atoms)) / _pairs(rows)


class ShippedBiorthogonality(AbstractBiorthogonality):
    r"""What the released code computes: unit rows, and the diagonal taken from every *column*.

    .. math:: \frac1{m^2 - m} \Big( \sum_{ij} (M_{ij} - M_{jj})^2 \Big)^{1/2}, \qquad
        M = \hat D \hat E^\top

    The diagonal of a matrix is a vector there, and subtracting it broadcasts. Kept for parity.

    Args:
        encoder: With rows ``W_enc`` (m, d), shared with the guide.
        decoder: With atoms ``W_dec`` (m, d).
        weight: λ beside the squared error, at least 0.

    Source:
        Muchane, Richardson, Park & Veitch (2025), 2506.01197, released code.
    """

    def penalty(self, rows: Tensor, atoms: Tensor) -> Tensor:
        rows, atoms = (
            w / (torch.linalg.vector_norm(w, dim=1, keepdim=True) + EPSILON) for w in (rows, atoms)
        )
        own = torch.linalg.vecdot(atoms, rows)
        sums = rows @ atoms.sum(0)  # of each column of M
        square = total(rows, atoms) - 2 * (own @ sums) + len(rows) * own.square().sum()
        return _root(square) / _pairs(rows)


def total(rows: Float[Tensor, "m d"], atoms: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """``‖E Dᵀ‖²``, of which the smaller of ``(m, m)`` and ``(d, d)`` is made."""
    if len(rows) <= rows.shape[1]:
        return (rows @ atoms.mT).square().sum()
    return ((rows.mT @ rows) * (atoms.mT @ atoms)).sum()


def off_diagonal(rows: Float[Tensor, "m d"], atoms: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """``Σ_{i≠j} ⟨E_i, D_j⟩²``."""
    if len(rows) <= rows.shape[1]:
        matrix = rows @ atoms.mT
        return (matrix - matrix.diagonal().diag()).square().sum()
    return total(rows, atoms) - torch.linalg.vecdot(rows, atoms).square().sum()


def _pairs(rows: Tensor) -> int:
    return len(rows) ** 2 - len(rows)


def _root(square: Tensor) -> Tensor:
    return F.relu(square).clamp(min=torch.finfo(square.dtype).tiny).sqrt()
