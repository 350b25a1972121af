"""Guides: programs that sample a model's latent sites."""

import pyro
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from priors.errors import ConfigError
from vsae.hierarchical_encoder import HierarchicalEncoder
from vsae.plates import plates


class AmortizedGuide(nn.Module):
    """``site ~ posterior(x)[site]`` for every site its posterior names, row by row.

    The posterior decides whether the autoencoder is variational: ``posterior(x) -> {site:
    Distribution}``, batch shape ``(B,)``, or ``(R, B)`` for ``R`` replicas.

    Args:
        posterior: e.g. :class:`vsae.GaussianPosterior`, :class:`vsae.ReLUPosterior`.
    """

    def __init__(self, posterior: nn.Module) -> None:
        super().__init__()
        self.posterior = posterior

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Tensor]:
        return sample_sites(x, self.posterior(x))


class RoutedGuide(nn.Module):
    """The guide of a tree: roots, one child of each, and so on, as sites of a routed posterior.

    Samples as :class:`AmortizedGuide` does; refuses a posterior that does not route.

    Args:
        posterior: :class:`vsae.RoutedPosterior`, or another one whose ``encoder`` is a
            :class:`vsae.HierarchicalEncoder`.

    Raises:
        ConfigError: ``hierarchy.posterior`` for another encoder.
    """

    def __init__(self, posterior: nn.Module) -> None:
        super().__init__()
        encoder = getattr(posterior, "encoder", None)
        if not isinstance(encoder, HierarchicalEncoder):
            raise ConfigError(
                f"routing needs a HierarchicalEncoder: got {type(encoder).__name__} in "
                f"{type(posterior).__name__}. Use AmortizedGuide for flat codes.",
                code="hierarchy.posterior",
            )
        self.posterior = posterior

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Tensor]:
        return sample_sites(x, self.posterior(x))


def sample_sites(x: Float[Tensor, "*rows d"], sites: dict[str, Distribution]) -> dict[str, Tensor]:
    """Sample every site of a posterior, inside the plates of its batch shape."""
    with plates(x, next(iter(sites.values())).batch_shape):
        return {name: pyro.sample(name, q) for name, q in sites.items()}
