"""Injected noise from generators of our own, one per replica; torch's global one is not drawn."""

from collections.abc import Callable, Sequence
from functools import singledispatch

import torch
from pyro.distributions import Delta
from pyro.poutine.messenger import Messenger
from torch import Generator, Size, Tensor
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
)

from priors.errors import ConfigError

Draw = Callable[[Size, Tensor], Tensor]


@singledispatch
def from_noise(q: Distribution, draw: Draw) -> Tensor | None:
    """A reparameterised sample of ``q`` made of ``draw(shape, like)``; ``None`` if it takes none.

    Register a family with ``from_noise.register``; unregistered ones sample as Pyro does.
    """
    return None


@from_noise.register
def _(q: Independent, draw: Draw) -> Tensor | None:
    return from_noise(q.base_dist, draw)


@from_noise.register
def _(q: Normal, draw: Draw) -> Tensor:
    return torch.addcmul(q.loc, q.scale, draw(q.loc.shape, q.loc))


@from_noise.register
def _(q: MultivariateNormal, draw: Draw) -> Tensor:
    noise = draw(q.loc.shape, q.loc)
    return q.loc + (q.scale_tril @ noise[..., None]).squeeze(-1)


@from_noise.register
def _(q: LowRankMultivariateNormal, draw: Draw) -> Tensor:
    rank = q.loc.shape[:-1] + q.cov_factor.shape[-1:]
    low = (q.cov_factor @ draw(rank, q.loc)[..., None]).squeeze(-1)
    return q.loc + low + q.cov_diag.sqrt() * draw(q.loc.shape, q.loc)


class noise_from(Messenger):
    """Draw every latent's noise from ``generators`` instead of torch's global one.

    One generator serves a plain model. With ``R`` of them, replica ``r`` of a stack draws from the
    ``r``-th, exactly the numbers the same model would draw when trained alone.

    Args:
        generators: One, or one per replica; on the device of the model.

    Raises:
        ConfigError: ``noise.replicas`` if a stacked site's family has no ``from_noise`` rule, or
            its replicas are not as many as the generators.
    """

    def __init__(self, generators: Sequence[Generator]) -> None:
        super().__init__()
        self.generators = generators

    def _pyro_sample(self, msg) -> None:
        if msg["is_observed"] or msg["done"] or msg["value"] is not None:
            return
        q = msg["fn"]
        if not isinstance(q, Distribution):  # a plate's subsample
            return
        msg["value"] = from_noise(q, self._draw)
        if msg["value"] is None and not _is_point(q):
            msg["value"] = self._seeded(msg)

    def _seeded(self, msg: dict) -> Tensor:
        """A draw of a family without a rule: torch's global generator, seeded, then put back."""
        if len(self.generators) > 1:
            raise ConfigError(
                f"site {msg['name']!r}: no noise rule for {type(msg['fn']).__name__}, so replicas "
                "would share one stream. Register it with vsae.noise.from_noise.register.",
                code="noise.replicas",
            )
        generator = self.generators[0]
        seed = torch.randint(2**62, (), generator=generator, device=generator.device)
        devices = [generator.device] if generator.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(int(seed))
            return msg["fn"](*msg["args"], **msg["kwargs"])

    def _draw(self, shape: Size, like: Tensor) -> Tensor:
        options = {"dtype": like.dtype, "device": like.device}
        if len(self.generators) == 1:
            return torch.randn(shape, generator=self.generators[0], **options)
        if len(shape) < 3 or shape[0] != len(self.generators):
            raise ConfigError(
                f"{len(self.generators)} generators need latents of shape "
                f"({len(self.generators)}, rows, K): got {tuple(shape)}.",
                code="noise.replicas",
            )
        noise = torch.empty(shape, **options)
        for part, generator in zip(noise, self.generators, strict=True):
            part.normal_(generator=generator)
        return noise


def _is_point(q: Distribution) -> bool:
    return isinstance(q.base_dist if isinstance(q, Independent) else q, Delta)
