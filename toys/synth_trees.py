"""Balanced trees over the first features, and what they do to gates drawn without them."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from priors.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SynthTrees:
    r"""Features whose codes are silenced unless their parent's is not, all but one of siblings.

    Every feature has a gate :math:`b_i`, open with probability :math:`q_i`, whatever its parent
    does. From the roots down, a child keeps its code if the parent has kept its own; if
    ``exclusive``, of the siblings left a uniformly chosen one keeps it. If ``scaled``, a child's
    code is multiplied by its parent's over that parent's mean. If ``compensated``,

    .. math:: q_i = \frac{p_i}{p_{π(i)}} \Bigl(1 + \sum_{j ≠ i} \frac{p_j}{p_{π(i)}}\Bigr),

    the sum over siblings and only if ``exclusive``, so that feature ``i`` fires *about* as often
    as is asked, :math:`p_i`; :meth:`rates` is how often exactly.

    Nodes are numbered level by level, siblings in a row: node ``i`` has the parent
    :math:`⌊(i - \text{roots}) / \text{branching}⌋`. Features after the last node are untied.

    Args:
        roots: Number of trees.
        branching: Children of each node but the leaves.
        depth: Levels below the roots.
        exclusive: Whether siblings exclude each other; roots never do.
        compensated: Whether gates are opened more often, for what the trees silence.
        scaled: Whether children are scaled by their parents.

    Raises:
        ConfigError: ``toy.tree`` for trees without a root or a level, or of fewer than 2 children.

    Example:
        >>> trees = SynthTrees(roots=1, branching=2, depth=1)
        >>> trees.parents(4).tolist(), trees.gates(torch.tensor([0.5, 0.1, 0.1, 0.3])).tolist()
        ([-1, 0, 0, -1], [0.5, 0.24..., 0.24..., 0.3...])

    Source:
        SynthSAEBench, 2602.14687.
    """

    roots: int
    branching: int
    depth: int
    exclusive: bool = True
    compensated: bool = True
    scaled: bool = True

    def __post_init__(self) -> None:
        if self.roots < 1 or self.branching < 2 or self.depth < 1:
            raise ConfigError(
                f"no trees: got {self.roots} roots of {self.branching} children and "
                f"{self.depth} levels below, expected >= 1, >= 2 and >= 1.",
                code="toy.tree",
            )

    @property
    def levels(self) -> tuple[slice, ...]:
        """The features of each level, roots first."""
        found = [slice(0, self.roots)]
        for level in range(1, self.depth + 1):
            start = found[-1].stop
            found.append(slice(start, start + self.roots * self.branching**level))
        return tuple(found)

    @property
    def size(self) -> int:
        """Number of nodes."""
        return self.levels[-1].stop

    def parents(self, features: int) -> Int[Tensor, " F"]:
        """The parent of each feature, -1 for roots and untied features."""
        node = torch.arange(features)
        parent = (node - self.roots).div(self.branching, rounding_mode="floor")
        return parent.where((node >= self.roots) & (node < self.size), -1)

    def siblings(self) -> Int[Tensor, "families branching"]:
        """The children of each node that has any, in the order of the nodes."""
        return torch.arange(self.roots, self.size).unflatten(0, (-1, self.branching))

    def gates(self, rates: Float[Tensor, " F"]) -> Float[Tensor, " F"]:
        """The probabilities ``q`` of the gates for the rates ``p`` that are asked.

        Raises:
            ConfigError: ``toy.rate`` if one would be more than 1.
        """
        gates = rates.clone()
        if self.compensated:
            share = rates[self.siblings()] / rates[: len(self.siblings()), None]
            others = share.sum(1, keepdim=True) - share
            opened = share * (1 + others) if self.exclusive else share
            gates[self.roots : self.size] = opened.flatten()
        if bool((gates > 1).any()):
            raise ConfigError(
                f"a child would need a gate open with probability {gates.max().item()} to fire as "
                "often as asked: expected at most 1. Make children rarer than their parents.",
                code="toy.rate",
            )
        return gates

    def rates(self, active: Float[Tensor, "*rows F"]) -> Float[Tensor, "*rows F"]:
        r"""How often features fire whose gates are independent, given how often these are open.

        Among exclusive siblings with gates :math:`a_j`, given their parent,

        .. math:: P(i \text{ is left}) = a_i\, \mathbb E\Bigl[\frac{1}{1 + N_{-i}}\Bigr]
            = a_i \int_0^1 \prod_{j ≠ i} (1 - a_j + a_j t)\, dt,

        a polynomial, integrated exactly by quadrature.
        """
        rates = active.clone()
        for above, level in zip(self.levels, self.levels[1:], strict=False):
            left = active[..., level].unflatten(-1, (-1, self.branching))
            left = _left(left) if self.exclusive else left
            rates[..., level] = (left * rates[..., above, None]).flatten(-2)
        return rates

    def silence(
        self,
        codes: Float[Tensor, "rows F"],
        mean: Float[Tensor, " F"],
        generator: Generator,
    ) -> None:
        """Applies the trees to codes drawn without them, in place.

        Args:
            codes: ``(rows, F)``, non-negative.
            mean: ``(F,)`` by which a parent's code is divided where it scales its children.
            generator: Chooses among siblings.
        """
        for above, level in zip(self.levels, self.levels[1:], strict=False):
            parents = codes[:, above]
            factor = parents / mean[above] if self.scaled else (parents > 0).to(codes.dtype)
            children = codes[:, level].unflatten(1, (-1, self.branching))
            children *= factor[..., None]
            if self.exclusive:
                _leave_one(children, generator)


def _left(active: Tensor) -> Tensor:
    """Of siblings ``(…, B)``, how often each is the one that is left; see :meth:`rates`."""
    nodes, weights = np.polynomial.legendre.leggauss(active.shape[-1] // 2 + 1)
    total = torch.zeros_like(active)
    for t, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        silent = 1 - active * (1 - float(t))  # never 0: the nodes lie inside (0, 1)
        total += float(weight) * silent.prod(-1, keepdim=True) / silent
    return active * total


def _leave_one(children: Tensor, generator: Generator) -> None:
    """Silences all but one, chosen uniformly, of the siblings ``(rows, families, B)`` that fire."""
    rows, families = ((children > 0).sum(-1) > 1).nonzero(as_tuple=True)
    rivals = children[rows, families]
    lot = torch.rand(rivals.shape, generator=generator, dtype=rivals.dtype, device=rivals.device)
    chosen = lot.masked_fill_(rivals <= 0, -1.0).argmax(1, keepdim=True)
    kept = rivals.gather(1, chosen)
    children[rows, families] = torch.zeros_like(rivals).scatter_(1, chosen, kept)
