"""An ℓ1 penalty that finds its own weight: as strong as a wanted sparsity needs."""

import torch
from pyro import distributions as dist
from torch import Tensor

from priors._prior import check_dim, check_positive
from vsae.observer import Observer
from vsae.target_l0 import log_step


class TargetedExponentialPrior(Observer):
    r"""An exponential prior whose λ follows the number of active latents.

    .. math:: \log λ_{t+1} = \log λ_t + η\, \mathrm{clip}\Big(\log \frac{L_0(z_t)}{L_0^*},\ \pm
        1\Big), \qquad -\log p_t(z) = λ_t \sum_k z_k - K \log λ_t

    Starting from a strong penalty, under which hardly anything fires, λ falls by a factor of
    :math:`e^{-η}` an update until codes are as dense as wanted, and holds them there: a
    continuation and a controller in one. λ is a buffer, saved with the model.

    Args:
        dim: Number of latents :math:`K`.
        target: :math:`L_0^*`, active latents per row, on average.
        start: :math:`λ_0`, per unit of the codes.
        rate: :math:`η`.

    Raises:
        ConfigError: ``prior.bad_dim``, ``prior.bad_target``, ``prior.bad_start``,
            ``prior.bad_rate``.

    Example:
        >>> prior = TargetedExponentialPrior(8, target=2.0, rate=0.1)
        >>> before = prior().mean[0].item()
        >>> prior.observe({"z": torch.ones(5, 8)})  # too dense: the penalty grows
        >>> prior().mean[0].item() < before
        True

    Source:
        An integral controller of the sparsity, as SAELens has for its ℓ1 coefficient; the
        continuation as in Hale, Yin & Zhang (2008), SIAM J. Optimization 19:1107.
    """

    log_rate: Tensor

    def __init__(self, dim: int, *, target: float, start: float = 3.0, rate: float = 0.02) -> None:
        super().__init__()
        self.dim, self.target = check_dim(dim), check_positive("target", target)
        self.start, self.rate = check_positive("start", start), check_positive("rate", rate)
        self.register_buffer("log_rate", torch.tensor(self.start).log())

    def forward(self) -> dist.Independent:
        return dist.Exponential(self.log_rate.exp().expand(self.dim), validate_args=False).to_event(
            1
        )

    @torch.no_grad()
    def observe(self, sites: dict[str, Tensor]) -> None:
        codes = sites["z"]
        active = codes.count_nonzero(-1).to(codes.dtype).mean()
        self.log_rate += log_step((active / self.target).log(), self.rate)

    def report(self) -> dict[str, Tensor]:
        return {"l1": self.log_rate.exp()}

    def extra_repr(self) -> str:
        return f"dim={self.dim}, target={self.target}, start={self.start}, rate={self.rate}"
