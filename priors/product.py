"""Two beliefs at once: a structured Gaussian and ℓ1."""

import torch
from jaxtyping import Float
from pyro import distributions as dist
from pyro.distributions import Delta, TorchDistribution
from torch import Size, Tensor, nn
from torch.distributions import (
    Distribution,
    Independent,
    Laplace,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    constraints,
    kl_divergence,
    register_kl,
)

from priors._gaussian import PrecisionNormal
from priors.errors import ConfigError
from priors.restrict import Restricted, check_restrictable, restrict


class Product(TorchDistribution):
    r"""The density :math:`p_G(z)\, p_L(z) / Z` of event shape ``(K,)``, scored *without* ``Z``.

    ``log_prob`` is :math:`\log p_G + \log p_L`, and a KL lacks the constant :math:`\log Z`.

    Args:
        gaussian: :math:`p_G`.
        laplace: :math:`p_L`, ``Laplace(…).to_event(1)`` over as many latents.

    Example:
        >>> from priors import IsotropicPrior, LaplacePrior
        >>> one, other = IsotropicPrior(2)(), LaplacePrior(2)()
        >>> z = torch.tensor([0.5, -1.0])
        >>> bool(Product(one, other).log_prob(z) == one.log_prob(z) + other.log_prob(z))
        True
    """

    arg_constraints = {}
    support = constraints.real_vector
    exact = False  # the normaliser is left out

    def __init__(
        self, gaussian: PrecisionNormal, laplace: Independent, validate_args: bool | None = None
    ) -> None:
        self.gaussian, self.laplace = gaussian, laplace
        batch_shape = torch.broadcast_shapes(gaussian.batch_shape, laplace.batch_shape)
        super().__init__(batch_shape, gaussian.event_shape, validate_args=validate_args)

    def expand(self, batch_shape, _instance=None) -> "Product":
        factors = (factor.expand(Size(batch_shape)) for factor in (self.gaussian, self.laplace))
        return Product(*factors, validate_args=self._validate_args)

    def log_prob(self, value: Float[Tensor, "*rows K"]) -> Float[Tensor, "*out"]:
        if self._validate_args:
            self._validate_sample(value)
        return self.gaussian.log_prob(value) + self.laplace.log_prob(value)

    def sample(self, sample_shape=Size()) -> Tensor:
        raise _no_draws()


class ProductPrior(nn.Module):
    r"""A Gaussian prior and an ℓ1 penalty at once, the density proportional to their product.

    .. math:: p(z) = \frac{p_G(z)\, p_L(z)}Z, \qquad
        -\log p(z) = \tfrac12 (z - m)^\top Λ (z - m) + \lVert z \rVert_1 / b + \text{const}

    Under a point posterior that is "graph + ℓ1": codes vary little over the graph *and* are sparse,
    which a Gaussian alone does not make them. :math:`Z = \int p_G p_L` has no closed form where
    latents are coupled. It is left out of densities and KLs (``exact`` is ``False``): gradients and
    comparisons of codes are right, the ELBO is a bound but for the unknown constant
    :math:`\log Z \le -K \log 2b`. As ``Z`` depends on the parameters of both, neither may be
    learned. The KL from a Gaussian posterior is closed form but for it:

    .. math:: \mathrm{KL}(q \| p) = \mathrm{KL}(q \| p_G) + \mathrm{KL}(q \| p_L) + H(q) + \log Z

    Codes in slots work; there is no sampler.

    Args:
        gaussian: A Gaussian prior without learned parameters, e.g. ``GraphLaplacianPrior``.
        laplace: A Laplace prior without learned parameters, over as many latents.

    Raises:
        ConfigError: ``product.factors`` unless the two are a Gaussian and a Laplace prior over as
            many latents; ``product.learned`` for a parameter; when asked for a draw,
            ``product.sample``.

    Example:
        >>> from priors import Graph, GraphLaplacianPrior, LaplacePrior
        >>> prior = ProductPrior(GraphLaplacianPrior(Graph.ring(4)), LaplacePrior(4, scale=0.1))
        >>> alike, apart = torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0]])
        >>> (prior().log_prob(alike) - prior().log_prob(apart)).item()  # two edges less, halved
        1.0

    Source:
        Zou & Hastie (2005), *Regularization and variable selection via the elastic net*, §2.6 (the
        prior); with a Laplacian, Li & Li (2008), Bioinformatics 24:1175.
    """

    exact = False  # the normaliser is left out

    def __init__(self, gaussian: nn.Module, laplace: nn.Module) -> None:
        super().__init__()
        learned = [n for m in (gaussian, laplace) for n, _ in m.named_parameters()]
        if learned:
            raise ConfigError(
                f"the missing normaliser depends on every parameter: got learned {learned}, "
                "expected none. Use learnable=False and a fixed loc.",
                code="product.learned",
                context={"parameters": learned},
            )
        _check_factors(gaussian(), laplace())
        self.gaussian, self.laplace = gaussian, laplace

    @property
    def dim(self) -> int:
        """Number of latents."""
        return self.gaussian.dim

    def forward(self) -> Product:
        return Product(self.gaussian(), self.laplace())


