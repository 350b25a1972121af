"""Fewer latents out of a spike-and-slab pair: those that carry the most, as they are."""

import torch
from torch import Tensor, nn

from priors.amplitudes import TruncatedNormalPrior
from priors.bernoulli import BernoulliPrior
from priors.spike_slab import SpikeSlabPrior
from vsae.autoencoder import Autoencoder
from vsae.decoders import LinearDecoder
from vsae.guides import AmortizedGuide
from vsae.models.sae import SparseAutoencoder
from vsae.posteriors.mean_field import MeanFieldPosterior


@torch.no_grad()
def pruned(pair: Autoencoder, keep: int) -> Autoencoder:
    r"""The ``keep`` latents of greatest expected square, :math:`π_k \mathbb E a_k^2`, not refitted.

    Gates become independent, with the rates that they have.
    """
    prior, decoder = pair.model.prior(), pair.model.decoder
    rate, slab = prior.gates.mean, prior.slab
    power = rate * (slab.variance + slab.mean**2)
    kept = power.topk(keep).indices.sort().values
    smaller = LinearDecoder(keep, decoder.d_model, bias=decoder.b_dec is not None)
    smaller.to(decoder.W_dec.device, decoder.W_dec.dtype)
    smaller.W_dec.copy_(decoder.W_dec[kept])
    if smaller.b_dec is not None:
        smaller.b_dec.copy_(decoder.b_dec)
    belief = _prior(rate[kept], slab.base_dist.loc[kept], slab.base_dist.scale[kept])
    noise, posterior = pair.model.noise, pair.guide.posterior
    guide = MeanFieldPosterior(
        *(smaller, belief, noise),
        iterations=posterior.iterations,
        damping=posterior.damping,
    )
    model = SparseAutoencoder(smaller, belief, noise=noise)
    return Autoencoder(model, AmortizedGuide(guide), pair.normalizer)


def _prior(rate: Tensor, loc: Tensor, scale: Tensor) -> nn.Module:
    gates, slab = BernoulliPrior(len(rate), rate=0.5), TruncatedNormalPrior(len(rate))
    gates.match(rate)
    slab.loc.copy_(loc)
    slab.log_scale.copy_(scale.log())
    return SpikeSlabPrior(gates, slab)
