"""Guides on the true dictionary: the mean field, encoders that learn it, TopK and BatchTopK."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from priors import BernoulliPrior, FlatPrior, SpikeSlabPrior, TruncatedNormalPrior
from toys.reproduce.flat_arms import DEAD_AFTER
from toys.reproduce.recovery_arms import k_of
from toys.reproduce.recovery_data import Problem
from toys.reproduce.recovery_field import field_run, weights_of
from toys.synth import SynthToy
from vsae.autoencoder import Autoencoder
from vsae.decoders import FreeDecoder, LinearDecoder
from vsae.distillation import distil
from vsae.encoders import DictionaryEncoder, LinearEncoder, MLPEncoder
from vsae.guides import AmortizedGuide
from vsae.likelihood import FixedNoise
from vsae.models.sae import SparseAutoencoder
from vsae.models.support import SupportAutoencoder
from vsae.posteriors.batch_topk import BatchTopKPosterior
from vsae.posteriors.mean_field import MeanFieldPosterior
from vsae.posteriors.refined import RefinedMeanFieldPosterior
from vsae.posteriors.spike_slab import SpikeSlabPosterior
from vsae.posteriors.topk import TopKPosterior
from vsae.presets import with_auxk
from vsae.presets.topk import HALF
from vsae.recipes.recovery import RecoveryRecipe

EMPTY, LINEAR, MLP = "empty", "linear", "mlp"  # where guides start
TOPK, BATCH = "topk-frozen", "batch-topk-frozen"  # encoders that are trained on reconstruction
DISTILLED = LINEAR, MLP  # encoders that learn what iterations infer
RATES = 1e-4, 0.5  # within which a firing rate is believed
LEAST = 2  # firings of a feature from which its size is told


def oracle(found: Problem, recipe: RecoveryRecipe) -> Autoencoder:
    """The recipe's model with the true dictionary, rates and moments: nothing is left to learn."""
    decoder, prior = true_decoder(found, LinearDecoder), true_prior(found)
    noise = recipe.noise_of_rows(FixedNoise(recipe.final_noise), found.d_model)
    guide = MeanFieldPosterior(
        decoder, prior, noise, iterations=recipe.iterations, damping=recipe.damping
    )
    model = SparseAutoencoder(decoder, prior, noise=noise)
    pair = Autoencoder(model, AmortizedGuide(guide), found.normalizer)
    return pair.to(found.train.dtype).requires_grad_(False)


def true_decoder(
    found: Problem, kind: type[LinearDecoder] | type[FreeDecoder]
) -> LinearDecoder | FreeDecoder:
    """True features as atoms, and what of an activation no feature makes; it does not learn."""
    toy, units = found.toy, found.normalizer
    nothing = toy.bias if isinstance(toy, SynthToy) else torch.zeros_like(units.mean)
    with torch.random.fork_rng(devices=[]):  # random atoms are drawn, and replaced
        decoder = kind(*toy.dictionary.shape)
    assert decoder.b_dec is not None
    with torch.no_grad():
        decoder.W_dec.copy_(toy.dictionary)
        decoder.b_dec.copy_(units(nothing))
    return decoder.requires_grad_(False)


def true_prior(found: Problem) -> SpikeSlabPrior:
    """Independent gates and amplitudes, of the rates and the moments of true codes."""
    codes = found.codes.double() / found.normalizer.scale.double()
    fires = codes > 0
    count, told = fires.sum(0).clamp(min=1), fires.sum(0) >= LEAST
    moments = [codes.sum(0) / count, codes.square().sum(0) / count]
    first, second = (torch.where(told, m, m[told].mean()) for m in moments)
    gates, slab = BernoulliPrior(codes.shape[1], rate=0.5), TruncatedNormalPrior(codes.shape[1])
    gates.match(fires.double().mean(0).clamp(*RATES))
    slab.match(first, second)
    return SpikeSlabPrior(gates, slab)


