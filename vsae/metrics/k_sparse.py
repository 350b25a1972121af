"""Which latents are a feature's own, by k-sparse probing."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from vsae.metrics.hierarchy import check_rows, check_setting, check_shapes


@dataclass(frozen=True)
class MainLatents:
    """The latents, best first, and the F1 of the probe on 1, 2, … latents as far as tried.

    Their F1 is ``f1[len(latents) - 1]``; that of a guess "always on" at rate q is ``2q / (1 + q)``.
    There are none without a latent that fires more when the feature is on, nor for a feature that
    is not on and off in the first half and on in the second.
    """

    latents: Int[Tensor, " m"]
    f1: tuple[float, ...]


def main_latents(
    codes: Tensor, present: Tensor, *, jump: float = 0.03, limit: int = 10
) -> MainLatents:
    r"""The fewest latents that tell a feature, more being taken while F1 jumps.

    Latents are ranked by the correlation of ``|code|`` with the feature's presence on the first
    half of the rows: the standardised difference of means, which no rescaling of a latent changes.
    Only positive ones count. A least-squares probe on the first ``k``, with the threshold of the
    best F1, is fitted on that half and scored by F1 on the other. ``k`` grows from 1 as long as F1
    exceeds the last by more than ``jump``.

    Args:
        codes: ``(rows, K)``; halves are in their order.
        present: ``(rows,)`` bool: whether the feature is on.
        jump: Gain in F1 that another latent must bring.
        limit: Largest ``k``.

    Raises:
        ShapeError: ``hierarchy.shape``.
        ConfigError: ``hierarchy.setting`` unless jump >= 0 and limit >= 1.
        DataError: ``data.empty``, ``data.nonfinite``.

    Example:
        >>> codes = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(4, 1)
        >>> main_latents(codes, codes[:, 1] > 0)
        MainLatents(latents=tensor([1]), f1=(1.0,))

    Source:
        The rule: Karvonen et al. (2025), *SAEBench*, absorption; Chanin et al. (2024), 2409.14507.
        Their probe is logistic, and their ranking that of an ℓ1 probe.
    """
    codes = check_rows("codes", codes)
    check_shapes([("present", present, (len(codes),))])
    check_setting(jump >= 0, "jump", jump, "jump >= 0")
    check_setting(limit >= 1, "limit", limit, "limit >= 1")
    present = present.detach().cpu().bool()
    ranking = correlations(codes, present[:, None])[0]
    if not bool(probeable(present[:, None])):
        return MainLatents(torch.empty(0, dtype=torch.int64), ())
    return probed(codes, present, ranking, jump=jump, limit=limit)


def probeable(present: Bool[Tensor, "rows F"]) -> Bool[Tensor, " F"]:
    """Which features are on and off in the first half, and on in the second."""
    half = len(present) // 2
    return present[:half].any(0) & ~present[:half].all(0) & present[half:].any(0)


def correlations(codes: Tensor, present: Bool[Tensor, "rows F"]) -> Tensor:
    """Of each feature's presence with each latent's ``|code|``, first half; 0 if either is still.

    Shape ``(F, K)``.
    """
    half = len(codes) // 2
    size, on = codes[:half].double().abs(), present[:half].double()
    if half < 2:
        return torch.zeros(on.shape[1], size.shape[1], dtype=torch.float64)
    size, on = size - size.mean(0), on - on.mean(0)
    scale = on.norm(dim=0)[:, None] * size.norm(dim=0)
    return torch.where(scale > 0, on.mT @ size / scale, 0.0)


def probed(
    codes: Tensor, present: Tensor, ranking: Tensor, *, jump: float, limit: int
) -> MainLatents:
    """The first latents of a ranking, as many as F1 asks for."""
    order = ranking.argsort(descending=True, stable=True)[:limit]
    order = order[ranking[order] > 0]
    scores: list[float] = []
    for k in range(1, len(order) + 1):
        scores.append(_f1(codes[:, order[:k]].double(), present))
        if k > 1 and not scores[-1] > scores[-2] + jump:
            return MainLatents(order[: k - 1], tuple(scores))
    return MainLatents(order, tuple(scores))


def _f1(codes: Tensor, present: Tensor) -> float:
    """Of the probe fitted on the first half, on the second."""
    half = len(codes) // 2
    centred = codes - codes[:half].mean(0)
    train, target = centred[:half], present[:half].double()
    weights = torch.linalg.pinv(train.mT @ train, hermitian=True) @ (train.mT @ target)
    scores = (centred * weights).sum(-1)
    guess = scores[half:] >= _threshold(scores[:half], present[:half])
    hits = int((guess & present[half:]).sum())
    return 2 * hits / int(guess.sum() + present[half:].sum())


def _threshold(scores: Tensor, present: Tensor) -> float:
    """The cut of the best F1, half way between two scores that differ by more than rounding."""
    ordered, order = scores.sort(descending=True)
    found = present[order].cumsum(0).double()
    f1 = 2 * found / (torch.arange(1, len(found) + 1) + present.sum())
    following = torch.cat([ordered[1:], ordered.new_tensor([-torch.inf])])  # last: guess all
    between = ordered - following > 1e-9 * (1 + ordered.abs())
    best = int(torch.where(between, f1, -1.0).argmax())
    return float(ordered[best] + following[best]) / 2
