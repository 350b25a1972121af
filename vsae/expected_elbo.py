"""The objective with the expectation of the likelihood in closed form, too."""

from torch import Tensor, nn
from torch.distributions import Distribution

from priors.errors import ConfigError
from vsae.elbo import ClosedFormELBO
from vsae.models.sae import SparseAutoencoder
from vsae.recording import record_means, record_sites


class ExpectedELBO(ClosedFormELBO):
    r"""The negative ELBO of a linear-Gaussian model, without a single random number.

    .. math:: \mathbb E_q[-\log p(x \mid z)] = -\log \mathcal N(x;\ b + \bar z W,\ σ^2)
        + \frac1{2σ^2} \sum_k \mathrm{Var}_q[z_k]\, \lVert w_k \rVert^2

    for any factorised posterior with mean :math:`\bar z`. It is the expectation of what
    :class:`vsae.ClosedFormELBO` estimates from a draw; gradients of gates, which have no pathwise
    draws, are exact. With unit atoms the variance pulls none of them anywhere: the gradient in the
    dictionary is that of the reconstruction from the posterior mean.

    Raises:
        ConfigError: ``elbo.expected`` unless the model is a :class:`vsae.SparseAutoencoder` whose
            link is the identity.

    Example:
        >>> from vsae.examples import tiny
        >>> model, guide, x = tiny()
        >>> elbo = ExpectedELBO()
        >>> elbo.loss(model, guide, x) == elbo.loss(model, guide, x)
        True

    Source:
        Bishop (2006), *Pattern Recognition and Machine Learning*, §10.3.
    """

    def _spread(self, model, likelihood: Distribution, sources: dict) -> Tensor:
        if not (isinstance(model, SparseAutoencoder) and isinstance(model.link, nn.Identity)):
            raise ConfigError(
                "the likelihood has a closed-form expectation where codes enter linearly: got "
                f"{type(model).__name__}, expected a SparseAutoencoder without a link. Use "
                "ClosedFormELBO.",
                code="elbo.expected",
            )
        lengths = model.decoder.W_dec.square().sum(-1)
        return 0.5 * (sources["z"]["fn"].variance * lengths).sum(-1) / likelihood.scale**2

    def _check_draw(self, name: str, q: Distribution) -> None:
        """Nothing is drawn."""

    def _recorder(self) -> record_sites:
        return record_means()
