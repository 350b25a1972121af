"""Dictionaries, and pairs whose guide iterates, for the tests that share them."""

import pyro
import torch
from torch import nn

from priors import BernoulliPrior, SpikeSlabPrior, TruncatedNormalPrior
from vsae import (
    AmortizedGuide,
    Autoencoder,
    FreeDecoder,
    LinearDecoder,
    MeanFieldPosterior,
    SparseAutoencoder,
)


def dictionary(latents, width, *, seed=0, parallel=0.0, bias=1.0, free=False):
    """Random atoms, the more alike the greater ``parallel``; a random bias of that size."""
    generator = torch.Generator().manual_seed(seed)
    decoder = (FreeDecoder if free else LinearDecoder)(latents, width)
    atoms = torch.randn(latents, width, generator=generator)
    atoms += parallel * torch.randn(width, generator=generator)
    with torch.no_grad():
        decoder.W_dec.copy_(2 * atoms if free else nn.functional.normalize(atoms, dim=-1))
        decoder.b_dec.copy_(bias * torch.randn(width, generator=generator))
    return decoder


def orthonormal(latents, width, **settings):
    """A dictionary whose atoms are orthonormal."""
    decoder = dictionary(latents, width, **settings)
    with torch.no_grad():
        decoder.W_dec.copy_(torch.linalg.qr(decoder.W_dec.mT).Q.mT)
    return decoder


def spike_and_slab(latents, *, rate, loc=1.0, scale):
    """Independent gates, amplitudes of a truncated normal."""
    slab = TruncatedNormalPrior(latents, loc=loc, scale=scale)
    return SpikeSlabPrior(BernoulliPrior(latents, rate=rate), slab)


def iterative_pair(posterior, decoder, prior, *, noise, normalizer=None, **settings):
    """Of a model and ``posterior(decoder, prior, noise, **settings)``, which share their parts."""
    model = SparseAutoencoder(decoder, prior, noise=noise)
    guide = AmortizedGuide(posterior(decoder, prior, model.noise, **settings))
    return Autoencoder(model, guide, normalizer)


def slab_pair(atoms, *, rate=0.05, loc=1.0, scale=0.25, noise=0.05, normalizer=None):
    """Spike and slab over given atoms, by mean field."""
    decoder = LinearDecoder(*atoms.shape)
    with torch.no_grad():
        decoder.W_dec.copy_(nn.functional.normalize(atoms, dim=-1))
    prior = spike_and_slab(len(atoms), rate=rate, loc=loc, scale=scale)
    return iterative_pair(MeanFieldPosterior, decoder, prior, noise=noise, normalizer=normalizer)


def given(**sites):
    """A guide of distributions that are given, one entry per row."""

    def guide(x):
        with pyro.plate("rows", len(x), dim=-1):
            return {name: pyro.sample(name, q) for name, q in sites.items()}

    return guide
