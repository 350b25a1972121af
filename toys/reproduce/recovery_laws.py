"""Amplitude laws under spike and slab: small builders, trained alike, compared by evidence."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from priors.amplitudes import ExponentialPrior, HalfNormalPrior, TruncatedNormalPrior
from priors.bernoulli import BernoulliPrior
from priors.spike_slab import SpikeSlabPrior
from toys.reproduce.recovery_scores import CHUNK, settled
from vsae.autoencoder import Autoencoder
from vsae.decoders import LinearDecoder
from vsae.expected_elbo import ExpectedELBO
from vsae.fitted_spike_slab import FittedSpikeSlabPrior
from vsae.guides import AmortizedGuide
from vsae.models.sae import SparseAutoencoder
from vsae.posteriors.mean_field import MeanFieldPosterior
from vsae.row_noise import RowNoise
from vsae.run import Run
from vsae.schedules import LinearDecay
from vsae.training import fit

LAWS: dict[str, Callable[[int], nn.Module]] = {
    "truncated normal": TruncatedNormalPrior,
    "half-normal": HalfNormalPrior,
    "exponential": ExponentialPrior,
}
"""Priors of amplitudes by name."""

ROWS = 10_000  # from whose codes rates and sizes are first read
FITTED = 2_048  # from whose posterior the noise of the evidence is read
RARE, OFTEN = 1e-4, 0.5
ITERATIONS, DAMPING = 12, 0.3


@dataclass(frozen=True, kw_only=True)
class Slab:
    """A spike-and-slab phase after ℓ1.

    Args:
        law: A name in ``LAWS``.
        noise: Floor of :class:`vsae.RowNoise`, in normalised units.
        shape: Of it, per dimension of the activation.
        rows: Rows seen.
        batch: Rows per update.
        lr: Adam's learning rate, in a straight line to 0 over the last two fifths.
    """

    law: str
    noise: float
    shape: float
    rows: int
    batch: int
    lr: float


def slab_pair(pair: Autoencoder, found: tuple[Tensor, Tensor, Tensor], slab: Slab) -> Autoencoder:
    """Spike and slab of one law on a copy of an ℓ1 pair's dictionary, begun at its moments."""
    decoder = copied(pair.model.decoder)
    prior = FittedSpikeSlabPrior(first_prior(found, slab.law), spread=math.inf)
    noise = RowNoise(slab.noise, shape=slab.shape * decoder.d_model)
    model = SparseAutoencoder(decoder, prior, noise=noise)
    guide = MeanFieldPosterior(decoder, prior, noise, iterations=ITERATIONS, damping=DAMPING)
    return Autoencoder(model, AmortizedGuide(guide), pair.normalizer)


def slab_run(pair: Autoencoder, x: Tensor, slab: Slab, seed: int) -> Run:
    """Its training by the expected ELBO."""
    steps = max(1, slab.rows // slab.batch)
    return fit(
        pair,
        x,
        steps=steps,
        batch_size=slab.batch,
        lr=slab.lr,
        lr_schedule=LinearDecay(start=steps * 3 // 5, end=steps),
        elbo=ExpectedELBO(),
        seed=seed,
    )


@torch.no_grad()
def moments(pair: Autoencoder, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rates, and first and second moments of amplitudes, of an ℓ1 code.

    A latent that hardly fires has the amplitudes of all.
    """
    codes = pair.encode(x[:ROWS])
    fires = codes > 0
    count = fires.sum(0)
    first, second = (
        torch.where(
            count > 1, power.sum(0) / count.clamp(min=1), power.sum() / count.sum().clamp(min=1)
        )
        for power in (codes, codes**2)
    )
    return fires.to(codes.dtype).mean(0).clamp(RARE, OFTEN), first, second.maximum(1.01 * first**2)


def first_prior(found: tuple[Tensor, Tensor, Tensor], law: str) -> SpikeSlabPrior:
    """Spike and slab of a law that has these rates and moments."""
    rate, first, second = found
    gates, slab = BernoulliPrior(len(rate), rate=0.01), LAWS[law](len(rate))
    gates.match(rate)
    slab.match(first, second)
    return SpikeSlabPrior(gates, slab)


@torch.no_grad()
def copied(decoder: LinearDecoder) -> LinearDecoder:
    """A dictionary of its own, the same to begin with."""
    new = LinearDecoder(decoder.latents, decoder.d_model, bias=decoder.b_dec is not None)
    new.to(decoder.W_dec.device, decoder.W_dec.dtype).load_state_dict(decoder.state_dict())
    return new


@dataclass(frozen=True, eq=False)
class Posterior:
    """What the posterior of some rows amounts to, in normalised units.

    Args:
        codes: Means of the latents that are more likely on than off, ``(rows, K)``.
        square: Expected squared error per row.
        divergence: KL of the codes from the prior per row, nats.
    """

    codes: Tensor
    square: float
    divergence: float


@torch.no_grad()
def posterior_of(pair: Autoencoder, x: Tensor) -> Posterior:
    """The posterior of rows of activations, as at evaluation."""
    square, divergence, codes, prior = 0.0, 0.0, [], pair.model.prior()
    with settled(pair):
        for rows in x.split(CHUNK):
            q = pair.posterior(rows)["z"]
            residual = pair.normalizer(rows) - pair.model.decoder(q.mean)
            square += float(residual.square().sum() + q.variance.sum())
            divergence += float(kl_divergence(q, prior).sum())
            codes.append(torch.where(q.probability > 0.5, q.mean, 0.0))
    return Posterior(torch.cat(codes), square / len(x), divergence / len(x))


def evidence(pair: Autoencoder, train: Posterior, test: Posterior) -> dict[str, float]:
    r"""A lower bound on the log evidence of held-out rows under one noise for all, nats per row.

    .. math:: \mathbb E_q[\log \mathcal N(x;\ b + zW,\ σ^2)] - \mathrm{KL}(q \| p)

    with the codes' posterior as it was found, and the σ of greatest bound on training rows. It is
    of raw activations, and holds whatever the posterior.
    """
    width = pair.model.decoder.d_model
    variance = train.square / width
    fit = 0.5 * test.square / variance + 0.5 * width * math.log(2 * math.pi * variance)
    jacobian = float(pair.normalizer.log_jacobian(width))
    return {"evidence": jacobian - fit - test.divergence, "sigma": variance**0.5}
