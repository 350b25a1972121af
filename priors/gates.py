"""Structured gates: which latents fire, when one firing says something about another."""

from functools import singledispatch

import torch
from jaxtyping import Float
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, constraints, register_kl

from priors.errors import ConfigError


class AbstractGates(TorchDistribution):
    r"""A law of gates :math:`g \in \{0, 1\}^K` whose log-density is a polynomial, affine in each.

    Of independent gates with probabilities :math:`γ` the expected log-density is then the same
    polynomial at :math:`γ`, so that KL and mean-field updates are closed form:

    .. math:: \mathbb E_q \log p(g) = \log p(γ), \qquad
        \mathrm{KL}(q \| p) = -H(γ) - \log p(γ), \qquad
        f_k(γ) = \frac{\partial \log p(γ)}{\partial γ_k}

    The coordinate update of one gate is :math:`\operatorname{logit} γ_k = f_k(γ)` plus what the
    likelihood says. *A subclass defines* ``multilinear``, ``field``, ``mean``, ``sample`` and
    ``expand``.
    """

    arg_constraints = {}
    support = constraints.independent(constraints.boolean, 1)

    def multilinear(self, gates: Float[Tensor, "*rows K"]) -> Float[Tensor, "*out"]:
        """The polynomial that is the log-density where its argument is zeros and ones."""
        raise NotImplementedError(f"{type(self).__name__} defines no multilinear()")

    def field(self, gates: Float[Tensor, "*rows K"]) -> Float[Tensor, "*rows K"]:
        """Its derivative by each entry: the prior log-odds of a gate, given the others."""
        raise NotImplementedError(f"{type(self).__name__} defines no field()")

    def log_prob(self, value: Float[Tensor, "*rows K"]) -> Float[Tensor, "*out"]:
        if self._validate_args:
            self._validate_sample(value)
        found = self.multilinear(value)
        return found.expand(torch.broadcast_shapes(found.shape, self.batch_shape))


@singledispatch
def gate_field(prior: Distribution, gates: Float[Tensor, "*rows K"]) -> Float[Tensor, "*out"]:
    """The prior log-odds of each gate, given the probabilities of the others.

    Raises:
        ConfigError: ``gates.family`` for a prior that is neither independent nor
            :class:`AbstractGates`.
    """
    raise ConfigError(
        f"gates of {type(prior).__name__} have no field: expected independent Bernoullis, or a "
        "subclass of AbstractGates.",
        code="gates.family",
        context={"class": type(prior).__name__},
    )


@gate_field.register
def _(prior: AbstractGates, gates: Tensor) -> Tensor:
    return prior.field(gates)


@gate_field.register
def _(prior: Independent, gates: Tensor) -> Tensor:
    base = prior.base_dist
    if not isinstance(base, Bernoulli):
        return gate_field.dispatch(Distribution)(base, gates)
    return base.logits


@register_kl(Independent, AbstractGates)
def _kl_gates(q: Independent, p: AbstractGates) -> Tensor:
    if not isinstance(q.base_dist, Bernoulli):
        raise NotImplementedError
    return -q.entropy() - p.multilinear(q.mean)


def refuse_replicas(first: nn.Module, modules: tuple, done: dict) -> nn.Module:
    """How ``priors.replicas`` stacks structured gates: not at all, each having its own graph."""
    raise ConfigError(
        f"structured gates cannot be stacked: got {len(modules)} of {type(first).__name__}. "
        "Train the models one after another, or with BernoulliPrior.",
        code="replicas.gates",
    )
