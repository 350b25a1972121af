"""The ℓ1 penalty with learned weights that sum to 1: what the tiered HSAE was published with."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from pyro.distributions import Laplace, TorchDistribution
from torch import Size, Tensor, nn
from torch.distributions import constraints

from priors._prior import check_positive
from priors.errors import ConfigError
from priors.tiers import check_count, check_sizes, per_latent


class WeightedL1(TorchDistribution):
    """``-Σ_k weight_k |z_k|`` and no normaliser, so that weights can be learned away.

    Drawn as Laplace latents of scale ``1 / weight``, so that a model can be run. From a ``Delta``
    the KL is the penalty; from any other posterior there is none.

    Args:
        weight: Of each latent, ``(*batch, K)``, above 0.
    """

    arg_constraints = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, weight: Float[Tensor, "*batch K"], validate_args: bool | None = None):
        self.weight = weight
        super().__init__(weight.shape[:-1], weight.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape, _instance=None) -> "WeightedL1":
        weight = self.weight.expand(Size(batch_shape) + self.event_shape)
        return WeightedL1(weight, validate_args=self._validate_args)

    def rsample(self, sample_shape=Size()) -> Tensor:
        return Laplace(torch.zeros_like(self.weight), 1 / self.weight).rsample(sample_shape)

    def log_prob(self, value: Float[Tensor, "*rows K"]) -> Float[Tensor, "*out"]:
        if self._validate_args:
            self._validate_sample(value)
        return -(self.weight * value.abs()).sum(-1)


class SoftmaxWeightsPrior(nn.Module):
    r"""The published composition loss: an ℓ1 penalty whose weights are a softmax, and learned.

    .. math:: -\log p(z) = λ \sum_i w_i \lVert z_i \rVert_1, \qquad w = \mathrm{softmax}(a)

    Improper, and degenerate: :math:`\partial/\partial a_i = λ w_i (\lVert z_i\rVert_1 - \sum_j w_j
    \lVert z_j\rVert_1)` moves all the weight to the tier of the *smallest* ℓ1, a dead one if there
    is one, and leaves the others without a penalty. Kept to show that;
    :class:`TieredLaplacePrior` is the proper form.

    Args:
        sizes: Latents of each tier.
        l1: λ, in (normalised) activation units at σ² = ½.
        weights: :math:`w` to begin with, positive; divided by their sum. Equal if ``None``. Note
            that logits of [.1, .3, .6] are *not* weights of [.1, .3, .6].

    Raises:
        ConfigError: ``tiers.sizes``, ``tiers.count``, ``tiers.weights`` unless all are positive,
            ``prior.bad_l1``.

    Example:
        >>> SoftmaxWeightsPrior((1, 1, 1), l1=0.04, weights=(0.1, 0.3, 0.6)).weights()
        tensor([0.1000, 0.3000, 0.6000]...)
        >>> torch.tensor([0.1, 0.3, 0.6]).softmax(0)
        tensor([0.2584, 0.3156, 0.4260]...)

    Source:
        *Compositional Hierarchies* (tiered HSAE, under review), eq. 3 and 6.
    """

    def __init__(
        self, sizes: Sequence[int], *, l1: float, weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.sizes, self.l1 = check_sizes(sizes), check_positive("l1", l1)
        given = check_count("weights", weights or [1.0] * len(self.sizes), self.sizes)
        if not all(0 < weight < float("inf") for weight in given):
            raise ConfigError(
                f"a softmax has positive weights: got {given}. Leave a tier's penalty out with a "
                "small weight.",
                code="tiers.weights",
            )
        self.logits = nn.Parameter((torch.tensor(given) / sum(given)).log())

    @property
    def dim(self) -> int:
        """Number of latents :math:`K`, all tiers together."""
        return sum(self.sizes)

    def weights(self) -> Tensor:
        """:math:`w`, one per tier."""
        return self.logits.softmax(-1)

    def forward(self) -> WeightedL1:
        return WeightedL1(per_latent(self.l1 * self.weights(), self.sizes))

    def extra_repr(self) -> str:
        return f"sizes={self.sizes}, l1={self.l1}"
