"""The control of the toys: an SAE for each layer by itself, which has no features over layers."""

import torch
from torch import Tensor

from toys.reproduce.part4_layered_arms import Where
from toys.reproduce.part4_layered_data import World
from toys.reproduce.part4_truth_training import Trained, numbers, together
from toys.reproduce.recovery_field import weights_of
from vsae import AffineNormalizer, metrics
from vsae.presets import l1_autoencoder

APART = {"apart-width": "ℓ1 SAE per layer, K in all", "apart-each": "ℓ1 SAE per layer, K each"}
"""Of as many latents as the crosscoder has, or of as many parameters."""


def latents_of(where: Where, arm: str, layers: int) -> int:
    """Of each layer's SAE."""
    return where.sizes.latents // (layers if arm == "apart-width" else 1)


def apart(where: Where, arm: str) -> list[list[Trained]]:
    """By seed an SAE per layer, trained to the share of the target that fires there."""
    own, pairs, seeds, targets, data = where.sizes.training, [], [], [], []
    for found, seed in zip(where.worlds, where.seeds, strict=True):
        for at, width in enumerate(found.toy.layers):
            x = found.train[:, at]
            with weights_of(seed):
                pair = l1_autoencoder(
                    width,
                    latents_of(where, arm, len(found.toy.layers)),
                    l1=1.0,
                    normalizer=AffineNormalizer.fit(x),
                )
            pairs.append(pair)
            seeds.append(seed)
            data.append(x)
            targets.append(own.target * float(found.present(at).double().mean()))
    done = together(
        pairs,
        torch.stack(data),
        own,
        steps=own.first_steps + own.steps,
        seeds=seeds,
        betas=[1.0] * len(pairs),
        targets=targets,
    )
    each = len(done) // len(where.seeds)
    return [done[at : at + each] for at in range(0, len(done), each)]


@torch.no_grad()
def apart_scores(own: World, found: list[Trained]) -> dict[str, float | None]:
    """Those that do not ask which latents of several layers are one feature."""
    test, restored, codes, cosines = own.test.x, [], [], []
    for at, one in enumerate(found):
        restored.append(one.pair(test[:, at]))
        codes.append(one.pair.encode(test[:, at]))
        truth = own.toy.directions[own.present(at), at]
        cosines.append(metrics.mean_correlation_coefficient(one.pair.W_dec, truth))
    together: Tensor = torch.cat(codes, 1)
    explained = metrics.explained_variance(test.flatten(1), torch.cat(restored, 1))
    row = {
        "l0": float(metrics.l0(together)),
        "ev": float(explained),
        "dead": float(metrics.dead_fraction(together)),
        "mcc_layers": sum(cosines) / len(cosines),
    }
    return numbers(row)
