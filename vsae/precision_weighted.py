"""The guide of a chain of levels: what the row says, merged on the way down with the prior."""

from functools import singledispatch

import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.poutine.guide import GuideMessenger
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from priors.replicas import stack_like
from vsae.errors import ConfigError
from vsae.recording import latent, record_means
from vsae.unstackable import refuse_replicas


class PrecisionWeightedGuide(GuideMessenger, nn.Module):
    r"""Top-down inference: at each level the product of two Gaussians, evidence and prior.

    .. math:: q(z_\ell \mid z_{>\ell}, x) = \mathcal N(μ, s^2), \qquad
        s^{-2} = \hat s_\ell(x)^{-2} + s_p^{-2}, \qquad
        μ = s^2 \big(\hat μ_\ell(x)\, \hat s_\ell(x)^{-2} + μ_p\, s_p^{-2}\big)

    with :math:`\mathcal N(μ_p, s_p^2)` the model's own :math:`p(z_\ell \mid z_{\ell+1})` at the
    draw of the level above. The first site of the model has none above: there q is the evidence
    alone, so its prior may be any with a KL. Because priors are conditioned on the guide's draws,
    :class:`vsae.ClosedFormELBO` is unbiased, which it is not for levels drawn bottom-up.

    It runs the model it is a guide of, and so samples what the model does; the model is not a part
    of it. :meth:`posterior` is the same pass at the means, without a draw: means of the levels
    below are then those *given* the means above.

    Args:
        model: e.g. :class:`vsae.GaussianLadderAutoencoder`.
        evidence: ``x -> {site: Normal}`` for every latent site,
            e.g. :class:`vsae.GaussianLadderPosterior`.

    Raises:
        ConfigError: when run, ``ladder.evidence`` if a site has none, ``ladder.merge`` for a level
            whose prior or evidence is not a diagonal Gaussian.

    Example:
        >>> from vsae import ClosedFormELBO, variational_ladder_autoencoder
        >>> pair = variational_ladder_autoencoder(4, (8, 3), noise=0.3)
        >>> sorted(ClosedFormELBO().terms(pair.model, pair.guide, torch.zeros(5, 4)))
        ['x', 'z_1', 'z_2']

    Source:
        Sønderby et al. (2016), *Ladder Variational Autoencoders*, eq. 10-12.
    """

    def __init__(self, model: nn.Module, evidence: nn.Module) -> None:
        nn.Module.__init__(self)
        GuideMessenger.__init__(self, model)
        self.evidence = evidence
        self._given: dict[str, Distribution] = {}

    def __call__(self, x: Float[Tensor, "rows d"]) -> dict[str, Tensor]:
        self._given = self.evidence(x)
        try:
            return super().__call__(x)
        finally:
            self._given = {}

    def following(self, model: nn.Module) -> "PrecisionWeightedGuide":
        """The same evidence, its parameters shared, merged with the priors of another model."""
        return PrecisionWeightedGuide(model, self.evidence)

    def get_posterior(self, name: str, prior: Distribution) -> Distribution:
        if name not in self._given:
            raise ConfigError(
                f"no evidence of site {name!r}: got {sorted(self._given)}, expected every latent "
                "site of the model.",
                code="ladder.evidence",
                context={"site": name},
            )
        first = not any("prior" in node.get("infer", {}) for node in self.trace.nodes.values())
        return self._given[name] if first else merge(prior, self._given[name])

    def posterior(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        """``{site: q}`` of the pass at the means, the coarsest level first."""
        with record_means() as seen:
            self(x.reshape(-1, x.shape[-1]))
        found = latent(seen.sampled)
        return {name: _of_shape(site["fn"], x.shape[:-1]) for name, site in found.items()}

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != "trace"}


@singledispatch
def merge(prior: Distribution, evidence: Distribution) -> Distribution:
    """The normalised product of a level's prior and its evidence.

    Register another family with ``merge.register``.

    Raises:
        ConfigError: ``ladder.merge`` for a prior without a rule.
    """
    raise ConfigError(
        f"no rule merges a {type(prior).__name__} with a {type(evidence).__name__}: expected "
        "diagonal Gaussians below the coarsest level.",
        code="ladder.merge",
    )


@merge.register
def _(prior: Independent, evidence: Distribution) -> Distribution:
    bases = prior.base_dist, getattr(evidence, "base_dist", evidence)
    if not all(isinstance(base, Normal) for base in bases):
        return merge.dispatch(Distribution)(prior, evidence)
    (p, q), precisions = bases, [base.scale.square().reciprocal() for base in bases]
    variance = (precisions[0] + precisions[1]).reciprocal()
    loc = variance * (p.loc * precisions[0] + q.loc * precisions[1])
    return dist.Normal(loc, variance.sqrt()).to_event(prior.reinterpreted_batch_ndims)


def _of_shape(q: Distribution, batch_shape: torch.Size) -> Distribution:
    shape = (*batch_shape, *q.event_shape)
    return dist.Normal(q.mean.reshape(shape), q.stddev.reshape(shape)).to_event(1)


stack_like.register(PrecisionWeightedGuide, refuse_replicas)
