"""An ℓ1 penalty that weakens while a model trains."""

import math

import torch
from pyro import distributions as dist
from torch import Tensor

from priors._prior import check_dim, check_positive
from priors.errors import ConfigError
from vsae.observer import Observer


class AnnealedExponentialPrior(Observer):
    r"""An exponential prior whose mean grows geometrically: λ goes from strong to weak.

    .. math:: -\log p_t(z) = λ_t \sum_k z_k - K \log λ_t, \qquad
        λ_t = λ_0 (λ_1 / λ_0)^{\min(t / T, 1)}

    A strong penalty at first leaves few latents to a row, so that atoms become features rather than
    parts of them; a weak one at the end shrinks amplitudes less. Updates are counted in a buffer,
    by :func:`vsae.fit` and ``SVI`` alike, and saved with the model.

    Args:
        dim: Number of latents :math:`K`.
        start: :math:`λ_0`, per unit of the codes.
        end: :math:`λ_1`, the same.
        length: :math:`T` in updates, at least 1.

    Raises:
        ConfigError: ``prior.bad_dim``, ``prior.bad_start``, ``prior.bad_end``; ``noise.length``.

    Example:
        >>> prior = AnnealedExponentialPrior(3, start=4.0, end=1.0, length=2)
        >>> prior.observe({})
        >>> round(prior().mean[0].item(), 6)
        0.5

    Source:
        Continuation of ℓ1 problems: Hale, Yin & Zhang (2008), *Fixed-point continuation*, SIAM J.
        Optimization 19:1107.
    """

    updates: Tensor
    origin: Tensor

    def __init__(self, dim: int, *, start: float, end: float, length: int) -> None:
        super().__init__()
        self.dim = check_dim(dim)
        self.start, self.end = check_positive("start", start), check_positive("end", end)
        if length < 1:
            raise ConfigError(
                f"annealing takes at least one update: got {length}. Use ExponentialPrior.",
                code="noise.length",
            )
        self.length = int(length)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.register_buffer("origin", torch.zeros(()), persistent=False)

    def forward(self) -> dist.Independent:
        part = (self.updates / self.length).clamp(max=1.0).to(self.origin.dtype)
        rate = self.start * torch.exp(part * math.log(self.end / self.start))
        rate = rate.unsqueeze(-1).expand(*rate.shape, self.dim)
        return dist.Exponential(rate, validate_args=False).to_event(1)

    @torch.no_grad()
    def observe(self, sites: dict[str, Tensor]) -> None:
        self.updates += 1

    def extra_repr(self) -> str:
        return f"dim={self.dim}, start={self.start}, end={self.end}, length={self.length}"
