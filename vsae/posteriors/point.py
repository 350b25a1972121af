"""Point posteriors over dense codes: the zero-variance members of the family."""

import pyro.distributions as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution


def point(value: Tensor) -> dist.Delta:
    """The Delta of one row: event shape the last dimension, batch shape the rest.

    ``Delta(v)`` without ``event_dim`` passes silently as a wrong batch when B == K: use this.
    """
    return dist.Delta(value, event_dim=1)


class ReLUPosterior(nn.Module):
    r"""``z = relu(encoder(x))``, a point: the ℓ1 SAE's code, under any prior.

    Args:
        encoder: Network with ``K`` outputs.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.latents = encoder, encoder.outputs

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        return {"z": point(self.encoder(x).relu())}


class PointPosterior(nn.Module):
    r"""``z = encoder(x)``, a point of either sign: for priors on pre-activations (link ``relu``).

    Args:
        encoder: Network with ``K`` outputs.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.latents = encoder, encoder.outputs

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        return {"z": point(self.encoder(x))}
