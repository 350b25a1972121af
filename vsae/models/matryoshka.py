"""Matryoshka: nested dictionaries, each of which explains an activation by itself."""

import math
from collections.abc import Sequence
from itertools import accumulate

import pyro
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from priors.errors import ConfigError
from priors.replicas import stack_like
from vsae.groups import grouped_bag
from vsae.likelihood import SphericalNormal, as_noise
from vsae.models.refusals import refuse_replicas
from vsae.models.sampling import sample_code
from vsae.plates import plates
from vsae.sparse_code import SparseCode


class MatryoshkaAutoencoder(nn.Module):
    r"""``support``, ``z``, and one observation of the activation by each prefix of the dictionary.

    .. math:: x_b \sim \mathcal N\Big(b + \sum_{j :\, S_{bj} < m} z_{bj}\, w_{S_{bj}},\
        \tfrac{σ^2}{ω_m} I\Big), \qquad m \in \mathcal M = (m_1 < … < m_M = K)

    Sites, in the plate ``rows``: ``support`` (B, W), ``active`` if there is an ``activity``, ``z``
    (B, W), as in :class:`vsae.SupportAutoencoder`; ``x_prefix_m`` (B, d) for each ``m < K``; ``x``
    (B, d), of all latents, with :math:`ω_K = 1`. Prefixes add up from disjoint groups of slots: all
    of them cost about one decode.

    This is a *composite* likelihood, the published loss, and not a bound on :math:`\log p(x)`. In
    evaluation mode there is ``x`` alone: the model is :class:`vsae.SupportAutoencoder`, whose ELBO
    is one. Train in training mode, as :func:`vsae.fit` does.

    Args:
        decoder: With ``W_dec`` (K, d) and ``b_dec``, e.g. :class:`vsae.LinearDecoder`.
        prior: ``() -> Distribution`` of event shape ``(K,)`` with a :func:`priors.restrict`.
        width: Slots per row :math:`W`, as many as the posterior writes.
        noise: Standard deviation σ of ``x`` in (normalised) activation units, or a module
            ``() -> σ``. The published *sum* over prefixes is σ² = ½, their *mean* σ² = M/2.
        prefixes: Sizes of the nested dictionaries, increasing, the last being ``K``.
        weights: :math:`ω_m` of each prefix but the last, in units of the weight of ``x``; ones if
            ``None``, as published. The noise of ``x_prefix_m`` is :math:`σ / \sqrt{ω_m}`.
        activity: Prior of which slots are active, as in :class:`vsae.SupportAutoencoder`.

    Raises:
        ConfigError: ``matryoshka.prefixes``, ``matryoshka.weights``, ``noise.scale``; when run,
            ``restrict.unregistered``, ``subsets.size``.

    Example:
        >>> from priors import LaplacePrior
        >>> from vsae import LinearDecoder
        >>> model = MatryoshkaAutoencoder(
        ...     LinearDecoder(8, 3), LaplacePrior(8), width=2, noise=0.1, prefixes=(2, 8)
        ... )
        >>> model(torch.zeros(5, 3)).shape
        torch.Size([5, 3])

    Source:
        Bussmann, Nabeshima, Karvonen & Nanda (2025), *Learning Multi-Level Features with Matryoshka
        Sparse Autoencoders*, 2503.17547.
    """

    def __init__(
        self,
        decoder: nn.Module,
        prior: nn.Module,
        *,
        width: int,
        noise: float | nn.Module,
        prefixes: Sequence[int],
        weights: Sequence[float] | None = None,
        activity: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.decoder, self.prior, self.activity, self.width = decoder, prior, activity, width
        self.noise = as_noise(noise)
        self.prefixes = _check_prefixes(tuple(prefixes), decoder.latents)
        inner = self.prefixes[:-1]
        self.weights = _check_weights((1.0,) * len(inner) if weights is None else weights, inner)
        self.register_buffer("ends", torch.tensor(inner, dtype=torch.int64), persistent=False)

    def forward(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        prior, noise = self.prior(), self.noise()
        with plates(x, prior.batch_shape):
            z, support = sample_code(prior, self.width, x.device, self.activity)
            *inner, mean = self.means(z, support) if self.training else [self.decoder(z, support)]
            for m, weight, part in zip(self.prefixes, self.weights, inner, strict=False):
                q = SphericalNormal(part, noise / weight**0.5)
                pyro.sample(f"x_prefix_{m}", q, obs=x)
            pyro.sample("x", SphericalNormal(mean, noise), obs=x)
        return mean

    def means(
        self, z: Float[Tensor, "rows W"], support: Int[Tensor, "rows W"]
    ) -> list[Float[Tensor, "rows d"]]:
        """What each prefix says of the activation, in the order of ``prefixes``."""
        group = torch.bucketize(support, self.ends, right=True)
        atoms, bias = self.decoder.W_dec, self.decoder.b_dec
        first, *others = grouped_bag(support, z, group, len(self.prefixes), atoms).unbind()
        return list(accumulate(others, initial=first if bias is None else first + bias))

    def code(self, sites: dict[str, Tensor]) -> SparseCode:
        """The code that values of the latent sites are."""
        return SparseCode(sites["support"], sites["z"], self.decoder.latents)


stack_like.register(MatryoshkaAutoencoder, refuse_replicas)


def _check_prefixes(prefixes: tuple[int, ...], latents: int) -> tuple[int, ...]:
    steps = zip((0, *prefixes), prefixes, strict=False)
    if not prefixes or prefixes[-1] != latents or any(b <= a for a, b in steps):
        raise ConfigError(
            f"no nested dictionaries: got prefixes={prefixes}, expected increasing sizes from 1 up "
            f"to {latents}, the number of latents, which is the last.",
            code="matryoshka.prefixes",
            context={"prefixes": prefixes, "latents": latents},
        )
    return prefixes


def _check_weights(weights: Sequence[float], inner: tuple[int, ...]) -> tuple[float, ...]:
    if len(weights) != len(inner) or not all(0 < w < math.inf for w in weights):
        raise ConfigError(
            f"got weights={tuple(weights)}, expected a positive number for each of the prefixes "
            f"{inner}; that of the whole dictionary is 1, see noise.",
            code="matryoshka.weights",
            context={"weights": tuple(weights), "prefixes": inner},
        )
    return tuple(weights)
