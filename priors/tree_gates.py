"""Gates on a forest: a child fires only where its parent does, and siblings may exclude."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Size, Tensor, nn

from priors._prior import check_dim, register
from priors.errors import ConfigError
from priors.gates import AbstractGates, refuse_replicas
from priors.replicas import stack_like


class TreeGates(AbstractGates):
    r"""A child's gate given its parent's, exactly normalised for siblings that do not exclude.

    .. math:: \log p(g) = \sum_{\text{roots}} \log \mathrm{Bern}(g_r; π_r)
        + \sum_{k} \log \mathrm{Bern}\big(g_k;\ g_{p} ρ_k + (1 - g_{p})\, ε ρ_k\big)
        - κ \sum_{\text{siblings } i < j} g_i g_j

    With the parent off a child fires with the leak :math:`ε ρ_k`, not never: under independent
    gates an impossible state would make every KL infinite. The repulsion κ of siblings is
    approximate exclusion; with :math:`κ > 0` the normaliser is not 1, and left out.

    Args:
        parents: The parent of each latent ``(K,)``, -1 for a root; in any order.
        logits: Of a root its rate :math:`π_r`; of a child :math:`ρ_k`, given that its parent fires.
        leak: :math:`ε` in (0, 1].
        exclusion: :math:`κ \ge 0`, nats.

    Example:
        >>> gates = TreeGatesPrior([-1, 0], rate=0.5, leak=0.01)()
        >>> gates.field(torch.tensor([0.0, 0.0]))[1] < gates.field(torch.tensor([1.0, 0.0]))[1]
        tensor(True)

    Source:
        Conditional activation of dictionary elements as in Jenatton et al. (2011), *Proximal
        methods for hierarchical sparse coding*, JMLR 12:2297, as a directed model.
    """

    def __init__(
        self,
        parents: Int[Tensor, " K"],
        logits: Float[Tensor, " K"],
        leak: float,
        exclusion: float,
        batch_shape: Size = Size(),
        validate_args: bool | None = None,
    ) -> None:
        self.parents, self.logits = parents, logits
        self.leak, self.exclusion = leak, exclusion
        super().__init__(batch_shape, logits.shape, validate_args=validate_args)

    def expand(self, batch_shape, _instance=None) -> "TreeGates":
        return TreeGates(
            *(self.parents, self.logits, self.leak, self.exclusion),
            Size(batch_shape),
            self._validate_args,
        )

    def _parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Log-odds and ``log P(off)`` of each latent, its parent on, then off; of a root alike."""
        on = self.logits
        softplus = nn.functional.softplus
        # The log-odds of ε σ(on), which would round to 1 for likely children.
        beyond = math.log1p(-self.leak) if self.leak < 1 else -math.inf
        leaking = on + math.log(self.leak) - softplus(on + beyond)
        leaking = torch.where(self.parents < 0, on, leaking)
        return on, -softplus(on), leaking, -softplus(leaking)

    def _of_parent(self, gates: Tensor) -> Tensor:
        """The gate of each latent's parent; 1 for a root."""
        found = gates.index_select(-1, self.parents.clamp(min=0))
        return torch.where(self.parents < 0, 1.0, found)

    def _per_parent(self, values: Float[Tensor, "*rows K"]) -> Float[Tensor, "*rows K"]:
        """The sum over each latent's children."""
        of_children = torch.where(self.parents < 0, 0.0, values)
        return torch.zeros_like(values).index_add(-1, self.parents.clamp(min=0), of_children)

    def _siblings(self, gates: Float[Tensor, "*rows K"]) -> Float[Tensor, "*rows K"]:
        """The sum of the gates of each latent's siblings; of a root 0."""
        family = self._per_parent(gates).index_select(-1, self.parents.clamp(min=0))
        return torch.where(self.parents < 0, 0.0, family - gates)

    def multilinear(self, gates: Float[Tensor, "*rows K"]) -> Float[Tensor, "*out"]:
        on, none_on, leaking, none_off = self._parts()
        above = self._of_parent(gates)
        given = above * (gates * on + none_on) + (1 - above) * (gates * leaking + none_off)
        return (given - 0.5 * self.exclusion * gates * self._siblings(gates)).sum(-1)

    def field(self, gates: Float[Tensor, "*rows K"]) -> Float[Tensor, "*rows K"]:
        on, none_on, leaking, none_off = self._parts()
        above = self._of_parent(gates)
        own = above * on + (1 - above) * leaking - self.exclusion * self._siblings(gates)
        return own + self._per_parent(gates * (on - leaking) + none_on - none_off)

    @property
    def mean(self) -> Float[Tensor, "*batch K"]:
        """The marginal rates where siblings do not exclude each other."""
        rate = self.logits.sigmoid()
        for _ in range(len(rate)):  # a level of the forest at a time, from the roots
            above = self._of_parent(rate)
            new = self.logits.sigmoid() * torch.where(
                self.parents < 0, 1.0, above + (1 - above) * self.leak
            )
            if torch.equal(new, rate):
                break
            rate = new
        return rate.expand(self._extended_shape())

    @torch.no_grad()
    def sample(self, sample_shape=Size()) -> Tensor:
        """Parents first; exact without exclusion, with it an elder sibling lowers the odds."""
        shape, parents = self._extended_shape(sample_shape), self.parents.tolist()
        on, _, leaking, _ = self._parts()
        gates = self.logits.new_zeros(shape)
        elders = torch.zeros_like(gates)  # of each latent, how many of its children fire so far
        for k in _parents_first(self.parents):
            odds = on[k].expand(shape[:-1])
            if (parent := parents[k]) >= 0:
                odds = torch.where(gates[..., parent] > 0, on[k], leaking[k])
                odds = odds - self.exclusion * elders[..., parent]
            gates[..., k] = torch.bernoulli(odds.sigmoid())
            if parent >= 0:
                elders[..., parent] += gates[..., k]
        return gates


