"""Multi-TopK: one code that explains with few latents, and with four times as many."""

import math

import pyro
from jaxtyping import Float, Int
from torch import Tensor, nn

from priors.errors import ConfigError
from priors.replicas import stack_like
from vsae.likelihood import SphericalNormal, as_noise
from vsae.models.refusals import refuse_replicas
from vsae.models.sampling import sample_code
from vsae.plates import plates
from vsae.sparse_code import SparseCode


class MultiTopKAutoencoder(nn.Module):
    r"""Codes in ``width`` slots; ``x`` by the ``k`` greatest, ``x_multi`` by all.

    .. math:: x_b \sim \mathcal N\Big(b + \sum_{j \in \mathrm{top}_k |z_b|} z_{bj}\, w_{S_{bj}},\
        σ^2 I\Big), \qquad
        x_b \sim \mathcal N\Big(b + \sum_{j \le W} z_{bj}\, w_{S_{bj}},\ \tfrac{σ^2}{ω} I\Big)

    Sites, in the plate ``rows``: ``support`` (B, W), ``z`` (B, W), ``x`` (B, d), ``x_multi``
    (B, d). Which slots are the greatest is the model's to say, as a link is: slots have no order,
    and any posterior in slots will do, published: :class:`vsae.TopKPosterior` of ``k = width``.
    The code is that of ``x``. The prior is about all of ``z``: under a penalty all ``width`` codes
    pay, not the ``k`` alone.

    Two observations of one activation are a *composite* likelihood, the published loss, and not a
    bound on :math:`\log p(x)`. ``x_multi`` is there in training mode alone; train in it, as
    :func:`vsae.fit` does.

    Args:
        decoder: ``(z, support) -> (B, d)``, e.g. :class:`vsae.LinearDecoder`.
        prior: ``() -> Distribution`` of event shape ``(K,)`` with a :func:`priors.restrict`.
        k: Latents per row that explain ``x``.
        width: Slots per row :math:`W`, as many as the posterior writes; published: ``4k``.
        noise: Standard deviation σ of ``x`` in (normalised) activation units, or a module
            ``() -> σ``; published: σ² = ½.
        weight: ω, of ``x_multi`` in units of the weight of ``x``; its noise is :math:`σ / \sqrt ω`.

    Raises:
        ConfigError: ``multi_topk.k`` unless ``0 < k <= width``, ``multi_topk.weight`` unless
            positive and finite, ``noise.scale``; when run, ``restrict.unregistered``,
            ``subsets.size``.

    Example:
        >>> import torch
        >>> from priors import LaplacePrior
        >>> from vsae import LinearDecoder
        >>> decoder, prior = LinearDecoder(8, 3), LaplacePrior(8)
        >>> model = MultiTopKAutoencoder(decoder, prior, k=1, width=4, noise=0.1)
        >>> model(torch.zeros(5, 3)).shape
        torch.Size([5, 3])

    Source:
        Gao et al. (2024), *Scaling and evaluating sparse autoencoders*, 2406.04093, §5.3.
    """

    def __init__(
        self,
        decoder: nn.Module,
        prior: nn.Module,
        *,
        k: int,
        width: int,
        noise: float | nn.Module,
        weight: float = 1 / 8,
    ) -> None:
        super().__init__()
        self.decoder, self.prior = decoder, prior
        self.k, self.width = _check_k(k, width), width
        self.noise = as_noise(noise)
        self.weight = _check_weight(weight)

    def forward(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        prior, noise = self.prior(), self.noise()
        with plates(x, prior.batch_shape):
            z, support = sample_code(prior, self.width, x.device)
            mean = self.decoder(*self.greatest(z, support))
            if self.training:
                multi = SphericalNormal(self.decoder(z, support), noise / self.weight**0.5)
                pyro.sample("x_multi", multi, obs=x)
            pyro.sample("x", SphericalNormal(mean, noise), obs=x)
        return mean

    def greatest(
        self, z: Float[Tensor, "*rows W"], support: Int[Tensor, "*rows W"]
    ) -> tuple[Float[Tensor, "*rows k"], Int[Tensor, "*rows k"]]:
        """The ``k`` slots of each row that are greatest in magnitude."""
        place = z.detach().abs().topk(self.k, dim=-1, sorted=False).indices
        return z.gather(-1, place), support.gather(-1, place)

    def code(self, sites: dict[str, Tensor]) -> SparseCode:
        """The code that values of the latent sites are: what ``x`` is explained by."""
        z, support = self.greatest(sites["z"], sites["support"])
        return SparseCode(support, z, self.decoder.latents)


stack_like.register(MultiTopKAutoencoder, refuse_replicas)


def _check_k(k: int, width: int) -> int:
    if not 0 < k <= width:
        raise ConfigError(
            f"the k greatest of the slots are too many: got {k=}, {width=}, expected 0 < k <= "
            "width.",
            code="multi_topk.k",
            context={"k": k, "width": width},
        )
    return k


def _check_weight(weight: float) -> float:
    if not 0 < weight < math.inf:
        raise ConfigError(
            f"weight of x_multi: got {weight}, expected a positive number. Without x_multi, use "
            "SupportAutoencoder.",
            code="multi_topk.weight",
            context={"weight": weight},
        )
    return weight
