"""The latent sites of every model of codes in slots."""

import pyro
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributions import Distribution

from priors.restrict import restrict
from priors.subsets import UniformSubsets


def sample_code(
    prior: Distribution, width: int, device: torch.device, activity: nn.Module | None = None
) -> tuple[Float[Tensor, "*rows W"], Int[Tensor, "*rows W"]]:
    """Sample ``support``, ``active`` if there is an activity, and ``z``; inside the plates.

    Args:
        prior: Of event shape ``(K,)``, with a :func:`priors.restrict`.
        width: Slots per row :math:`W`.
        device: Of the draws.
        activity: Prior of which slots are active, of event shape ``(K,)``.

    Returns:
        ``z`` and ``support``, as decoders take them.

    Raises:
        ConfigError: ``restrict.unregistered``, ``subsets.size``.
    """
    subsets = UniformSubsets(prior.event_shape[0], width, device=device)
    support = pyro.sample("support", subsets)
    if activity is not None:
        pyro.sample("active", restrict(activity(), support))
    return pyro.sample("z", restrict(prior, support)), support
