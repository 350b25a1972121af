"""The noise of every model: one standard deviation for a whole activation."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pyro.distributions import TorchDistribution
from torch import Size, Tensor, nn
from torch.distributions import constraints

from priors.errors import ConfigError


class SphericalNormal(TorchDistribution):
    r"""``Normal(loc, scale · I)`` over activations.

    .. math:: -\log p(x) = \lVert x - μ\rVert^2 / 2σ^2 + d \log σ + \tfrac d2 \log 2π

    Equal to ``Normal(loc, scale).to_event(1)``, which broadcasts ``scale`` to (B, d) and takes that
    many logarithms.

    Args:
        loc: Mean ``(*batch, d)``, in activation units.
        scale: Standard deviation σ, in activation units; broadcasts over the batch shape.

    Example:
        >>> SphericalNormal(torch.zeros(2), 1.0).log_prob(torch.zeros(2)).exp().item()  # 1 / 2π
        0.159154...

    Source:
        Bishop (2006), *Pattern Recognition and Machine Learning*, eq. 2.43 with Σ = σ²I.
    """

    arg_constraints = {"loc": constraints.real_vector}
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, loc: Float[Tensor, "*batch d"], scale: float | Tensor, validate_args=None
    ) -> None:
        if isinstance(scale, Tensor) and scale.dim():
            loc = loc.expand(torch.broadcast_shapes(loc.shape, (*scale.shape, 1)))
        self.loc, self.scale = loc, scale
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape, _instance=None) -> "SphericalNormal":
        loc = self.loc.expand(Size(batch_shape) + self.event_shape)
        return SphericalNormal(loc, self.scale, validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.loc

    def rsample(self, sample_shape=Size()) -> Tensor:
        noise = torch.randn_like(self.loc.expand(self._extended_shape(sample_shape)))
        scale = self.scale
        return self.loc + (scale[..., None] if isinstance(scale, Tensor) else scale) * noise

    def log_prob(self, value: Float[Tensor, "*rows d"]) -> Float[Tensor, "*batch"]:
        if self._validate_args:
            self._validate_sample(value)
        log = torch.log if isinstance(self.scale, Tensor) else math.log
        constant = log(self.scale) + 0.5 * math.log(2 * math.pi)
        loc = self.loc
        if loc.shape != value.shape:  # mse_loss wants equal shapes, and broadcasting is slow
            loc, value = torch.broadcast_tensors(loc, value)
        distance = F.mse_loss(loc, value, reduction="none").sum(-1)  # one pass each way
        return distance * (-0.5 / self.scale**2) - self.event_shape[0] * constant


class FixedNoise(nn.Module):
    r"""A noise :math:`σ` that is known: "MSE + α·KL" is :math:`σ^2 = α/2`.

    Args:
        scale: Standard deviation, in (normalised) activation units; positive.

    Raises:
        ConfigError: ``noise.scale`` if not positive and finite.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        _check_positive(scale)
        self.register_buffer("scale", torch.tensor(float(scale), dtype=torch.get_default_dtype()))

    def forward(self) -> Tensor:
        return self.scale


class LearnedNoise(nn.Module):
    r"""A noise learned by maximum likelihood, :math:`σ = \mathrm{floor} + e^{ρ}`.

    The floor keeps a model that can interpolate its data from driving σ, and with it the ELBO, to a
    singularity.

    Args:
        scale: Initial standard deviation, in (normalised) activation units; above ``floor``.
        floor: The least σ, in the same units.

    Raises:
        ConfigError: ``noise.scale`` unless ``0 < floor < scale``.
    """

    def __init__(self, scale: float, *, floor: float = 1e-3) -> None:
        super().__init__()
        _check_positive(scale)
        if not 0 < floor < scale:
            raise ConfigError(
                f"learned noise needs 0 < floor < scale: got {floor=}, {scale=}.",
                code="noise.scale",
            )
        self.scale, self.floor = float(scale), floor
        excess = torch.tensor(float(scale - floor), dtype=torch.get_default_dtype())
        self.log_excess = nn.Parameter(excess.log())

    def forward(self) -> Tensor:
        return self.floor + self.log_excess.exp()


def as_noise(noise: float | nn.Module) -> nn.Module:
    """A module ``() -> σ``: ``noise`` itself, or :class:`FixedNoise` of a number.

    Raises:
        ConfigError: ``noise.scale`` for a tensor, which would be frozen in silence.
    """
    if isinstance(noise, Tensor):
        raise ConfigError(
            "noise is a tensor: expected a float, fixed, or a module such as LearnedNoise(…).",
            code="noise.scale",
        )
    return noise if isinstance(noise, nn.Module) else FixedNoise(noise)


def _check_positive(scale: float) -> None:
    if not 0 < scale < math.inf:
        raise ConfigError(
            f"noise must be a positive standard deviation: got {scale}. "
            "To fit the mean only, keep a small noise and scale_latents.",
            code="noise.scale",
        )
