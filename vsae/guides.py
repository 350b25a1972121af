"""Guides: programs that sample a model's latent sites."""

import pyro
from jaxtyping import Float
from torch import Tensor, nn

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
        sites = self.posterior(x)
        with plates(x, next(iter(sites.values())).batch_shape):
            return {name: pyro.sample(name, q) for name, q in sites.items()}
