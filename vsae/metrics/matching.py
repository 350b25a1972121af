"""Which latent is which feature, where the features are known."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from vsae.batches import check_finite
from vsae.errors import ConfigError, EmptyDataError, ShapeError


@dataclass(frozen=True)
class Matching:
    """The latent of each feature, -1 for none, and the ``|cos|`` of the two, nan for none."""

    latents: Int[Tensor, " F"]
    cosines: Float[Tensor, " F"]
    width: int

    @property
    def matched(self) -> Int[Tensor, " M"]:
        """The features that have a latent, in order."""
        return (self.latents >= 0).nonzero().flatten()

    @property
    def unmatched_features(self) -> int:
        """Number of features without a latent."""
        return len(self.latents) - len(self.matched)

    @property
    def unmatched_latents(self) -> int:
        """Number of latents without a feature."""
        return self.width - len(self.matched)

    def of_latents(self, structure: Tensor) -> Tensor:
        """Labels ``(K,)`` or edges ``(K, K)`` of the matched latents, in the order of `matched`."""
        return _select(structure, self.latents[self.matched], self.width)

    def of_features(self, structure: Tensor) -> Tensor:
        """Labels ``(F,)`` or edges ``(F, F)`` of the matched features, in the same order."""
        return _select(structure, self.matched, len(self.latents))


def match(atoms: Tensor, features: Tensor, *, threshold: float = 0.7) -> Matching:
    r"""Latents and features one to one, with the greatest sum of ``|cos|``; near pairs are kept.

    .. math:: \max_{π} \sum_f |\cos(d_{π(f)}, t_f)|, \quad \min(K, F) \text{ pairs}

    Structure between latents is comparable with that between features only where both ends are
    matched: :meth:`Matching.of_latents` and :meth:`Matching.of_features` give the two restricted
    to the matched, in one order; the rest is left out, and counted.

    Args:
        atoms: Decoder rows ``(K, d)``, of any norm and sign.
        features: True directions ``(F, d)``.
        threshold: Least ``|cos|`` of a pair that is kept. At 0.7 an atom has about half its squared
            length along the feature; 0 keeps all pairs.

    Raises:
        ShapeError: ``recovery.shape``.
        ConfigError: ``recovery.threshold`` unless in [0, 1].
        DataError: ``data.empty``, ``data.nonfinite``.

    Example:
        >>> found = match(-torch.eye(3).flip(0), torch.eye(3)[:2])
        >>> found.latents.tolist(), found.unmatched_latents
        ([2, 1], 1)
        >>> found.of_latents(torch.tensor([7, 8, 9])).tolist()
        [9, 8]

    Source:
        Kuhn (1955), *The Hungarian method for the assignment problem*.
    """
    check_threshold(threshold)
    cosines = absolute_cosines(atoms, features).cpu()
    latent, feature = map(torch.from_numpy, linear_sum_assignment(1 - cosines.numpy()))
    near = cosines[latent, feature] >= threshold
    latent, feature = latent[near], feature[near]
    latents = torch.full((len(features),), -1)
    latents[feature] = latent
    kept = torch.full((len(features),), torch.nan, dtype=torch.float64)
    kept[feature] = cosines[latent, feature]
    return Matching(latents, kept, len(atoms))


def absolute_cosines(atoms: Tensor, features: Tensor) -> Float[Tensor, "K F"]:
    """``|cos|`` of each atom with each feature, in float64 on their device; 0 for a zero vector."""
    if atoms.dim() != 2 or features.dim() != 2 or atoms.shape[1] != features.shape[1]:
        raise ShapeError(
            f"atoms and features must be (K, d) and (F, d): got {tuple(atoms.shape)} and "
            f"{tuple(features.shape)}.",
            code="recovery.shape",
        )
    if not (len(atoms) and len(features)):
        raise EmptyDataError(
            f"nothing to compare: got {len(atoms)} atoms and {len(features)} features.",
            code="data.empty",
        )
    unit = torch.nn.functional.normalize
    cosines = unit(atoms.detach().double(), dim=-1) @ unit(features.detach().double(), dim=-1).mT
    check_finite(cosines)
    return cosines.abs()


def check_threshold(threshold: float) -> None:
    """Raise ``recovery.threshold`` unless a ``|cos|`` can be compared with it."""
    if not 0 <= threshold <= 1:
        raise ConfigError(
            f"threshold of |cos|: got {threshold}, expected 0 <= threshold <= 1.",
            code="recovery.threshold",
            context={"threshold": threshold},
        )


def _select(structure: Tensor, chosen: Tensor, size: int) -> Tensor:
    if not structure.dim() or any(n != size for n in structure.shape):
        raise ShapeError(
            f"structure of other nodes: got {tuple(structure.shape)}, expected {size} each way.",
            code="structure.shape",
        )
    for dim in range(structure.dim()):
        structure = structure.index_select(dim, chosen.to(structure.device))
    return structure
