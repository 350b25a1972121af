"""The objective with the expectation of the likelihood in closed form, too."""

from pyro.distributions import Delta, Unit
from torch import Tensor
from torch.distributions import Distribution, Independent

from priors.errors import ConfigError
from priors.spike_slab import SpikeSlab
from vsae.elbo import ClosedFormELBO
from vsae.recording import record_means, record_sites


class ExpectedELBO(ClosedFormELBO):
    r"""The negative ELBO of a linear-Gaussian model, without a single random number.

    .. math:: \mathbb E_q[-\log p(x \mid z)] = -\log \mathcal N(x;\ b + \bar z W,\ σ^2)
        + \frac1{2σ^2} \sum_k \mathrm{Var}_q[z_k]\, \lVert w_k \rVert^2

    for any posterior of independent latents with mean :math:`\bar z`. It is the expectation of what
    :class:`vsae.ClosedFormELBO` estimates from a draw; gradients of gates, which have no pathwise
    draws, are exact. With unit atoms the variance pulls none of them anywhere: the gradient in the
    dictionary is that of the reconstruction from the posterior mean.

    Raises:
        ConfigError: ``elbo.expected`` unless the model is a :class:`vsae.SparseAutoencoder` whose
            link is the identity, its codes are independent in the posterior, and other latents,
            such as a noise, are points.

    Example:
        >>> from vsae.examples import tiny
        >>> model, guide, x = tiny()
        >>> elbo = ExpectedELBO()
        >>> elbo.loss(model, guide, x) == elbo.loss(model, guide, x)
        True

    Source:
        Bishop (2006), *Pattern Recognition and Machine Learning*, §10.3.
    """

    def _spread(self, site: dict, sources: dict[str, dict]) -> Tensor | float:
        if isinstance(site["fn"], Unit):  # a factor: a belief about weights
            return 0.0
        decoder = site["infer"].get("linear")
        if decoder is None:
            raise ConfigError(
                "the likelihood has a closed-form expectation where codes enter linearly: site "
                f"{site['name']!r} does not say so, expected a SparseAutoencoder without a link. "
                "Use ClosedFormELBO.",
                code="elbo.expected",
            )
        _check_independent(sources)
        lengths = decoder.W_dec.square().sum(-1)
        return 0.5 * (sources["z"]["fn"].variance * lengths).sum(-1) / site["fn"].scale ** 2

    def _check_draw(self, name: str, q: Distribution) -> None:
        """Nothing is drawn."""

    def _recorder(self) -> record_sites:
        return record_means()


def _check_independent(sources: dict) -> None:
    """Only sums of variances are in the formula, and only codes are averaged over."""
    for name, site in sources.items():
        q = site["fn"]
        if not (_is_point(q) or (name == "z" and _is_independent(q))):
            raise ConfigError(
                f"site {name!r} has no closed-form expectation: got {type(q).__name__}, expected "
                "codes z whose latents are independent, and points elsewhere. Use ClosedFormELBO.",
                code="elbo.expected",
                context={"site": name},
            )


def _is_point(q: Distribution) -> bool:
    return isinstance(q.base_dist if isinstance(q, Independent) else q, Delta)


def _is_independent(q: Distribution) -> bool:
    if isinstance(q, SpikeSlab):
        return isinstance(q.gates, Independent)
    return isinstance(q, Independent) and not q.base_dist.event_shape
