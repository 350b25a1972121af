"""Switch: a router sends each row to one of several small dictionaries."""

import pyro
import pyro.distributions as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from priors.errors import ConfigError
from priors.replicas import stack_like
from vsae.experts import block_size
from vsae.likelihood import SphericalNormal, as_noise
from vsae.models.refusals import refuse_replicas
from vsae.models.sampling import sample_code
from vsae.observer import everyone
from vsae.plates import plates
from vsae.sparse_code import SparseCode


class SwitchAutoencoder(nn.Module):
    r"""``support``, ``route``, ``z``, the activation, and in training a price on uneven loads.

    .. math:: \log ψ = -\frac{α}{2σ^2}\, E \sum_b \sum_i f_i\, r_{bi}, \qquad
        f_i = \tfrac1B\, \#\{b : i = \arg\max_j r_{bj}\}

    Sites, in the plate ``rows``: ``support`` (B, W) and ``z`` (B, W), as in
    :class:`vsae.SupportAutoencoder`; ``route`` (B, E), on the simplex, uniform a priori and never
    scored; ``x`` (B, d); in training mode the factor ``balance`` (B,), the published load-balancing
    loss. The shares ``f`` are those of the batch (see :func:`vsae.share_batches`) and carry no
    gradient, so rows are coupled: drop padding before, masking does not take it out of ``f``. In
    evaluation mode there is no factor, and the ELBO is a bound on :math:`\log p(x)`.

    Args:
        decoder: ``(z, support) -> (B, d)``, e.g. :class:`vsae.LinearDecoder`; expert ``i`` owns the
            ``i``-th of ``E`` equal blocks of latents.
        prior: ``() -> Distribution`` of event shape ``(K,)`` with a :func:`priors.restrict`.
        experts: ``E``.
        width: Slots per row, as many as the posterior writes.
        noise: Standard deviation σ in (normalised) activation units, or a module ``() -> σ``.
        balance: α, beside the squared error, in (normalised) activation units squared; 0 for none.

    Raises:
        ConfigError: ``switch.experts`` unless ``E`` divides ``K``; ``switch.balance`` if negative;
            ``noise.scale``; when run, ``restrict.unregistered``, ``subsets.size``.

    Example:
        >>> import torch
        >>> from priors import FlatPrior
        >>> from vsae import LinearDecoder
        >>> model = SwitchAutoencoder(
        ...     LinearDecoder(8, 3), FlatPrior(8), experts=2, width=2, noise=0.7, balance=0.03
        ... )
        >>> model(torch.zeros(5, 3)).shape
        torch.Size([5, 3])

    Source:
        Mudide et al. (2024), *Efficient Dictionary Learning with Switch Sparse Autoencoders*,
        2410.08201, §3.2; Fedus et al. (2022), *Switch Transformers* (the load-balancing loss).
    """

    def __init__(
        self,
        decoder: nn.Module,
        prior: nn.Module,
        *,
        experts: int,
        width: int,
        noise: float | nn.Module,
        balance: float,
    ) -> None:
        super().__init__()
        block_size(experts, decoder.latents)
        if not 0 <= balance < float("inf"):
            raise ConfigError(
                f"load balancing needs a finite weight of at least 0: got {balance}.",
                code="switch.balance",
            )
        self.decoder, self.prior, self.experts, self.width = decoder, prior, experts, width
        self.noise = as_noise(noise)
        self.balance = float(balance)

    def forward(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        prior, noise = self.prior(), self.noise()
        flat = dist.Dirichlet(x.new_ones(self.experts)).mask(False)  # xlogy(0, 0) has no gradient
        with plates(x, prior.batch_shape):
            z, support = sample_code(prior, self.width, x.device)
            route = pyro.sample("route", flat)
            mean = self.decoder(z, support)
            pyro.sample("x", SphericalNormal(mean, noise), obs=x)
            if self.training:
                price = self.balance / (2 * noise.detach() ** 2)  # a loss of loads teaches no noise
                pyro.factor("balance", -price * imbalance(route, self))
        return mean

    def code(self, sites: dict[str, Tensor]) -> SparseCode:
        """The code that values of the latent sites are."""
        return SparseCode(sites["support"], sites["z"], self.decoder.latents)


stack_like.register(SwitchAutoencoder, refuse_replicas)


def imbalance(
    route: Float[Tensor, "*rows E"], sharing: nn.Module | None = None
) -> Float[Tensor, "*rows"]:
    r"""``E Σ_i f_i r_bi`` of each row: 1 on average where experts share rows evenly, up to ``E``.

    Example:
        >>> import torch
        >>> imbalance(torch.eye(2)).tolist(), imbalance(torch.eye(2)[[0, 0]]).tolist()
        ([1.0, 1.0], [2.0, 2.0])
    """
    experts = route.shape[-1]
    chosen = F.one_hot(route.detach().argmax(-1), experts).reshape(-1, experts)
    share = chosen.to(route).mean(0)
    if sharing is not None:
        share = everyone(share, sharing).mean(0)
    return experts * (route @ share)
