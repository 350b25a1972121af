"""How far a crosscoder has found features over layers, and what it says of two models."""

import torch
from jaxtyping import Float
from torch import Tensor

from toys.reproduce.part4_layered_data import World
from toys.reproduce.part4_truth_training import numbers
from vsae import metrics
from vsae.autoencoder import Autoencoder

PRESENT = 0.3  # relative norm above which a latent is in a layer


@torch.no_grad()
def model_scores(own: World, pair: Autoencoder) -> dict[str, float | None]:
    """Of one crosscoder, on held-out rows and against the truth."""
    codes, atoms = pair.encode(own.test.x), own.raw(pair.W_dec)
    found = metrics.layered_recovery(atoms, own.toy.directions, present=PRESENT)
    explained = metrics.explained_variance(own.test.x.flatten(1), pair(own.test.x).flatten(1))
    row = {
        "l0": float(metrics.l0(codes)),
        "ev": float(explained),
        "dead": float(metrics.dead_fraction(codes)),
        "mcc": found.mcc,
        "mcc_layers": layer_mcc(atoms.unflatten(1, (len(own.toy.layers), -1)), own),
        "matched": found.matched,
        "presence_auc": found.presence.auc,
        "presence_f1": found.presence.f1,
        "presence_exact": found.presence.exact,
        "first_off": found.presence.first,
        "last_off": found.presence.last,
        "angle_error": found.angle_error,
    }
    if len(own.toy.layers) == 2:
        row |= diff_scores(atoms, own)
    return numbers(row)


def layer_mcc(atoms: Float[Tensor, "K n d"], own: World) -> float:
    """Each layer on its own, features that are there against atoms there; mean over layers."""
    found = [
        metrics.mean_correlation_coefficient(atoms[:, at], own.toy.directions[own.present(at), at])
        for at in range(atoms.shape[1])
    ]
    return sum(found) / len(found)


def diff_scores(atoms: Float[Tensor, "K width"], own: World) -> dict[str, float]:
    """What relative decoder norms say of two models, of features that were found.

    A latent is of one model alone if the other's norm is at most ``PRESENT`` of it.
    """
    match = metrics.match(atoms, own.toy.dictionary)
    latents, presence = match.latents[match.matched], own.toy.presence[match.matched]
    share = metrics.relative_decoder_norm(atoms[latents], own.toy.layers)
    least = PRESENT / (1 + PRESENT)
    told = torch.stack([share < 1 - least, share > least], 1)
    shared, alone = presence.all(1), ~presence.all(1)
    right = (told == presence).all(1)

    def mean(values: Tensor) -> float:
        return float(values.double().mean()) if len(values) else float("nan")

    return {
        "diff_right": mean(right),
        "false_exclusive": mean(~told[shared].all(1)),
        "missed_exclusive": mean(~right[alone]),
        "exclusive_found": mean((match.latents >= 0)[~own.toy.presence.all(1)]),
        "shared_found": mean((match.latents >= 0)[own.toy.presence.all(1)]),
    }