def _parents_first(parents: Int[Tensor, " K"]) -> list[int]:
    order, level = [], (parents < 0).nonzero().squeeze(-1)
    while len(level):
        order += level.tolist()
        level = torch.isin(parents, level).nonzero().squeeze(-1)
    return order


class TreeGatesPrior(nn.Module):
    r"""Gates on a forest over the latents: parents gate children.

    Args:
        parents: The parent of each latent ``(K,)``, integers, -1 for a root; known, or from a
            first run, e.g. by :func:`vsae.metrics.infer_parents`.
        rate: Of a root, and of a child given its parent, to begin with.
        leak: :math:`ε`: how much of its rate a child keeps where its parent is off.
        exclusion: :math:`κ`, nats by which two siblings that both fire are less likely.
        learnable: Whether the logits are trained by gradients.

    Raises:
        ConfigError: ``prior.bad_dim`` for no latents; ``prior.bad_rate``; ``gates.tree`` for a
            parent that is no latent, or above itself; ``gates.setting`` unless ``0 < leak <= 1``
            and ``exclusion >= 0``.

    Example:
        >>> TreeGatesPrior([-1, 0, 0], rate=0.1).dim
        3

    Source:
        Jenatton et al. (2011), JMLR 12:2297.
    """

    logits: Tensor
    parents: Tensor

    def __init__(
        self,
        parents: Sequence[int] | Tensor,
        *,
        rate: float = 0.01,
        leak: float = 0.01,
        exclusion: float = 0.0,
        learnable: bool = False,
    ) -> None:
        super().__init__()
        found = torch.as_tensor(parents).clone()
        self.dim, self.learnable = check_dim(found.numel()), learnable
        if not 0 < rate < 1:
            raise ConfigError(
                f"a rate is a probability of being active: got {rate!r}, expected 0 < rate < 1.",
                code="prior.bad_rate",
                context={"rate": rate},
            )
        if not 0 < leak <= 1 or not 0 <= exclusion < float("inf"):
            raise ConfigError(
                f"a leak is in (0, 1] and an exclusion at least 0: got {leak=}, {exclusion=}.",
                code="gates.setting",
            )
        whole = found.dim() == 1 and found.dtype in (torch.int32, torch.int64)
        if not whole or bool(((found < -1) | (found >= len(found))).any()):
            raise ConfigError(
                f"parents are latents, or -1 for a root: got {found.tolist()}.", code="gates.tree"
            )
        if len(_parents_first(found)) != len(found):
            raise ConfigError("latents are above themselves: expected a forest.", code="gates.tree")
        self.leak, self.exclusion = float(leak), float(exclusion)
        self.register_buffer("parents", found.long())
        logits = torch.full((self.dim,), float(torch.tensor(rate, dtype=torch.float64).logit()))
        register(self, "logits", logits, learnable=learnable)

    @torch.no_grad()
    def match(self, rate: Tensor) -> None:
        """Set the rates from marginal ones ``(K,)``, so that :attr:`TreeGates.mean` is these.

        A child that fires more often than its parent lets it is given the odds .99.
        """
        above = torch.where(self.parents < 0, 1.0, rate[self.parents.clamp(min=0)])
        given = rate / (above + (1 - above) * self.leak)
        self.logits.copy_(given.clamp(max=0.99).logit())

    @property
    def rate(self) -> float:
        """The mean probability of firing, of children given their parent."""
        return float(self.logits.detach().double().sigmoid().mean())

    def forward(self) -> TreeGates:
        return TreeGates(self.parents, self.logits, self.leak, self.exclusion)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, leak={self.leak}, exclusion={self.exclusion}"


stack_like.register(TreeGatesPrior, refuse_replicas)
