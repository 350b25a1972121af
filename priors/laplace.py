"""The ℓ1 penalty as a density."""

import pyro.distributions as dist
import torch
from torch import nn

from priors._prior import check_dim, check_positive, register


class LaplacePrior(nn.Module):
    r"""Independent Laplace latents of one scale.

    .. math:: -\log p(z) = \lVert z \rVert_1 / b + K \log 2b

    The KL from a Gaussian posterior is closed form (torch's), finite and smooth at zero; from a
    ``Delta`` posterior the negative log-density above *is* the KL, that is, the ℓ1 penalty.

    Args:
        dim: Number of latents :math:`K`.
        scale: :math:`b`, in the units of the codes; the standard deviation is :math:`b\sqrt2`.
        learnable: Whether :math:`\log b` is trained.

    Raises:
        ConfigError: ``prior.bad_dim``, ``prior.bad_scale``.

    Example:
        >>> prior = LaplacePrior(2, scale=0.5)  # -log p = 3 / b + 2 log 2b
        >>> prior().log_prob(torch.tensor([1.0, -2.0])).item()
        -6.0

    Source:
        Park & Casella (2008), *The Bayesian Lasso*, JASA 103:681.
    """

    def __init__(self, dim: int, *, scale: float = 1.0, learnable: bool = False) -> None:
        super().__init__()
        self.dim, self.learnable = check_dim(dim), learnable
        log_scale = torch.tensor(check_positive("scale", scale)).log()
        register(self, "log_scale", log_scale, learnable=learnable)

    def forward(self) -> dist.Independent:
        scale = self.log_scale.exp().unsqueeze(-1)
        scale = scale.expand(*scale.shape[:-1], self.dim)
        return dist.Laplace(torch.zeros_like(scale), scale).to_event(1)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"
