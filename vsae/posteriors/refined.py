"""A few iterations from where an encoder starts, instead of many from the empty code."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from priors.errors import ConfigError
from priors.spike_slab import SpikeSlab
from vsae.posteriors.fista import check_iterations
from vsae.posteriors.mean_field import MeanFieldPosterior, as_sites
from vsae.posteriors.mean_field_update import Moments


class RefinedMeanFieldPosterior(nn.Module):
    """Mean-field iterations from the belief of an encoder.

    The iterations are those of ``iterative``, with its damping; the last one is whole, so that one
    iteration is one undamped update of all latents given the encoder's codes. They have the fixed
    points of ``iterative``: with enough of them the encoder no longer matters, unless it leads to
    another fixed point. No gradient.

    Args:
        start: Posterior whose site ``z`` is a spike and slab, e.g.
            :class:`vsae.SpikeSlabPosterior`.
        iterative: Whose model, and whose updates, are used.
        iterations: Updates of all latents, the last one included.

    Raises:
        ConfigError: ``iterations.count``; ``pair.latents`` if the two are not of as many latents;
            when run, ``refined.start`` if ``z`` is no spike and slab.

    Example:
        >>> from priors import BernoulliPrior, SpikeSlabPrior, TruncatedNormalPrior
        >>> from vsae import FixedNoise, LinearDecoder, LinearEncoder, SpikeSlabPosterior
        >>> decoder = LinearDecoder(8, 6)
        >>> slab = TruncatedNormalPrior(8, loc=1.0, scale=0.1)
        >>> prior = SpikeSlabPrior(BernoulliPrior(8, rate=0.05), slab)
        >>> iterative = MeanFieldPosterior(decoder, prior, FixedNoise(0.1))
        >>> start = SpikeSlabPosterior(LinearEncoder(6, 24))
        >>> q = RefinedMeanFieldPosterior(start, iterative, iterations=3)
        >>> q(torch.zeros(5, 6))["z"].probability.shape
        torch.Size([5, 8])

    Source:
        Hjelm et al. (2016), *Iterative refinement of the approximate posterior for directed belief
        networks*, NeurIPS; Kim et al. (2018), *Semi-amortized variational autoencoders*, ICML.
    """

    def __init__(
        self, start: nn.Module, iterative: MeanFieldPosterior, *, iterations: int = 3
    ) -> None:
        super().__init__()
        check_iterations(iterations)
        if start.latents != iterative.latents:
            raise ConfigError(
                f"a start with {start.latents} latents for iterations of {iterative.latents}: "
                "expected as many.",
                code="pair.latents",
            )
        self.start, self.iterative, self.iterations = start, iterative, int(iterations)
        self.latents = iterative.latents

    @property
    def encoder(self) -> nn.Module:
        """The start's own."""
        return self.start.encoder

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        with torch.no_grad():
            z = self.start(x)["z"]
            if not isinstance(z, SpikeSlab):
                raise ConfigError(
                    f"refinement starts from gates and amplitudes: got {type(z).__name__}, "
                    "expected a posterior such as SpikeSlabPosterior.",
                    code="refined.start",
                )
            moments = Moments(z.probability, z.mean, z.variance.sum(-1))
            return as_sites(self.iterative.refine(x, moments, self.iterations))

    def extra_repr(self) -> str:
        return f"iterations={self.iterations}"
