"""A weight of the KL that finds itself: whatever the pair, as many latents fire as wanted."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributions import Distribution

from priors._prior import check_positive
from priors.errors import ConfigError
from vsae.observer import PosteriorObserver, is_code
from vsae.point_estimate import point_estimate


class TargetL0(PosteriorObserver):
    r"""A controller of β: the schedule that trains a pair to a wanted number of active latents.

    .. math:: \log β_{t+1} = \log β_t + η\, \mathrm{clip}\Big(\log \frac{L_0(t)}{L_0^*},\ \pm 1\Big)

    within ``limits``. :math:`L_0(t)` is what :func:`vsae.metrics.l0` would say of the batch: codes
    at the posterior *mean* that are above zero; of codes in slots, amplitudes that are not zero. So
    arms of a comparison have one sparsity whatever their priors and posteriors. Of a variational
    ladder that holds for the coarsest level alone: it sees the posterior of training, whose means
    below are given the *draw* of the level above; ``pair.code`` takes them given its mean. A TopK
    guide's L0 does not depend on β, and a latent without a ``relu`` link is above zero half of the
    time: then β runs into a limit, which the record says.

    The pair must be able to follow: where latents take a thousand updates to answer a change of β,
    a faster controller overshoots, and β far from where it should be takes long to come back. A
    small ``rate`` and narrow ``limits`` prevent that.

    Given to :func:`vsae.fit` as ``beta=``, it is shown the codes of each update and asked for β
    before the next. β is a buffer. A record has ``beta``, ``codes/l0``, and ``codes/beta_limit``:
    -1 at the lower limit, 1 at the upper, 0 between: the target may be out of reach.

    Args:
        target: :math:`L_0^*`, active latents per row, on average; of a stack one per replica.
        start: :math:`β_0`.
        rate: :math:`η`; β changes by at most a factor :math:`e^η` an update.
        limits: Least and greatest β.

    Raises:
        ConfigError: ``prior.bad_target``, ``prior.bad_start``, ``prior.bad_rate``,
            ``target_l0.limits``; when training begins, ``target_l0.replicas``.

    Example:
        >>> from vsae import fit, l1_autoencoder
        >>> x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
        >>> pair = l1_autoencoder(4, 16, l1=0.1)
        >>> run = fit(pair, x, steps=3, batch_size=64, beta=TargetL0(2.0, rate=0.1))
        >>> [f"{record.to_dict()['beta']:.3f}" for record in run]  # too dense: β grows by e^0.1
        ['1.000', '1.105', '1.221']

    Source:
        Integral control of a multiplier; for KL terms Rezende & Viola (2018), *Taming VAEs*.
    """

    log_beta: Tensor
    log_target: Tensor
    active: Tensor

    def __init__(
        self,
        target: float | Iterable[float],
        *,
        start: float = 1.0,
        rate: float = 0.01,
        limits: tuple[float, float] = (1e-6, 1e6),
    ) -> None:
        super().__init__()
        several = tuple(map(float, target)) if isinstance(target, Iterable) else None
        self.target = float(target) if several is None else several
        if several == ():
            raise ConfigError(
                "no latents are wanted of no replica: got target=(), expected a number, or one per "
                "replica.",
                code="prior.bad_target",
                context={"target": several},
            )
        wanted = [check_positive("target", t) for t in several or (self.target,)]
        self.start, self.rate = check_positive("start", start), check_positive("rate", rate)
        self.limits = low, high = float(limits[0]), float(limits[1])
        if not 0 < low <= self.start <= high < float("inf"):
            raise ConfigError(
                f"β has no place to start: got {start=} and {limits=}, expected 0 < least <= start "
                "<= greatest.",
                code="target_l0.limits",
            )
        shape = () if several is None else (-1, 1)
        self.register_buffer("log_target", torch.tensor(wanted).view(shape).log())
        self.register_buffer("log_beta", torch.full_like(self.log_target, self.start).log())
        self.register_buffer("active", torch.full_like(self.log_target, torch.nan))

    def forward(self, step: int) -> Tensor:
        """β, ``()`` or ``(R, 1)``, whatever the step."""
        return self.log_beta.exp()

    @torch.no_grad()
    def observe_posterior(self, posterior: dict[str, Distribution]) -> None:
        codes = [point_estimate(q) for name, q in posterior.items() if is_code(name)]
        code = codes[0] if len(codes) == 1 else torch.cat(codes, -1)  # all levels of a ladder
        fires = code != 0 if "support" in posterior else code > 0
        active = fires.sum(-1).to(self.log_beta.dtype).mean(-1, keepdim=bool(self.log_beta.dim()))
        self.active.copy_(active)
        self.log_beta += log_step(active.log() - self.log_target, self.rate)
        self.log_beta.clamp_(*map(math.log, self.limits))

    def check(self, replicas: int) -> None:
        """Raise (``target_l0.replicas``) unless there is one target per replica, 0 being none."""
        targets = self.log_beta.shape[0] if self.log_beta.dim() else 0
        if targets != replicas:
            raise ConfigError(
                f"one target per replica: got target={self.target} for {replicas} replicas, "
                "expected as many numbers in a tuple, or one number without replicas.",
                code="target_l0.replicas",
            )

    def report(self) -> dict[str, Tensor]:
        low, high = map(math.log, self.limits)
        at = (self.log_beta >= high).to(self.active) - (self.log_beta <= low).to(self.active)
        return {"l0": self.active.squeeze(-1).clone(), "beta_limit": at.squeeze(-1)}

    def extra_repr(self) -> str:
        return f"target={self.target}, start={self.start}, rate={self.rate}, limits={self.limits}"


def log_step(error: Tensor, rate: float) -> Tensor:
    r"""What a controller adds to the logarithm of a weight: :math:`η\,\mathrm{clip}(e, \pm 1)`.

    Args:
        error: :math:`\log(L_0 / L_0^*)`, -∞ where nothing fires.
        rate: :math:`η`.
    """
    return rate * error.clamp(-1.0, 1.0)
