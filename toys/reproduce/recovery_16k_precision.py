"""Whether bfloat16 products are exact enough for the mean field; measured, not believed."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.distributions import Distribution

from priors import BernoulliPrior, SpikeSlabPrior, TruncatedNormalPrior
from toys.synth import DATA_A
from vsae.autoencoder import Autoencoder
from vsae.batches import stream
from vsae.decoders import LinearDecoder
from vsae.guides import AmortizedGuide
from vsae.likelihood import FixedNoise
from vsae.posteriors.mean_field import MeanFieldPosterior
from vsae.row_noise import RowNoise

ROWS, LEAST = 2_048, 1e-3  # rows looked at; flipped gates per firing that are too many


class HalfMeanField(MeanFieldPosterior):
    """The mean field with its products in bfloat16; everything between them is as it was."""

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        with torch.autocast(x.device.type, torch.bfloat16):
            return super().forward(x)

    @classmethod
    def of(cls, pair: Autoencoder) -> AmortizedGuide:
        """The guide of a pair, but for the precision."""
        q = pair.guide.posterior
        return AmortizedGuide(
            cls(q.decoder, q.prior, q.noise, iterations=q.iterations, damping=q.damping)
        )


@dataclass(frozen=True)
class Difference:
    """Posteriors in bfloat16 against those in float32, at the same parameters.

    Args:
        flipped: Gates that are more likely on than off in one of them only, per firing.
        gate: The greatest difference of a firing probability.
        code: Root mean square difference of expected codes, relative to their size.
    """

    flipped: float
    gate: float
    code: float

    @property
    def small(self) -> bool:
        """Whether bfloat16 is exact enough."""
        return self.flipped <= LEAST


@torch.no_grad()
def difference(device: torch.device, *, floor: float = 0.03) -> Difference:
    """On Data A, at its true dictionary, rates and sizes, the end of the noise's way.

    Args:
        device: Where products are made.
        floor: Of the rows' noise, relative to the activations' size per dimension.
    """
    toy = DATA_A.build(Generator().manual_seed(0))
    x, codes = toy.sample(ROWS, stream(0, 1))
    unit = float((x - x.mean(0)).square().mean().sqrt())
    decoder = LinearDecoder(*toy.dictionary.shape)
    decoder.W_dec.copy_(toy.dictionary)
    decoder.b_dec.copy_(toy.bias / unit)
    gates, slab = BernoulliPrior(len(codes.T), rate=0.01), TruncatedNormalPrior(len(codes.T))
    gates.match((codes > 0).to(x).mean(0).clamp(1e-4, 0.5))
    size, spread = toy.law.mean.to(x) / unit, toy.law.deviation.to(x) / unit
    slab.match(size, size.square() + spread.square())
    noise = RowNoise(FixedNoise(floor), shape=0.5 * x.shape[1])
    full = MeanFieldPosterior(decoder, SpikeSlabPrior(gates, slab), noise).to(device)
    rows = (x / unit).to(device)
    exact = full.infer(rows)
    with torch.autocast(device.type, torch.bfloat16):
        rough = full.infer(rows)
    on, other = exact.logits > 0, rough.logits > 0
    return Difference(
        flipped=float((on != other).sum() / on.sum()),
        gate=float((exact.moments.rate - rough.moments.rate).abs().max()),
        code=float((exact.moments.code - rough.moments.code).norm() / exact.moments.code.norm()),
    )
