"""How far atoms and codes are those of the true, the absorbed or the hedged solution."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn.functional import normalize

from toys.reproduce.recovery_scores import quality
from toys.reproduce.recovery_truth import Directions
from toys.tree_cases import TreeToy
from vsae import metrics

LEAST = 1e-12  # below which a norm is that of nothing
NEAR = 0.95  # cosine from which an atom is a child, or parent and child: at most one of the two
WITH = 0.5  # correlation of firings from which a latent stands for a child
CLOSE = 6.0  # degrees up to which one atom is a feature, or hedges: at most one of the two


@dataclass(frozen=True, eq=False)
class Seen:
    """Some rows as a solution has them, and what is true of them.

    Args:
        x: ``(rows, d)`` in the units of the codes, without the decoder's bias.
        atoms: ``(K, d)``.
        codes: ``(rows, K)``, dense.
        truth: True codes ``(rows, F)``.
    """

    x: Float[Tensor, "rows d"]
    atoms: Float[Tensor, "K d"]
    codes: Float[Tensor, "rows K"]
    truth: Float[Tensor, "rows F"]

    @property
    def fires(self) -> Float[Tensor, "rows K"]:
        """1 where a latent fires, float64."""
        return (self.codes != 0).double()


def found(features: Float[Tensor, "F d"], seen: Seen) -> dict[str, float]:
    """Recovery by direction and by firing, and what firings cost where gates are independent."""
    truth = Directions(features, seen.truth)
    restored = seen.codes @ seen.atoms
    return quality(truth, seen.atoms, seen.codes) | {
        "chance": truth.chance(len(seen.atoms), features.shape[1]),
        "ev": float(metrics.explained_variance(seen.x, restored)),
        "nats": nats(seen.fires),
    }


def nats(fires: Float[Tensor, "rows K"]) -> float:
    """Of a row's firings, on average, under gates that know only how often each latent fires.

    Example:
        >>> round(nats(torch.tensor([[1.0, 1.0], [0.0, 1.0]])), 4)  # log 2, and nothing
        0.6931
    """
    rate = fires.double().mean(0)
    return float(-(torch.xlogy(rate, rate) + torch.xlogy(1 - rate, 1 - rate)).sum())


def tree_scores(toy: TreeToy, seen: Seen, generator: Generator) -> dict[str, float]:
    """Of parents: how well each is detected, and how much of it other latents carry instead.

    Both solutions have an atom along each parent, and a latent that fires with each child. So a
    parent's latent is looked for by its direction, a child's by its firing, and neither solution is
    favoured. A child ends in the true solution where its latent fires with it and lies along it, in
    the absorbed one where it lies along parent and child together, else in neither. ``lean`` is the
    share of those that end in the true solution less that of those in the absorbed one.
    """
    parents = toy.parents
    above, children = parents[parents >= 0].unique(), (parents >= 0).nonzero().flatten()
    own = metrics.match(seen.atoms, toy.dictionary[above], threshold=0.0).latents
    on = (seen.truth > 0).double()
    inputs = seen.x, seen.codes, seen.atoms, on, toy.dictionary
    absorbed = metrics.absorption(*inputs, generator=generator)
    latents, correlation = firing_with(seen.fires, on[:, children])
    theirs, stands = normalize(seen.atoms[latents].double(), dim=-1), correlation >= WITH
    true = (theirs * toy.dictionary[children].double()).sum(-1)
    mixed = (theirs * normalize(toy.concepts[children].double(), dim=-1)).sum(-1)
    return detection(seen.fires[:, own], on[:, above]) | {
        "absorption": float(absorbed.fraction[above].nanmean()),
        "absorption_full": float(absorbed.full[above].nanmean()),
        "absorption_chance": float(absorbed.chance_fraction[above].nanmean()),
        "child_true": float(true.mean()),
        "child_absorbed": float(mixed.mean()),
        **ended(share(stands & (true >= NEAR)), share(stands & (mixed >= NEAR))),
    }


def share(which: Tensor) -> float:
    """Of so many."""
    return float(which.double().mean())


def ended(true: float, wrong: float) -> dict[str, float]:
    """Where training ended: shares in the true and the wrong solution, and which is the greater."""
    return {"true": true, "wrong": wrong, "lean": true - wrong}


def detection(fires: Float[Tensor, "rows P"], on: Float[Tensor, "rows P"]) -> dict[str, float]:
    """Of latents as detectors of the parents they stand for; undefined ratios count as 0."""
    hits = (fires * on).sum(0)
    scores = {
        "parent_precision": hits / fires.sum(0),
        "parent_recall": hits / on.sum(0),
        "parent_f1": 2 * hits / (fires.sum(0) + on.sum(0)),
    }
    return {name: float(value.nan_to_num(nan=0.0).mean()) for name, value in scores.items()}


def firing_with(
    fires: Float[Tensor, "rows K"], on: Float[Tensor, "rows C"]
) -> tuple[Int[Tensor, " C"], Float[Tensor, " C"]]:
    """The latent whose firing correlates most with each feature's, and how much.

    Example:
        >>> fires = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
        >>> latents, correlation = firing_with(fires, fires.flip(1))
        >>> latents.tolist(), [round(value, 6) for value in correlation.tolist()]
        ([1, 0], [1.0, 1.0])
    """
    fires, on = fires - fires.mean(0), on - on.mean(0)
    scale = (on.norm(dim=0)[:, None] * fires.norm(dim=0)).clamp(min=LEAST)
    correlation, latents = (on.mT @ fires / scale).max(-1)
    return latents, correlation


def pair_scores(
    features: Float[Tensor, "2 d"],
    seen: Seen,
    hedged: Float[Tensor, " 2"],
    biased: Float[Tensor, " 2"],
) -> dict[str, float]:
    """Where the one atom points: degrees from the first feature to the second, and to solutions.

    It ends in the true solution where it fires and lies along a feature, in the wrong one where it
    lies along one of the two hedged directions, else in neither.

    Args:
        features: The two, orthonormal.
        seen: Of one atom, of either sign.
        hedged: The best direction without a bias, in coordinates of the features.
        biased: That with one.
    """
    (atom,) = normalize(seen.atoms.double(), dim=-1)
    first, second = (features.double() @ atom).tolist()
    angles = {
        "angle_first": degrees(first),
        "angle_second": degrees(second),
        "angle_hedged": degrees(float(hedged[0]) * first + float(hedged[1]) * second),
        "angle_biased": degrees(float(biased[0]) * first + float(biased[1]) * second),
    }
    mixed = min(angles["angle_hedged"], angles["angle_biased"])
    feature = min(angles["angle_first"], angles["angle_second"])
    fires = bool(seen.fires.any())
    ends = ended(float(fires and feature <= CLOSE), float(fires and mixed <= CLOSE))
    return angles | {"direction": direction(first, second), **ends}


def degrees(cosine: float) -> float:
    """The angle of two lines, 0 to 90.

    Example:
        >>> round(degrees(-0.5), 6)
        60.0
    """
    return math.degrees(math.acos(min(1.0, abs(cosine))))


def direction(first: float, second: float) -> float:
    """Of a line in a plane, degrees from the first axis towards the second, -45 to 135.

    Example:
        >>> [round(direction(*line), 6) for line in ((1.0, 0.0), (-1.0, -1.0), (0.0, -2.0))]
        [0.0, 45.0, 90.0]
    """
    angle = math.degrees(math.atan2(second, first))
    return angle - 180 * math.ceil((angle - 135) / 180)
