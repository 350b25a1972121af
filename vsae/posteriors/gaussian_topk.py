"""TopK with Gaussian amplitudes: noise, and a KL, on the selected latents only."""

import pyro.distributions as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from priors._prior import check_positive
from vsae.posteriors.point import point


class GaussianTopKPosterior(nn.Module):
    r"""``z_S ~ Normal(μ_S(x), scale²)`` on the ``k`` latents of greatest ``|μ|``, zero elsewhere.

    .. math:: S = \mathrm{top}_k |μ|, \qquad μ = (x - b_{dec}) W_{enc}^\top + b_{enc}, \qquad
        z_{S_j} \sim \mathcal N(μ_{S_j}, s^2)

    The support is that of the *mean*: noise does not choose latents. Under a
    :class:`priors.SlabPrior` of standard normals the KL is
    :math:`\sum_{j \in S} \mathrm{KL}(\mathcal N(μ_j, s^2) \,\|\, \mathcal N(0, 1))`, the "masked
    KL"; other latents have no amplitude and pay nothing. With unit atoms the injected noise raises
    the expected squared error by :math:`k s^2` plus a term in the overlaps that has mean zero:
    expected loss and gradient are those of a point posterior, but for a constant.

    Args:
        encoder: With ``select_magnitude(x, k)``, e.g. :class:`vsae.DictionaryEncoder`.
        k: Slots, and active latents, per row.
        scale: Standard deviation :math:`s`, in the units of the codes;
            :math:`σ / \sqrt{1 + σ^2}` is the best one under a standard normal prior.

    Raises:
        ConfigError: ``prior.bad_scale`` unless positive and finite; ``select.k``, when run, unless
            ``0 < k <= K``.

    Example:
        >>> import torch
        >>> from vsae import DictionaryEncoder, LinearDecoder
        >>> encoder = DictionaryEncoder(LinearDecoder(8, 3))
        >>> GaussianTopKPosterior(encoder, k=2, scale=0.5)(torch.ones(5, 3))["z"].batch_shape
        torch.Size([5])

    Source:
        Baker & Li (2025), *Analysis of Variational Sparse Autoencoders*, 2509.22994: the masked KL
        of its later code.
    """

    def __init__(self, encoder: nn.Module, *, k: int, scale: float) -> None:
        super().__init__()
        self.encoder, self.k, self.latents = encoder, k, encoder.outputs
        self.scale = check_positive("scale", scale)

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        values, support = self.encoder.select_magnitude(x, self.k)
        amplitudes = dist.Normal(values, values.new_tensor(self.scale)).to_event(1)
        return {"support": point(support), "z": amplitudes}
