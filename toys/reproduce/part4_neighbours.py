"""Whether sentences that are alike have codes that are alike, beside what chance gives."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import sparse
from torch import Generator, Tensor
from torch.nn.functional import normalize

from vsae import metrics

KS = (64, 128, 256)
"""Document B's lengths of rankings."""
RELEVANT = 256
"""Nearest sentences that count as relevant."""


@dataclass(frozen=True, eq=False)
class Neighbourhoods:
    """What is relevant to each held-out sentence, and which sentences are asked about.

    Args:
        known: Sentences of which something is known, by index.
        relevance: Among these: the cosine of each with its nearest, where it is positive.
        ks: Lengths of the rankings.
    """

    known: Tensor
    relevance: sparse.csr_array
    ks: tuple[int, ...]

    @classmethod
    def of(cls, points: Float[Tensor, "S w"], generator: Generator) -> "Neighbourhoods":
        """The 256 nearest of each among the others by cosine, fewer where there are not as many."""
        known = points.any(-1).nonzero().flatten()
        unit, most = normalize(points[known].double(), dim=-1), len(known) - 1
        near = metrics.nearest_rows(unit, min(RELEVANT, most), generator=generator)
        weight = (unit[:, None] * unit[near]).sum(-1).clamp(min=0.0)
        starts = np.arange(0, near.numel() + 1, near.shape[1])
        entries = (weight.flatten().numpy(), near.flatten().numpy(), starts)
        relevance = sparse.csr_array(entries, shape=(len(known), len(known)))
        return cls(known, relevance, tuple(dict.fromkeys(min(k, most) for k in KS)))

    def score(
        self, codes: Float[Tensor, "S w"], generator: Generator, *, permutations: int
    ) -> dict[str, dict]:
        """NDCG and precision at each length, by ``"64"``, … : value, interval, chance, null."""
        found = {}
        for k in self.ks:
            scored = metrics.score_retrieval(
                codes[self.known],
                self.relevance,
                k=k,
                generator=generator,
                permutations=permutations,
            )
            found[str(k)] = {"ndcg": _plain(scored.ndcg), "precision": _plain(scored.precision)}
        return found


def _plain(score: metrics.RetrievalScore) -> dict:
    return {
        "value": score.value,
        "interval": list(score.interval),
        "chance": score.chance,
        "null_mean": score.null_mean,
        "null_interval": list(score.null_interval),
    }


def principal_components(
    fit: Float[Tensor, "N d"], rows: Float[Tensor, "M d"], count: int
) -> Float[Tensor, "M n"]:
    """Rows along the ``count`` directions of greatest variance of others."""
    mean = fit.double().mean(0)
    centred = fit.double() - mean
    values, vectors = torch.linalg.eigh(centred.mT @ centred / len(fit))
    return (rows.double() - mean) @ vectors[:, values.argsort(descending=True)[:count]]
