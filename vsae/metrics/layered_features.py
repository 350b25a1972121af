"""Whether a crosscoder's latents are the true features, and are where those are."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vsae.errors import ConfigError, ShapeError
from vsae.metrics.layer_norms import layer_cosines
from vsae.metrics.matching import match
from vsae.metrics.recovery import mean_correlation_coefficient
from vsae.metrics.roc import auc


@dataclass(frozen=True, kw_only=True)
class PresenceRecovery:
    """Whether latents are in the layers of their features.

    Args:
        auc: Probability that a layer where a feature is has more of its latent's norm than one
            where a feature is not; chance ½, nan if all are everywhere.
        f1: Of "relative norm > ``present``" as a classifier of presence.
        exact: Share of features whose layers are all told rightly.
        first: Mean number of layers by which the first one is missed.
        last: Likewise the last.
    """

    auc: float
    f1: float
    exact: float
    first: float
    last: float


@dataclass(frozen=True, kw_only=True)
class LayeredRecovery:
    """How well features over layers are found; nan where there is nothing to take a mean of.

    Args:
        mcc: Mean ``|cos|`` of whole atoms and features, layers concatenated, over the matching.
        matched: Share of the features with a latent of ``|cos|`` of at least the threshold; what
            follows is over these.
        presence: In which layers they are.
        angle_error: Mean error of the angle between neighbouring layers, in degrees, where a
            feature is in both and so is its latent.
    """

    mcc: float
    matched: float
    presence: PresenceRecovery
    angle_error: float


def layered_recovery(
    atoms: Float[Tensor, "K width"],
    directions: Float[Tensor, "F n d"],
    *,
    threshold: float = 0.7,
    present: float = 0.3,
) -> LayeredRecovery:
    r"""Matching of whole atoms with whole features, then where and how each lies in the layers.

    .. math:: \text{present}_{kl} \iff \lVert w_{kl}\rVert > τ \max_m \lVert w_{km}\rVert

    Norms are taken relative to the latent's greatest, not as shares (:func:`layer_norm_shares`),
    which are less the more layers a feature is in.

    Args:
        atoms: Decoder rows, layers of equal width concatenated, in the units of ``directions``.
        directions: True ones, zero in the layers where a feature is not.
        threshold: Least ``|cos|`` of a pair that counts as matched.
        present: τ, in [0, 1).

    Raises:
        ShapeError: ``recovery.shape``, ``metrics.layers``.
        ConfigError: ``recovery.threshold``, ``metrics.present``.
        DataError: ``data.empty``, ``data.nonfinite``.

    Example:
        >>> truth = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]])
        >>> found = layered_recovery(-3 * truth.flatten(1).flip(0), truth)
        >>> found.mcc, found.presence.exact, found.presence.auc, found.angle_error
        (1.0, 1.0, 1.0, 0.0)
    """
    if not 0 <= present < 1:
        raise ConfigError(
            f"relative norm of presence: got {present}, expected 0 <= present < 1.",
            code="metrics.present",
        )
    if directions.dim() != 3:
        raise ShapeError(
            f"directions over layers are (F, n, d): got {tuple(directions.shape)}.",
            code="metrics.layers",
        )
    flat = directions.flatten(1)
    found = match(atoms, flat, threshold=threshold)
    latents = atoms.detach()[found.latents[found.matched]].double()
    truth = directions[found.matched].double()
    return LayeredRecovery(
        mcc=mean_correlation_coefficient(atoms, flat),
        matched=len(found.matched) / len(directions),
        presence=_presence(latents.view(truth.shape), truth.any(-1), present),
        angle_error=_mean(_angle_errors(latents, truth)),
    )


def _presence(latents: Tensor, truth: Bool[Tensor, "M n"], present: float) -> PresenceRecovery:
    norms = latents.norm(dim=-1)
    relative = norms / norms.amax(-1, keepdim=True) if len(norms) else norms
    told = relative > present
    hits, asked = (told & truth).sum().double(), (told.sum() + truth.sum()).double()
    ends = [_ends(where) for where in (told, truth)]
    first, last = ((a - b).abs().double() for a, b in zip(*ends, strict=True))
    return PresenceRecovery(
        auc=auc(relative.flatten(), truth.flatten()) if truth.numel() else math.nan,
        f1=float(2 * hits / asked),
        exact=_mean((told == truth).all(-1).double()),
        first=_mean(first),
        last=_mean(last),
    )


def _ends(where: Bool[Tensor, "M n"]) -> tuple[Tensor, Tensor]:
    """The first and the last layer of each row."""
    layer = torch.arange(where.shape[1], device=where.device)
    after = torch.where(where, layer, where.shape[1])
    return after.amin(-1), torch.where(where, layer, -1).amax(-1)


def _angle_errors(latents: Tensor, truth: Float[Tensor, "M n d"]) -> Float[Tensor, " pairs"]:
    layers = (truth.shape[2],) * truth.shape[1]
    cosines = (layer_cosines(atoms, layers) for atoms in (latents, truth.flatten(1)))
    angles = [torch.rad2deg(c.diagonal(1, -2, -1).clamp(-1, 1).acos()) for c in cosines]
    errors = (angles[0] - angles[1]).abs()
    return errors[~errors.isnan()]


def _mean(values: Tensor) -> float:
    return float(values.mean()) if len(values) else math.nan
