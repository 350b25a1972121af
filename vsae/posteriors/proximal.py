"""The step that a prior of independent latents takes in a proximal gradient method."""

from functools import singledispatch

from torch import Tensor
from torch.distributions import Distribution, Exponential, Independent, Laplace

from vsae.errors import ConfigError


@singledispatch
def proximal(prior: Distribution, value: Tensor, step: Tensor) -> Tensor:
    r""":math:`\arg\min_z \tfrac12 (z - v)^2 - t \log p(z)`, per latent.

    Raises:
        ConfigError: ``fista.prior`` for a prior without a rule.
    """
    raise ConfigError(
        f"no proximal step for {type(prior).__name__}: expected an ExponentialPrior or a "
        "LaplacePrior. Register one with vsae.posteriors.proximal.proximal.register.",
        code="fista.prior",
        context={"class": type(prior).__name__},
    )


@proximal.register
def _(prior: Independent, value: Tensor, step: Tensor) -> Tensor:
    return proximal(prior.base_dist, value, step)


@proximal.register
def _(prior: Exponential, value: Tensor, step: Tensor) -> Tensor:
    return (value - step * prior.rate).clamp(min=0)


@proximal.register
def _(prior: Laplace, value: Tensor, step: Tensor) -> Tensor:
    return value.sign() * (value.abs() - step / prior.scale).clamp(min=0)
