"""An interval for a share, from a count."""

import torch
from jaxtyping import Float, Int
from scipy.special import betaincinv
from torch import Tensor

from vsae.errors import ConfigError


def binomial_interval(
    hits: Int[Tensor, "*batch"], trials: Int[Tensor, "*batch"], *, level: float = 0.95
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    r"""Clopper–Pearson bounds of a probability: all p that the count does not reject, exactly.

    .. math:: \big[B^{-1}_{α/2}(k, n - k + 1),\; B^{-1}_{1 - α/2}(k + 1, n - k)\big]

    with quantiles of the beta distribution and :math:`α = 1 -` level. It covers p at least as often
    as it says, for any p and n (Wilson's, shorter, does so only on average), and means something at
    0 of n. Of independent events of *unequal* probabilities it covers their mean at least as
    often, wherever it does not reject the expected count itself. 0 to 1 without trials.

    Args:
        hits: k.
        trials: n.
        level: Of confidence.

    Raises:
        ConfigError: ``calibration.level`` unless in (0, 1).

    Example:
        >>> lower, upper = binomial_interval(torch.tensor(0), torch.tensor(10))
        >>> lower.item(), round(upper.item(), 4)
        (0.0, 0.3085)

    Source:
        Clopper & Pearson (1934); Hoeffding (1956), *On the distribution of the number of successes
        in independent trials* (unequal probabilities).
    """
    if not 0 < level < 1:
        raise ConfigError(
            f"level of an interval: got {level}, expected 0 < level < 1.", code="calibration.level"
        )
    k, n, tail = hits.cpu().double(), trials.cpu().double(), (1 - level) / 2
    # a count at its end leaves the beta distribution without a parameter: the bound is 0 or 1
    below = betaincinv(k.clamp(min=0.5).numpy(), (n - k + 1).numpy(), tail)
    above = betaincinv((k + 1).numpy(), (n - k).clamp(min=0.5).numpy(), 1 - tail)
    lower = torch.where(k > 0, torch.as_tensor(below), 0.0)
    return lower, torch.where(k < n, torch.as_tensor(above), 1.0)
