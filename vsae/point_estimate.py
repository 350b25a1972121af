"""The code that stands for a posterior where one is asked for."""

from functools import singledispatch

import torch
from torch import Tensor
from torch.distributions import Distribution

from priors.spike_slab import SpikeSlab


@singledispatch
def point_estimate(posterior: Distribution) -> Tensor:
    """The posterior mean."""
    return posterior.mean


@point_estimate.register
def _(posterior: SpikeSlab) -> Tensor:
    """The posterior mean of latents that are more likely on than off; exactly zero of the others.

    The mean itself is never zero.
    """
    return torch.where(posterior.probability > 0.5, posterior.mean, 0.0)