class RestrictedProduct(Restricted):
    """The sum of both log-densities on codes in slots."""

    @property
    def factors(self) -> tuple[Distribution, Distribution]:
        """The two, restricted."""
        return restrict(self.prior.gaussian, self.slots), restrict(self.prior.laplace, self.slots)

    def log_prob(self, value: Float[Tensor, "*rows W"]) -> Float[Tensor, "*out"]:
        gaussian, laplace = self.factors
        return gaussian.log_prob(value) + laplace.log_prob(value)

    def _draw(self, sample_shape: Size, method: str) -> Tensor:
        raise _no_draws()


@restrict.register
def _(prior: Product, support: Tensor) -> RestrictedProduct:
    check_restrictable(prior, support)
    return RestrictedProduct(prior, support)


@register_kl(Independent, Product)
@register_kl(MultivariateNormal, Product)
@register_kl(LowRankMultivariateNormal, Product)
def _kl_gaussian(q: Distribution, p: Product) -> Tensor:
    if _is_point(q):
        return -p.log_prob(q.base_dist.v)
    to_gaussian = kl_divergence(q, p.gaussian)  # which also refuses what is no Gaussian
    marginals = dist.Normal(q.mean, q.stddev).to_event(1)  # all that ‖z‖₁ depends on
    return to_gaussian + kl_divergence(marginals, p.laplace) + marginals.entropy()


@register_kl(Independent, RestrictedProduct)
def _kl_restricted(q: Independent, p: RestrictedProduct) -> Tensor:
    if _is_point(q):
        return -p.log_prob(q.base_dist.v)
    if not isinstance(q.base_dist, Normal):
        raise NotImplementedError
    gaussian, laplace = p.factors
    return kl_divergence(q, gaussian) + kl_divergence(q, laplace) + q.entropy()


def _is_point(q: Distribution) -> bool:
    one = isinstance(q, Independent) and q.reinterpreted_batch_ndims == 1
    return one and isinstance(q.base_dist, Delta)


def _check_factors(gaussian: Distribution, laplace: Distribution) -> None:
    is_laplace = isinstance(laplace, Independent) and isinstance(laplace.base_dist, Laplace)
    same = gaussian.event_shape == laplace.event_shape and len(gaussian.event_shape) == 1
    if not (isinstance(gaussian, PrecisionNormal) and is_laplace and same):
        raise ConfigError(
            "a product is of a Gaussian and a Laplace prior over the same latents: got "
            f"{type(gaussian).__name__} over {tuple(gaussian.event_shape)} and "
            f"{type(getattr(laplace, 'base_dist', laplace)).__name__} over "
            f"{tuple(laplace.event_shape)}.",
            code="product.factors",
        )


def _no_draws() -> ConfigError:
    return ConfigError(
        "a product of densities has no sampler: got a request for draws, expected only scores. "
        "Draw from one of its factors, or run pyro.infer.MCMC on log_prob.",
        code="product.sample",
    )
