"""Which features a feature needs: a forest of conditional firing probabilities, in closed form."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from priors.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Forest:
    r"""Features that fire only if their parent does; siblings may exclude each other.

    .. math:: f_i = f_{π(i)}\, b_i, \qquad b_i ∼ \mathrm{Bernoulli}(p_i),
        \qquad r_i = P(f_i) = p_i\, r_{π(i)}

    The :math:`b` of different families are independent, and so are those of one family unless its
    parent is ``exclusive``: then at most one of the children fires.

    Args:
        parents: The parent of each node, -1 for a root; parents come before their children.
        probability: :math:`p_i` in (0, 1], given that the parent fires; of a root, its rate.
        exclusive: Of each node, whether its children exclude each other.
        exclusive_roots: Whether the roots do.

    Raises:
        ConfigError: ``toy.empty``, ``toy.size``, ``toy.tree`` for a parent that does not come
            first, ``toy.rate`` for a number that is no probability, ``toy.exclusive`` for
            exclusive siblings whose probabilities sum to more than 1.

    Example:
        >>> forest = Forest.balanced((1, 2), probability=(0.5, 0.25), exclusive=True)
        >>> forest.parents, forest.rate().tolist(), forest.expected_l0
        ((-1, 0, 0), [0.5, 0.125, 0.125], 0.75)

    Source:
        The toys of Chanin et al. (2024, 2025) and of Nabeshima (2024) are of this kind.
    """

    parents: tuple[int, ...]
    probability: tuple[float, ...]
    exclusive: tuple[bool, ...]
    exclusive_roots: bool = False

    def __post_init__(self) -> None:
        sizes = {len(self.parents), len(self.probability), len(self.exclusive)}
        if 0 in sizes:
            raise ConfigError("a forest without a node: expected >= 1.", code="toy.empty")
        if len(sizes) > 1:
            raise ConfigError(
                f"parents, probabilities and exclusiveness of {sorted(sizes)} nodes: expected one "
                "of each per node.",
                code="toy.size",
            )
        for node, parent in enumerate(self.parents):
            if not -1 <= parent < node:
                raise ConfigError(
                    f"node {node} has parent {parent}: expected -1 for a root, or a node before "
                    "it. Renumber the nodes from the roots down.",
                    code="toy.tree",
                    context={"node": node, "parent": parent},
                )
        self._check_probabilities()

    def _check_probabilities(self) -> None:
        if not all(0 < p <= 1 for p in self.probability):
            raise ConfigError(
                f"a probability given the parent is in (0, 1]: got {self.probability}.",
                code="toy.rate",
            )
        for node in range(-1, self.size):
            total = sum(self.probability[child] for child in self.children(node))
            if self.excludes(node) and total > 1 + 1e-12:
                raise ConfigError(
                    f"the exclusive children of node {node} fire with probabilities that sum to "
                    f"{total}: expected at most 1.",
                    code="toy.exclusive",
                    context={"node": node, "total": total},
                )

    @classmethod
    def balanced(
        cls, sizes: Sequence[int], *, probability: Sequence[float], exclusive: bool
    ) -> "Forest":
        """``sizes[0]`` roots, each with ``sizes[1]`` children, each of those with ``sizes[2]`` …

        Nodes are numbered level by level, siblings in a row.

        Args:
            sizes: Children per node, level by level; its length is the depth.
            probability: Of each level, given the parent.
            exclusive: Whether siblings below the roots exclude each other.
        """
        if len(sizes) != len(probability) or not all(n >= 1 for n in sizes):
            raise ConfigError(
                f"levels of {tuple(sizes)} children and {len(probability)} probabilities: "
                "expected numbers >= 1, and one probability per level.",
                code="toy.size",
            )
        parents, level = [-1] * sizes[0], list(range(sizes[0]))
        numbers = [probability[0]] * sizes[0]
        for count, p in zip(sizes[1:], probability[1:], strict=True):
            start = len(parents)
            parents += [parent for parent in level for _ in range(count)]
            level = list(range(start, len(parents)))
            numbers += [p] * len(level)
        return cls(
            parents=tuple(parents),
            probability=tuple(numbers),
            exclusive=(exclusive,) * len(parents),
        )

    @classmethod
    def matryoshka(cls) -> "Forest":
        """The published tree: 3 parents of 3 exclusive children each, and 8 features on their own.

        Its file ships with this package. Nodes there that are not read out are no features: the
        root, which always fires, and the "none of them" beside exclusive children.

        Source:
            Nabeshima (2024), *Matryoshka Sparse Autoencoders*; rates 0.15, 0.2 and 0.05.
        """
        path = files("toys").joinpath("data", "toy", "matryoshka_tree.json")
        root = json.loads(path.read_text(encoding="utf-8"))
        parents, probability, exclusive = [], [], []
        level = [(-1, node) for node in root["children"]]
        while level:
            read = [(parent, node) for parent, node in level if node["is_read_out"]]
            level = []
            for parent, node in read:
                level += [(len(parents), child) for child in node.get("children", [])]
                parents.append(parent)
                probability.append(node["active_prob"])
                exclusive.append(node["mutually_exclusive_children"])
        return cls(
            parents=tuple(parents), probability=tuple(probability), exclusive=tuple(exclusive)
        )

    @property
    def size(self) -> int:
        """Number of features ``F``."""
        return len(self.parents)

    @property
    def levels(self) -> tuple[int, ...]:
        """Of each node, the number of its ancestors."""
        found: list[int] = []
        for parent in self.parents:
            found.append(0 if parent < 0 else found[parent] + 1)
        return tuple(found)

    @property
    def depth(self) -> int:
        """Number of levels."""
        return max(self.levels) + 1

    @property
    def expected_l0(self) -> float:
        """Expected number of features that fire on a row."""
        return self.rate().sum().item()

    def children(self, node: int) -> tuple[int, ...]:
        """The children of a node; of -1, the roots."""
        return tuple(child for child, parent in enumerate(self.parents) if parent == node)

    def excludes(self, node: int) -> bool:
        """Whether the children of a node exclude each other; of -1, whether the roots do."""
        return self.exclusive_roots if node < 0 else self.exclusive[node]

    def ancestors(self) -> Bool[Tensor, "F F"]:
        """Whether node ``j`` is above node ``i``, at ``[i, j]``; not of itself."""
        above = torch.zeros(self.size, self.size, dtype=torch.bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                above[node] = above[parent]
                above[node, parent] = True
        return above

    def rate(self) -> Float[Tensor, " F"]:
        """The probability :math:`r_i` that each feature fires, float64."""
        found: list[float] = []
        for parent, p in zip(self.parents, self.probability, strict=True):
            found.append(p * (1.0 if parent < 0 else found[parent]))
        return torch.tensor(found, dtype=torch.float64)

    def together(self) -> Float[Tensor, "F F"]:
        r"""The probability that two features both fire, float64.

        For a node below or equal to the other it is the rate of the lower. Otherwise their paths
        part at some node ``c``, into different children: 0 if these exclude each other, else
        :math:`r_i r_j / r_c` (:math:`r_c = 1` where the paths have no node in common).
        """
        rate, below = self.rate(), self.ancestors() | torch.eye(self.size, dtype=torch.bool)
        both = torch.diag(rate)
        for node, parent in enumerate(self.parents):
            with_parent = rate[:node] if parent < 0 else both[parent, :node]
            row = self.probability[node] * with_parent
            if self.excludes(parent):  # what lies at or below an elder sibling
                elder = [child for child in self.children(parent) if child < node]
                row = torch.where(below[:node][:, elder].any(1), 0.0, row)
            both[node, :node] = both[:node, node] = row
        return both

    def correlation(self) -> Float[Tensor, "F F"]:
        """The φ correlation of two features' firing; ``nan`` with one that always fires."""
        rate = self.rate()
        deviation = (rate * (1 - rate)).sqrt()
        return (self.together() - rate * rate[:, None]) / (deviation * deviation[:, None])
