"""Routing with Gaussian amplitudes: a variational H-SAE."""

import pyro.distributions as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from priors._prior import check_positive
from vsae.posteriors.point import point
from vsae.posteriors.routed import RoutedPosterior


class GaussianRoutedPosterior(nn.Module):
    r"""``z_S ~ Normal(μ_S(x), scale²)`` on the paths of :class:`vsae.RoutedPosterior`, its means.

    .. math:: z_{S_j} \sim \mathcal N(μ_{S_j}, s^2)

    The paths are those of the means: noise chooses no latent. Every slot has noise, and pays, one
    whose mean is 0 too: a row uses ``k`` roots and as many children whatever it is. Under a prior
    in slots (:class:`priors.SlabPrior`, or a Gaussian given by a precision, such as
    :class:`priors.BlockDiagonalPrior` with a block per family) every KL is closed form.

    Args:
        encoder: :class:`vsae.HierarchicalEncoder`.
        k: Roots per row; slots are ``k · depth``.
        scale: Standard deviation :math:`s`, in the units of the codes.

    Raises:
        ConfigError: ``prior.bad_scale`` unless positive and finite; ``select.k`` unless
            ``0 < k <= m``.

    Example:
        >>> import torch
        >>> from vsae import HierarchicalDecoder, HierarchicalEncoder, LinearDecoder
        >>> decoder = HierarchicalDecoder(LinearDecoder(8, 6), branching=(4,), subspaces=(2,))
        >>> encoder = HierarchicalEncoder(decoder)
        >>> GaussianRoutedPosterior(encoder, k=3, scale=0.5)(torch.ones(5, 6))["z"].event_shape
        torch.Size([6])

    Source:
        Ours; the masked KL is that of Baker & Li (2025), 2509.22994.
    """

    def __init__(self, encoder: nn.Module, *, k: int, scale: float) -> None:
        super().__init__()
        self.routed = RoutedPosterior(encoder, k=k)
        self.scale = check_positive("scale", scale)

    @property
    def encoder(self) -> nn.Module:
        """The routing's."""
        return self.routed.encoder

    @property
    def k(self) -> int:
        """The routing's."""
        return self.routed.k

    @property
    def latents(self) -> int:
        """The routing's."""
        return self.routed.latents

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        scores, support = self.encoder.route(x, self.k)
        means = self.routed.amplitudes(scores)
        amplitudes = dist.Normal(means, means.new_tensor(self.scale)).to_event(1)
        return {"support": point(support), "z": amplitudes}
