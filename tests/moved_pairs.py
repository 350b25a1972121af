"""Pairs in planted optima that no gradient leaves: features halved, folded, contrasted."""

import torch
from torch.nn.functional import normalize

from priors import BernoulliPrior, SpikeSlabPrior, TruncatedNormalPrior
from vsae import (
    AmortizedGuide,
    Autoencoder,
    FittedSpikeSlabPrior,
    FixedNoise,
    MeanFieldPosterior,
    RowNoise,
    SparseAutoencoder,
)
from vsae.decoders import LinearDecoder

D, ROWS, SIZE, SPREAD = 10, 4_000, 4.0, 0.4


def axes():
    """Ten orthonormal features."""
    return torch.linalg.qr(torch.randn(D, D)).Q.mT


def rows_of(fires, features):
    amplitudes = SIZE + SPREAD * torch.randn(fires.shape)
    return (fires * amplitudes) @ features[: fires.shape[1]]


def pair_of(atoms, rates, sizes):
    """Under a fitted slab whose moments are those of the given rates and amplitudes."""
    latents = len(atoms)
    prior = SpikeSlabPrior(BernoulliPrior(latents, rate=0.1), TruncatedNormalPrior(latents))
    prior = FittedSpikeSlabPrior(prior, pooling=0.0)
    rates, sizes = torch.tensor(rates), torch.tensor(sizes)
    prior.follow(torch.stack([rates, rates * sizes, rates * sizes**2 * 1.01]))
    decoder = LinearDecoder(latents, D)
    with torch.no_grad():
        decoder.W_dec.copy_(normalize(atoms, dim=-1))
    noise = RowNoise(FixedNoise(0.05), shape=D / 2)  # as the recipe has it
    model = SparseAutoencoder(decoder, prior, noise=noise)
    guide = MeanFieldPosterior(decoder, prior, noise, iterations=30, damping=0.3)
    return Autoencoder(model, AmortizedGuide(guide))


def halved():
    """Six features, the first of them two latents that fire together."""
    features, fires = axes(), torch.rand(ROWS, 6) < 0.2
    aside = 0.6 * features[9]
    atoms = torch.cat([features[:6], features[:1] - aside])
    atoms[0] += aside
    length = float(atoms[0].norm())  # two of half the length make the feature
    sizes = [SIZE / 2 * length, *(SIZE,) * 5, SIZE / 2 * length]
    return features, rows_of(fires, features), pair_of(atoms, [0.2] * 7, sizes)


def folded():
    """Two features that are three latents: what they share, and its differences to both."""
    features = axes()
    kind = torch.rand(ROWS)
    fires = torch.stack([kind < 0.2, (kind > 0.1) & (kind < 0.3), torch.rand(ROWS) < 0.2], -1)
    one, other, alone = features[:3]
    atoms = torch.stack([one + other, alone, one - other, other - one])
    half = SIZE / 2**0.5
    pair = pair_of(atoms, [0.3, 0.2, 0.1, 0.1], [1.2 * half, SIZE, half, half])
    return features, rows_of(fires, features), pair


def contrasted(free=1):
    """A parent that has taken in one child, the other child written as a difference to it."""
    features, x = axes(), None
    parent, first = torch.rand(ROWS) < 0.3, torch.rand(ROWS) < 0.6
    fires = torch.stack([parent, parent & first, parent & ~first, torch.rand(ROWS) < 0.2], -1)
    x = rows_of(fires, features)
    c, one, other, alone = features[:4]
    atoms = torch.stack([c + one, other - one, alone, *features[8 : 8 + free]])
    rates = [0.3, 0.12, 0.2, *(1e-5,) * free]
    sizes = [SIZE * 2**0.5, SIZE * 2**0.5, SIZE, *(SIZE,) * free]
    return features, x, pair_of(atoms, rates, sizes)


def truth(free=0):
    """Six features that are found, and latents that are free."""
    features, fires = axes(), torch.rand(ROWS, 6) < 0.2
    atoms = torch.cat([features[:6], features[9:].expand(free, -1)])
    pair = pair_of(atoms, [*(0.2,) * 6, *(1e-5,) * free], [SIZE] * (6 + free))
    return features, rows_of(fires, features), pair
