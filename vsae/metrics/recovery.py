"""How well true features are found, where they are known."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vsae.metrics.matching import absolute_cosines, match


def mean_correlation_coefficient(
    atoms: Float[Tensor, "K d"], features: Float[Tensor, "F d"]
) -> float:
    """Mean ``|cos|`` over the Hungarian matching of atoms and features, ``min(K, F)`` pairs.

    Chance is not zero: random atoms in few dimensions match well. Always print it beside.

    Example:
        >>> mean_correlation_coefficient(-torch.eye(3).flip(0), torch.eye(3))
        1.0

    Source:
        Chanin et al. (2026), *SynthSAEBench*; the matching after Hyvärinen & Morioka (2016).
    """
    found = match(atoms, features, threshold=0.0)
    return float(found.cosines[found.matched].mean())


def uniqueness(atoms: Float[Tensor, "K d"], features: Float[Tensor, "F d"]) -> float:
    """Number of distinct features that are some atom's best match, over ``K``."""
    return len(absolute_cosines(atoms, features).argmax(-1).unique()) / len(atoms)


@dataclass(frozen=True)
class Classification:
    """Latents as classifiers of the feature they match best; means over latents."""

    precision: float
    recall: float
    f1: float


def latent_f1(
    atoms: Float[Tensor, "K d"],
    features: Float[Tensor, "F d"],
    codes: Float[Tensor, "rows K"],
    truth: Float[Tensor, "rows F"],
) -> Classification:
    """Each latent as a classifier of its best-matching feature: precision, recall, F1.

    A latent's feature is ``argmax |cos|``; it fires where its code is ``!= 0``, the feature where
    its magnitude is ``> 0``; undefined ratios count as 0; then means over latents.

    Source:
        Chanin et al. (2026), *SynthSAEBench*, §4 (definitions).
    """
    best = absolute_cosines(atoms, features).argmax(-1)
    fires, true = codes != 0, (truth > 0)[:, best]
    hits = (fires & true).sum(0).double()
    precision = torch.nan_to_num(hits / fires.sum(0), nan=0.0)
    recall = torch.nan_to_num(hits / true.sum(0), nan=0.0)
    f1 = torch.nan_to_num(2 * precision * recall / (precision + recall), nan=0.0)
    return Classification(*(value.mean().item() for value in (precision, recall, f1)))


def absorption_fraction(
    x: Float[Tensor, "rows d"],
    codes: Float[Tensor, "rows K"],
    atoms: Float[Tensor, "K d"],
    probe: Float[Tensor, " d"],
    main: Bool[Tensor, " K"],
) -> Float[Tensor, " rows"]:
    r"""Share of a probe's projection that absorbing latents carry instead of its main ones.

    With :math:`\cos_k = \langle p, d_k\rangle`, :math:`a_k = z_k \cos_k`, :math:`P = x\cdot p`,
    :math:`M = \sum_{main} a_k` and :math:`A` the sum of the 3 largest positive :math:`a_k` among
    non-main latents with :math:`\cos_k \ge 0.1`: 0 if :math:`M \ge P` or :math:`A/P < 0.4`; 1 if
    :math:`M \le 0`; else :math:`c/(c + M)` with :math:`c = \min(A, P - M)`.

    Args:
        x: Activations on which the probed feature is present.
        codes: Their codes.
        atoms: Decoder rows.
        probe: The feature's direction; normalised here.
        main: Which latents are the feature's own.

    Source:
        Karvonen et al. (2025), *SAEBench*, absorption metric; Chanin et al. (2024), 2409.14507.
    """
    unit = torch.nn.functional.normalize
    direction = unit(probe.double(), dim=0)
    cosine = unit(atoms.double(), dim=-1) @ direction
    parts, projection = codes.double() * cosine, x.double() @ direction
    own = parts[:, main].sum(-1)
    others = torch.where(~main & (cosine >= 0.1), parts, 0.0).clamp(min=0.0)
    absorbed = others.topk(min(3, len(atoms)), dim=-1).values.sum(-1)
    carried = torch.minimum(absorbed, projection - own)
    fraction = torch.where(own <= 0, 1.0, carried / (carried + own))
    return torch.where((own >= projection) | (absorbed < 0.4 * projection), 0.0, fraction)
