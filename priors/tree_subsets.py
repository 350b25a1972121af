"""What may be believed about which latents of a tree are active: roots, and one child of each."""

import math

import torch
from jaxtyping import Float, Int
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints

from priors.subsets import UniformSubsets
from priors.tree import Tree


class _Paths(constraints.Constraint):
    """``k`` distinct roots, and level by level one child of what stands ``k`` places before."""

    is_discrete, event_dim = True, 1

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        levels = value.unflatten(-1, (self.tree.depth, -1)).unbind(-2)
        ordered = levels[0].sort(-1).values
        valid = (ordered[..., 0] >= 0) & (ordered[..., -1] < self.tree.roots)
        valid &= (ordered.diff(dim=-1) > 0).all(-1)
        offsets = self.tree.offsets
        for level, each in enumerate(self.tree.branching, 1):
            above, here = levels[level - 1] - offsets[level - 1], levels[level] - offsets[level]
            valid &= (here.div(each, rounding_mode="floor") == above).all(-1)
        return valid


class TreeSubsets(TorchDistribution):
    r"""``k`` roots of a tree, all subsets alike, then one child of each, one of that one's, ….

    .. math:: p(S) = \binom{m}{k}^{-1} \Big(\prod_ℓ a_ℓ\Big)^{-k}

    A value is an integer tensor ``(*batch, k · depth)``: ``k`` roots, then their children in the
    same order, level by level, numbered as in :class:`priors.Tree`. Under a ``Delta`` guide its KL
    is a constant. Without children this is :class:`priors.UniformSubsets`.

    Args:
        tree: The latents.
        k: Roots per row.
        batch_shape: Of the distribution; Pyro's plates expand it.
        device: Of its draws; torch's default if ``None``.

    Raises:
        ConfigError: ``subsets.size`` unless ``1 <= k <= tree.roots``.

    Example:
        >>> TreeSubsets(Tree(2, (3,)), 1).log_prob(torch.tensor([1, 6])).exp().item()  # 1 / 2·3
        0.16666...

    Source:
        Muchane, Richardson, Park & Veitch (2025), 2506.01197, §3.1, the routing as a density.
    """

    arg_constraints = {}
    has_rsample = False

    def __init__(
        self,
        tree: Tree,
        k: int,
        batch_shape: Size | tuple[int, ...] = Size(),
        device: torch.device | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.tree, self.k, self.device = tree, k, device
        self.roots = UniformSubsets(tree.roots, k, batch_shape, device, validate_args=False)
        event = Size((k * tree.depth,))
        super().__init__(Size(batch_shape), event, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> constraints.Constraint:
        return _Paths(self.tree)

    def expand(self, batch_shape, _instance=None) -> "TreeSubsets":
        return TreeSubsets(
            self.tree, self.k, Size(batch_shape), self.device, validate_args=self._validate_args
        )

    def sample(self, sample_shape=Size()) -> Int[Tensor, "*rows w"]:
        place, offsets = self.roots.sample(sample_shape), self.tree.offsets
        levels = [place]
        for each, offset in zip(self.tree.branching, offsets[1:], strict=True):
            place = place * each + torch.randint(each, place.shape, device=place.device)
            levels.append(offset + place)
        return torch.cat(levels, -1)

    def log_prob(self, value: Int[Tensor, "*rows w"]) -> Float[Tensor, "*out"]:
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(self.batch_shape, value.shape[:-1])
        return torch.full(shape, -self.log_count(), device=value.device)

    def log_count(self) -> float:
        r""":math:`\log\binom mk + k \sum_ℓ \log a_ℓ`, in nats."""
        return self.roots.log_count() + self.k * sum(map(math.log, self.tree.branching))
