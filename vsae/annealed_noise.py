"""A noise that shrinks while a model trains: tempering, as a part of the model."""

import math

import torch
from torch import Tensor

from priors._prior import check_positive
from priors.errors import ConfigError
from vsae.observer import Observer


class AnnealedNoise(Observer):
    r"""A noise that goes geometrically from one value to another, and stays there.

    .. math:: σ(t) = σ_0 (σ_1 / σ_0)^{\min(t / T, 1)}

    A large noise flattens the likelihood, so that the prior has its say while atoms are still far
    from features; under an ℓ1 prior of scale ``b`` the penalty beside ``½‖x - x̂‖²`` is
    :math:`λ = σ^2 / b`, and annealing the noise anneals λ. Updates are counted in a buffer, by
    :func:`vsae.fit` and ``SVI`` alike, and saved with the model.

    Args:
        start: :math:`σ_0`, in (normalised) activation units.
        end: :math:`σ_1`, in the same units.
        length: :math:`T` in updates, at least 1.

    Raises:
        ConfigError: ``prior.bad_start``, ``prior.bad_end``; ``noise.length`` for no updates.

    Example:
        >>> noise = AnnealedNoise(1.0, 0.25, length=2)
        >>> noise.observe({})
        >>> noise().item()
        0.5

    Source:
        Deterministic annealing of a variational posterior: Ueda & Nakano (1998), *Deterministic
        annealing EM algorithm*, Neural Networks 11:271.
    """

    updates: Tensor
    origin: Tensor

    def __init__(self, start: float, end: float, *, length: int) -> None:
        super().__init__()
        self.start, self.end = check_positive("start", start), check_positive("end", end)
        if length < 1:
            raise ConfigError(
                f"annealing takes at least one update: got {length}. Use FixedNoise.",
                code="noise.length",
            )
        self.length = int(length)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.register_buffer("origin", torch.zeros(()), persistent=False)

    def forward(self) -> Tensor:
        part = (self.updates / self.length).clamp(max=1.0).to(self.origin.dtype)
        return self.start * torch.exp(part * math.log(self.end / self.start))

    @torch.no_grad()
    def observe(self, sites: dict[str, Tensor]) -> None:
        self.updates += 1

    def extra_repr(self) -> str:
        return f"start={self.start}, end={self.end}, length={self.length}"
