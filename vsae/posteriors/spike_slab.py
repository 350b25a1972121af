"""Spike and slab from one pass of a network: the amortised counterpart of the mean field."""

import torch.nn.functional as F
from jaxtyping import Float
from pyro import distributions as dist
from torch import Tensor, nn
from torch.distributions import Distribution

from priors.errors import ConfigError
from priors.spike_slab import SpikeSlab
from priors.truncated_normal import TruncatedNormal
from vsae.posteriors.gaussian import check_floor


class SpikeSlabPosterior(nn.Module):
    r"""Independent gates and amplitudes, read off an encoder.

    .. math:: g_k \sim \mathrm{Bernoulli}(\mathrm{logit}^{-1}\, \ell_k(x)), \qquad
        a_k \sim \mathcal N(m_k(x), s_k(x)^2) \text{ given } a_k > 0, \qquad z_k = g_k a_k

    The family of :class:`vsae.MeanFieldPosterior`, at a matrix product instead of iterations. Train
    it towards an iterative posterior with :func:`vsae.distil`, or by the ELBO alone with
    :class:`vsae.ExpectedELBO`; gates have no pathwise draws.

    Under a dictionary of orthonormal atoms the exact posterior has :math:`m` affine in ``x`` and
    one :math:`s` per latent, so that a :class:`vsae.LinearEncoder` holds both; :math:`\ell_k` is a
    convex function of ``x`` along atom ``k``, affine in the limit of constant amplitudes. Atoms
    that overlap must explain one another away, which no linear encoder does.

    Args:
        encoder: Network with ``3K`` outputs: :math:`m`, :math:`\mathrm{softplus}^{-1}(s)` and
            :math:`\ell`; a linear one aligned with a decoder reads :math:`m` along its atoms.
        floor: The least :math:`s`, in the units of the codes.

    Raises:
        ConfigError: ``posterior.outputs`` unless the encoder's outputs are a multiple of 3,
            ``posterior.floor``.

    Example:
        >>> import torch
        >>> from vsae.encoders import LinearEncoder
        >>> q = SpikeSlabPosterior(LinearEncoder(3, 12))(torch.zeros(5, 3))["z"]
        >>> q.probability.shape
        torch.Size([5, 4])

    Source:
        Titsias & Lázaro-Gredilla (2011), NeurIPS, §3.2 (the family); Tonolini, Jensen &
        Murray-Smith (2019), *Variational sparse coding*, UAI (amortised).
    """

    def __init__(self, encoder: nn.Module, *, floor: float = 1e-4) -> None:
        super().__init__()
        check_floor(floor)
        if encoder.outputs % 3:
            raise ConfigError(
                "a spike-and-slab posterior needs an encoder with 3K outputs: got "
                f"{encoder.outputs}.",
                code="posterior.outputs",
            )
        self.encoder, self.latents, self.floor = encoder, encoder.outputs // 3, floor

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        loc, raw, logits = self.encoder(x).chunk(3, dim=-1)
        slab = TruncatedNormal(loc, self.floor + F.softplus(raw), validate_args=False)
        gates = dist.Bernoulli(logits=logits, validate_args=False).to_event(1)
        return {"z": SpikeSlab(gates, dist.Independent(slab, 1), validate_args=False)}
