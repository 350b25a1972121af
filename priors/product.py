"""A product of beliefs about the same code, for points: ℓ1 and a graph at once."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from pyro.distributions import TorchDistribution
from torch import Size, Tensor, nn
from torch.distributions import Distribution, constraints

from priors.errors import ConfigError


class Product(TorchDistribution):
    """Scored as the sum of the experts' log densities, without a normaliser of its own.

    Draws are the first expert's, so that a model can be run; they are not draws of the product.

    Args:
        experts: Distributions of one event shape ``(K,)``.
    """

    arg_constraints = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, experts: Sequence[Distribution], validate_args: bool | None = None) -> None:
        self.experts = tuple(experts)
        batch_shape = torch.broadcast_shapes(*(p.batch_shape for p in self.experts))
        super().__init__(batch_shape, self.experts[0].event_shape, validate_args=validate_args)

    def expand(self, batch_shape, _instance=None) -> "Product":
        batch_shape = Size(batch_shape)
        return Product([p.expand(batch_shape) for p in self.experts], self._validate_args)

    def rsample(self, sample_shape=Size()) -> Tensor:
        return self.experts[0].expand(self.batch_shape).rsample(Size(sample_shape))

    def log_prob(self, value: Float[Tensor, "*rows K"]) -> Float[Tensor, "*out"]:
        return sum(p.log_prob(value) for p in self.experts)


class ProductPrior(nn.Module):
    r"""Several beliefs about one code, multiplied: a product of experts for point posteriors.

    .. math:: -\log p(z) = -\sum_e \log p_e(z) + \text{const}

    A Laplace and a graph prior together are the penalty :math:`λ\lVert z\rVert_1 + η\,z^\top L z`.
    The normaliser of the product is unknown: a constant while nothing in it is learned, so keep
    the experts fixed. From a ``Delta`` posterior the KL is the sum of penalties; from others there
    is none.

    Args:
        experts: Priors ``() -> Distribution`` of one event shape ``(K,)``.

    Raises:
        ConfigError: ``product.experts`` if there are none, if they have different numbers of
            latents, or if one of them has parameters.

    Example:
        >>> from priors import IsotropicPrior, LaplacePrior
        >>> prior = ProductPrior([LaplacePrior(2), IsotropicPrior(2)])
        >>> z = torch.tensor([1.0, -2.0])
        >>> (prior().log_prob(z) - prior().log_prob(0 * z)).item()  # -(|1| + |-2|) - ½ (1 + 4)
        -5.5

    Source:
        Hinton (2002), *Training Products of Experts by Minimizing Contrastive Divergence*, eq. 1.
    """

    def __init__(self, experts: Sequence[nn.Module]) -> None:
        super().__init__()
        sizes = [expert().event_shape[0] for expert in experts]
        learned = [n for e in experts for n, _ in e.named_parameters()]
        if len(set(sizes)) != 1 or learned:
            raise ConfigError(
                f"a product needs fixed experts over the same latents: got sizes {sizes} and "
                f"parameters {learned}, expected one size and no parameters.",
                code="product.experts",
                context={"sizes": sizes, "learned": learned},
            )
        self.dim, self.experts = sizes[0], nn.ModuleList(experts)

    def forward(self) -> Product:
        return Product([expert() for expert in self.experts])

    def extra_repr(self) -> str:
        return f"dim={self.dim}"
