"""How well latents detect the concepts of a true hierarchy, beside what permuted words would give.

Latents are chosen for concepts on words whose concepts are known, and scored on other words.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from vsae import metrics

DRAWS = 19  # permutations: the truth beats all of them with probability 1/20 if it is no better


@dataclass(frozen=True, eq=False)
class Detection:
    """Scores of concepts and of latents, with the words as they are and permuted.

    Args:
        f1: ``(C,)``, of the latent chosen for each concept.
        f1_null: ``(draws, C)``, with words permuted.
        purity: The mean over latents of the share of their words that are of the concept that each
            was chosen for; over those that fire.
        purity_null: The same, mean over permutations.
    """

    f1: Float[Tensor, " C"]
    f1_null: Float[Tensor, "draws C"]
    purity: float
    purity_null: float

    @property
    def found(self) -> float:
        """Share of concepts with an F1 above that of every permutation; chance is 1/(draws + 1)."""
        return float((self.f1 > self.f1_null.amax(0)).double().mean())


def detection(
    known: tuple[Tensor, Bool[Tensor, "n C"]],
    asked: tuple[Tensor, Bool[Tensor, "m C"]],
    generator: Generator,
    draws: int = DRAWS,
) -> Detection:
    """The best latent of each concept, and the best concept of each latent, on words not chosen on.

    Args:
        known: Codes ``(n, K)`` and concepts of the words on which latents are chosen.
        asked: Those on which they are scored.
        generator: Of the permutations; the words of each half are dealt its labels anew, so that
            concepts keep their sizes and their hierarchy.
        draws: Number of permutations.

    Example:
        >>> on = torch.eye(2).repeat(8, 1) > 0
        >>> found = detection((on.double(), on), (on.double(), on), Generator().manual_seed(0))
        >>> found.f1.tolist(), found.purity
        ([1.0, 1.0], 1.0)
    """
    dealt = [
        torch.cat(
            [on, *(on[torch.randperm(len(on), generator=generator)] for _ in range(draws))], 1
        )
        for _, on in (known, asked)
    ]
    concepts = known[1].shape[1]
    chosen, scored = (
        metrics.f1_similarities(codes, on.double()).unflatten(1, (draws + 1, concepts))
        for codes, on in zip((known[0], asked[0]), dealt, strict=True)
    )
    f1 = scored.gather(0, chosen.argmax(0, keepdim=True))[0]
    purity = precision(asked[0], dealt[1], chosen.argmax(2))
    return Detection(f1[0], f1[1:], float(purity[0]), float(purity[1:].mean()))


def precision(
    codes: Float[Tensor, "m K"], on: Bool[Tensor, "m DC"], concept: Int[Tensor, "K D"]
) -> Float[Tensor, " D"]:
    """Of each dealing, the mean over latents of the share of a latent's words in its concept."""
    fires = (codes != 0).double()
    count = fires.sum(0)
    share = (fires.mT @ on.double() / count[:, None]).unflatten(1, (concept.shape[1], -1))
    return share[count > 0].gather(2, concept[count > 0][..., None])[..., 0].mean(0)


def family(
    known: tuple[Tensor, Tensor],
    asked: tuple[Tensor, Tensor],
    parents: Int[Tensor, " K"],
    true_parents: Int[Tensor, " C"],
) -> dict[str, float | int]:
    """Whether the latents' own hierarchy is the concepts': edges, and their chance by shuffling."""
    similar = metrics.f1_similarities(known[0], known[1].double())
    found = metrics.child_purity(asked[0], asked[1].double(), parents, true_parents, similar)
    return {
        "edges": int((parents >= 0).sum()),
        "child_purity": found.mean,
        "child_purity_chance": found.chance_in_parent,
        "family": found.family.mean,
        "family_chance": found.family.chance,
    }


def summary(found: Detection) -> dict[str, object]:
    """What is kept of a detection, per concept and in all."""
    return {
        "f1": float(found.f1.mean()),
        "f1_null": float(found.f1_null.mean()),
        "found": found.found,
        "found_null": 1 / (len(found.f1_null) + 1),
        "purity": found.purity if not math.isnan(found.purity) else None,
        "purity_null": found.purity_null if not math.isnan(found.purity_null) else None,
        "concepts": found.f1.tolist(),
    }