class StoppedPosterior(nn.Module):
    """Mean-field inference that stops where it was told to, at evaluation, too.

    Args:
        iterative: Whose model and damping are used.
        iterations: Updates of all latents, the last one included.
    """

    def __init__(self, iterative: MeanFieldPosterior, *, iterations: int) -> None:
        super().__init__()
        self.iterative = MeanFieldPosterior(
            iterative.decoder,
            iterative.prior,
            iterative.noise,
            iterations=iterations,
            damping=iterative.damping,
        )
        self.latents = iterative.latents

    @property
    def encoder(self) -> nn.Module:
        """The decoder, as of any mean field."""
        return self.iterative.encoder

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        return self.iterative(x)


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """How an encoder is trained.

    Args:
        name: In ``ENCODERS``.
        lr: Adam's learning rate at first.
        seen: Rows seen in training.
        batch: Rows per update.
        hidden: Hidden units, if it has some, as a multiple of the latents.
    """

    name: str
    lr: float
    seen: int
    batch: int
    hidden: int

    @property
    def steps(self) -> int:
        """Updates."""
        return max(1, self.seen // self.batch)

    def trained(self, found: Problem, teacher: Autoencoder) -> Autoencoder:
        """A pair with the true dictionary and this encoder, which alone has learned."""
        return ENCODERS[self.name](self, found, teacher)


def linear(own: Encoder, found: Problem, teacher: Autoencoder) -> Autoencoder:
    """One matrix that learns what iterations infer; locations are first read along the atoms."""
    with weights_of(found.draw.generator):
        encoder = LinearEncoder(found.d_model, 3 * len(teacher.W_dec))
    encoder.align(teacher.model.decoder)
    return distilled(own, found, teacher, encoder, encoder.b_enc)


def mlp(own: Encoder, found: Problem, teacher: Autoencoder) -> Autoencoder:
    """The same with hidden units."""
    latents = len(teacher.W_dec)
    with weights_of(found.draw.generator):
        encoder = MLPEncoder(found.d_model, own.hidden * latents, 3 * latents)
    return distilled(own, found, teacher, encoder, encoder.b_out)


def distilled(
    own: Encoder, found: Problem, teacher: Autoencoder, encoder: nn.Module, bias: nn.Parameter
) -> Autoencoder:
    """An encoder that has learned the teacher's posterior; its gates begin at their rates."""
    with torch.no_grad():
        bias[-len(teacher.W_dec) :] = teacher.model.prior.gates.logits
    student = SpikeSlabPosterior(encoder.to(found.train.dtype))
    return distil(
        teacher,
        student,
        found.train,
        steps=own.steps,
        batch_size=own.batch,
        lr=own.lr,
        seed=found.draw.generator,
        progress=False,
    ).autoencoder


def topk(own: Encoder, found: Problem, teacher: Autoencoder) -> Autoencoder:
    """TopK with AuxK as the field trains it, but for the dictionary, which is the true one."""
    decoder, k = true_decoder(found, FreeDecoder), k_of(found, 1.0)
    return frozen(own, found, TopKPosterior(DictionaryEncoder(decoder), k=k), decoder, k)


def batch_topk(own: Encoder, found: Problem, teacher: Autoencoder) -> Autoencoder:
    """The same of BatchTopK, whose rows may have more and fewer."""
    decoder, k = true_decoder(found, FreeDecoder), k_of(found, 1.0)
    width = min(4 * k, len(teacher.W_dec))
    posterior = BatchTopKPosterior(DictionaryEncoder(decoder), k=k, width=width)
    return frozen(own, found, posterior, decoder, width)


def frozen(
    own: Encoder, found: Problem, posterior: nn.Module, decoder: FreeDecoder, width: int
) -> Autoencoder:
    """An encoder that has learned to restore rows with a dictionary that does not learn."""
    model = SupportAutoencoder(decoder, FlatPrior(decoder.latents), width=width, noise=HALF)
    pair = Autoencoder(model, AmortizedGuide(posterior), found.normalizer)
    run = field_run(
        with_auxk(pair.to(found.train.dtype), after=DEAD_AFTER),
        found.train,
        steps=own.steps,
        batch=own.batch,
        lr=own.lr,
        seed=found.draw.generator,
    )
    for _ in run:
        pass
    return run.autoencoder


ENCODERS: Mapping[str, Callable[[Encoder, Problem, Autoencoder], Autoencoder]] = {
    LINEAR: linear,
    MLP: mlp,
    TOPK: topk,
    BATCH: batch_topk,
}
"""By name, in the order of tables."""


def stopped(teacher: Autoencoder, iterations: int) -> Autoencoder:
    """The true model by so many iterations from the empty code."""
    posterior = StoppedPosterior(teacher.guide.posterior, iterations=iterations)
    return Autoencoder(teacher.model, AmortizedGuide(posterior), teacher.normalizer)


def refined(teacher: Autoencoder, start: Autoencoder, iterations: int) -> Autoencoder:
    """The true model by so many iterations from where another guide of it starts."""
    posterior = RefinedMeanFieldPosterior(
        start.guide.posterior, teacher.guide.posterior, iterations=iterations
    )
    return Autoencoder(teacher.model, AmortizedGuide(posterior), teacher.normalizer)
