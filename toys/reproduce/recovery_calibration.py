"""Whether firing probabilities and credible intervals mean what they say."""

import torch
from torch import Tensor

from priors.spike_slab import SpikeSlab
from priors.truncated_normal import TruncatedNormal
from toys.reproduce.recovery_data import Problem
from toys.reproduce.recovery_scores import CHUNK, plain, settled
from vsae import metrics
from vsae.autoencoder import Autoencoder

BINS = 10
LEVELS = (0.5, 0.8, 0.9, 0.95)
SEEN, MEASURED = 0.9, 0.99  # cosines from which an atom is a feature; and its amplitude the same


@torch.no_grad()
def calibration(found: Problem, pair: Autoencoder) -> dict:
    """Of latents whose atoms are features, on held-out rows.

    Probabilities against whether the feature fires (cosines above 0.9); intervals of amplitudes, in
    activation units, against the feature's own, on rows where it fires and the gate says so (above
    0.99, where the two are the same thing).
    """
    latents = metrics.match(pair.W_dec, found.truth.dictionary, threshold=SEEN)
    features = latents.matched
    if not len(features):
        return {"matched": 0, "reliability": None, "intervals": None}
    with settled(pair):
        parts = [
            _beliefs(pair, rows, latents.latents[features]) for rows in found.test.split(CHUNK)
        ]
    probability, lower, upper = (torch.cat(p, dim=-2) for p in zip(*parts, strict=True))
    truth = found.truth.strengths[:, features]
    curve = metrics.reliability(probability, truth > 0, bins=BINS)
    both = (truth > 0) & (probability > 0.5) & (latents.cosines[features] > MEASURED)
    levels = torch.tensor(LEVELS)
    ends = lower[:, both], upper[:, both]
    held = metrics.interval_coverage(*ends, truth[both], levels=levels) if both.any() else None
    names = ("counts", "predicted", "observed", "lower", "upper")
    more = ("error", "error_bound", "brier", "base_rate", "skill")
    return plain(
        {
            "matched": len(features),
            "reliability": {name: getattr(curve, name) for name in names + more},
            "intervals": None if held is None else held.__dict__,
        }
    )


def _beliefs(pair: Autoencoder, rows: Tensor, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities (rows, M), and ends of intervals (levels, rows, M) given that a gate is on."""
    q = pair.posterior(rows)["z"]
    assert isinstance(q, SpikeSlab)
    level = torch.tensor(LEVELS)[:, None, None]
    base = q.slab.base_dist
    slab = TruncatedNormal(base.loc[:, latents], base.scale[:, latents])
    ends = [slab.icdf(tail) * pair.normalizer.scale for tail in ((1 - level) / 2, (1 + level) / 2)]
    return q.probability[:, latents], *ends
