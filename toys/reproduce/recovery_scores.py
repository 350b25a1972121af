"""What a trained pair is worth where the truth is known, on held-out rows."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from priors.spike_slab import SpikeSlab
from toys.reproduce.recovery_data import Problem
from toys.reproduce.recovery_truth import NEAR, AbstractTruth, Directions
from vsae import metrics
from vsae.autoencoder import Autoencoder
from vsae.posteriors.fista import FISTAPosterior
from vsae.posteriors.mean_field import MeanFieldPosterior

CHUNK = 2048  # rows encoded at once
ITERATIONS = {MeanFieldPosterior: 20, FISTAPosterior: 60}  # at evaluation
TRIMMED = 5.0  # the L0 at which F1 is also given


@contextmanager
def settled(pair: Autoencoder) -> Iterator[Autoencoder]:
    """The pair with as many iterations as at evaluation, if it iterates."""
    posterior = pair.guide.posterior
    more = [count for kind, count in ITERATIONS.items() if isinstance(posterior, kind)]
    if not more:
        yield pair
        return
    before, posterior.iterations = posterior.iterations, max(*more, posterior.iterations)
    try:
        yield pair
    finally:
        posterior.iterations = before


@dataclass(frozen=True, eq=False)
class Codes:
    """Codes of some rows, and how sure they are.

    Args:
        values: ``(rows, K)``, dense.
        confidence: By which firings are ranked: log-odds of gates, or the code's own size.
    """

    values: Float[Tensor, "rows K"]
    confidence: Float[Tensor, "rows K"]

    def trimmed(self, l0: float) -> Tensor | None:
        """The surest firings, as many as a mean L0 has; nothing if there are fewer."""
        fires = self.values != 0
        wanted = round(l0 * len(fires))
        if int(fires.sum()) < wanted:
            return None
        bar = self.confidence[fires].topk(wanted, sorted=False).values.min()
        return torch.where(self.confidence >= bar, self.values, 0.0)


@torch.no_grad()
def encoded(pair: Autoencoder, rows: Float[Tensor, "rows d"]) -> Codes:
    """The codes of rows, chunk by chunk, as at evaluation."""
    with settled(pair):
        parts = [_codes(pair, chunk) for chunk in rows.split(CHUNK)]
    values, confidence = (torch.cat(found) for found in zip(*parts, strict=True))
    return Codes(values, confidence)


def _codes(pair: Autoencoder, rows: Tensor) -> tuple[Tensor, Tensor]:
    q = pair.posterior(rows).get("z")
    if isinstance(q, SpikeSlab):
        logits = q.gates.base_dist.logits
        return torch.where(logits > 0, q.mean, 0.0), logits
    codes = pair.encode(rows)
    return codes, codes.abs()


def scores(problem: Problem, pair: Autoencoder) -> dict:
    """All of it; nothing that could not be in JSON."""
    atoms, codes = pair.W_dec.detach(), encoded(pair, problem.test)
    restored = torch.cat([pair.decode(c) for c in codes.values.split(CHUNK)]).detach()
    explained = float(metrics.explained_variance(problem.test, restored))
    return plain(scored(problem, atoms, codes) | {"ev": explained})


def scored(problem: Problem, atoms: Tensor, codes: Codes) -> dict:
    """What atoms and codes are worth, whatever they restore."""
    row = quality(problem.truth, atoms, codes.values) | {
        "dead": 100 * float(metrics.dead_fraction(codes.values)),
        "uniqueness": problem.truth.uniqueness(atoms),
        "chance": problem.truth.chance(len(atoms), problem.d_model),
        "true_l0": problem.l0,
        "latents": len(atoms),
        "levels": by_level(problem, atoms, codes.values),
    }
    trimmed = codes.trimmed(TRIMMED)
    held = None if trimmed is None else problem.truth.classification(atoms, trimmed).f1
    return row | {"f1_trimmed": held}


def quality(truth: AbstractTruth, atoms: Tensor, codes: Tensor) -> dict:
    """Recovery by direction and by firing."""
    found = truth.classification(atoms, codes)
    return {
        "mcc": truth.mcc(atoms),
        "share": truth.share(atoms),
        "f1": found.f1,
        "precision": found.precision,
        "recall": found.recall,
        "l0": float(metrics.l0(codes)),
    }


def by_level(problem: Problem, atoms: Tensor, codes: Tensor) -> dict[str, dict[str, float | int]]:
    """Of the features at each place in a tree: their best cosine, share found, F1 of their latents.

    A feature without a latent of its own, where there are fewer latents, has an F1 of 0.
    """
    if not problem.groups or not isinstance(problem.truth, Directions):
        return {}
    truth = problem.truth
    latents = metrics.match(atoms, truth.dictionary, threshold=0.0).latents
    best, own = truth.cosines(atoms).amax(0), latents >= 0
    fires, true = codes[:, latents.clamp(min=0)] != 0, truth.strengths > 0
    hits = (fires & true).sum(0).double()
    f1 = torch.nan_to_num(2 * hits / (fires.sum(0) + true.sum(0))) * own
    return {
        name: {
            "features": int(group.sum()),
            "cosine": float(best[group].mean()),
            "share": float((best[group] > NEAR).double().mean()),
            "f1": float(f1[group].mean()),
        }
        for name, group in problem.groups.items()
    }


def plain(value: object) -> object:
    """What JSON can hold: no tensor, and nothing for what is not a number."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, Tensor):
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
