"""A Gaussian whose precision is learned within blocks of latents and zero between them."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from priors._gaussian import AbstractPrecision
from priors._prior import AbstractGaussianPrior, check_positive
from priors._replica_rows import flat_rows, unflat_rows
from priors.errors import ConfigError
from priors.replicas import stack_like

SMALL = 2**16  # numbers: below this, padding every block to the largest costs nothing
WASTE = 4  # above it, padding may not cost more than this many times the factors themselves


@dataclass(frozen=True)
class BlockFactors:
    """``n`` Cholesky factors ``UD`` of blocks of at most ``m`` latents, padded by zero rows."""

    index: Int[Tensor, "R n m"]  # the latents of each block; 0 where padded
    valid: Bool[Tensor, "R n m"]
    unit_lower: Float[Tensor, "R n m m"]
    log_diagonal: Float[Tensor, "R n m"]
    consecutive: bool  # the blocks are all the latents in order, so that no look-up is needed

    def scaled(self) -> Float[Tensor, "R n m m"]:
        return self.unit_lower * self.log_diagonal.exp().unsqueeze(-2)

    def quadratic(self, rows: Float[Tensor, "R N K"]) -> Float[Tensor, "R N"]:
        replicas, blocks, size = self.index.shape
        if self.consecutive:
            split = rows.view(*rows.shape[:2], blocks, size).transpose(1, 2)
            return (split @ self.scaled()).square().sum((1, 3))
        # Latents first, so that looking up (and its gradient) moves whole contiguous rows.
        offset = torch.arange(replicas, device=rows.device).view(-1, 1, 1) * rows.shape[-1]
        table = rows.transpose(1, 2).reshape(rows.shape[0] * rows.shape[2], rows.shape[1])
        split = table.index_select(0, (self.index + offset).flatten())
        factors = self.scaled().mT.flatten(0, 1)
        white = factors @ split.view(replicas * blocks, size, rows.shape[1])
        return white.square().sum(1).view(replicas, blocks, rows.shape[1]).sum(1)

    def unwhiten(self, noise: Float[Tensor, "R N K"]) -> Float[Tensor, "R N nm"]:
        split = noise.gather(-1, self.index.flatten(1).unsqueeze(1).expand(-1, noise.shape[1], -1))
        split = split.unflatten(-1, self.index.shape[1:]).transpose(1, 2)  # (R, n, N, m)
        solved = torch.linalg.solve_triangular(
            self.unit_lower + (~self.valid).to(noise.dtype).diag_embed(),
            split * (-self.log_diagonal).exp().unsqueeze(-2),
            upper=False,
            left=False,
            unitriangular=True,
        )
        return solved.transpose(1, 2).flatten(2)


@dataclass(frozen=True)
class BlockPrecision(AbstractPrecision):
    """Blocks of like size together, so that work is a few batched products and no loop."""

    groups: tuple[BlockFactors, ...]
    place: Int[Tensor, "*batch K"]  # of each latent in the groups' padded blocks, end to end

    @property
    def _replicas(self) -> int | None:
        return self.place.shape[0] if self.place.dim() > 1 else None

    def quadratic(self, z: Float[Tensor, "*rows K"]) -> Float[Tensor, "*out"]:
        rows, shape = flat_rows(z, self._replicas)
        total = self.groups[0].quadratic(rows)
        for group in self.groups[1:]:
            total = total + group.quadratic(rows)
        return unflat_rows(total, shape, self._replicas)

    @property
    def num_latents(self) -> int:
        return self.place.shape[-1]

    def diagonal(self) -> Float[Tensor, "*batch K"]:
        padded = [group.scaled().square().sum(-1).flatten(1) for group in self.groups]
        padded = torch.cat(padded, -1)  # (R, slots)
        padded = padded[0] if self._replicas is None else padded.unsqueeze(1)
        return padded.gather(-1, self.place)

    def logdet(self) -> Float[Tensor, "*batch"]:
        total = sum((group.valid * group.log_diagonal).sum((1, 2)) for group in self.groups)
        return 2 * (total[0] if self._replicas is None else total.unsqueeze(1))

    def unwhiten(self, noise: Float[Tensor, "*rows K"]) -> Float[Tensor, "*rows K"]:
        rows, shape = flat_rows(noise, self._replicas)
        padded = torch.cat([group.unwhiten(rows) for group in self.groups], -1)
        place = self.place.view(len(rows), 1, -1).expand(-1, rows.shape[1], -1)
        return unflat_rows(padded.gather(-1, place), shape, self._replicas)


class BlockGroup(nn.Module):
    """The parameters of blocks of like size; ``latents`` holds the members of each block."""

    def __init__(self, latents: Sequence[Sequence[int]], scale: float, dim: int) -> None:
        super().__init__()
        size = max(map(len, latents))
        index = torch.zeros(len(latents), size, dtype=torch.int64)
        valid = torch.zeros(len(latents), size, dtype=torch.bool)
        for block, members in enumerate(latents):
            index[block, : len(members)] = torch.as_tensor(members)
            valid[block, : len(members)] = True
        self._consecutive = bool(valid.all()) and index.flatten().tolist() == list(range(dim))
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("valid", valid, persistent=False)
        initial = -torch.full(index.shape, scale).log() * valid
        self.log_diagonal = nn.Parameter(initial)
        self.strict_lower = nn.Parameter(torch.zeros(*index.shape, size))

    def forward(self) -> BlockFactors:
        like = {"dtype": self.strict_lower.dtype, "device": self.strict_lower.device}
        identity = torch.eye(self.index.shape[-1], **like)
        unit = (self.strict_lower.tril(-1) + identity) * self.valid.unsqueeze(-1)
        tensors = (self.index, self.valid, unit, self.log_diagonal)
        if self.index.dim() == 2:
            tensors = tuple(tensor.unsqueeze(0) for tensor in tensors)
        else:
            tensors = tuple(tensor.squeeze(1) for tensor in tensors)  # (R, 1, n, m)
        return BlockFactors(*tensors, self._consecutive)


@stack_like.register
def _(first: BlockGroup, modules: tuple[BlockGroup, ...], done: dict) -> nn.Module:
    new = stack_like.dispatch(nn.Module)(first, modules, done)
    new._consecutive = all(module._consecutive for module in modules)
    return new


class BlockDiagonalPrior(AbstractGaussianPrior):
    r"""A Gaussian over codes in independent blocks, each with a full learned precision.

    .. math:: z_b \sim \mathcal N(m_b, (L_b L_b^\top)^{-1}) \text{ for every block } b, \qquad
        L_b = U_b D_b

    With ``U`` unit lower-triangular and ``D`` a positive diagonal, as in ``CholeskyPrior``, at
    :math:`\sum_b K_b^2` parameters instead of :math:`K^2`.

    Args:
        block_sizes: Latents per block, unequal sizes allowed.
        order: The latents, block after block, if the blocks are not consecutive: a permutation of
            ``0 … K-1``. See :meth:`from_labels`.
        scale: Initial standard deviation of each latent, in the units of the codes.
        loc: Mean :math:`m`: a number or ``(K,)`` tensor, fixed, or an ``nn.Parameter``, learned.

    Raises:
        ConfigError: ``prior.block_sizes`` for no blocks or a size below 1, ``prior.block_order``
            if ``order`` is not a permutation of the latents of the blocks; ``prior.bad_scale``,
            ``prior.bad_loc``.

    Example:
        >>> BlockDiagonalPrior([2, 1], scale=0.5)().precision.diagonal().tolist()
        [4.0, 4.0, 4.0]

    Source:
        Rasmussen & Williams (2006), *Gaussian Processes for Machine Learning*, eq. A.23, per block.
    """

    def __init__(
        self,
        block_sizes: Sequence[int],
        *,
        order: Sequence[int] | None = None,
        scale: float = 1.0,
        loc: float | Tensor = 0.0,
    ) -> None:
        sizes = _checked_sizes(block_sizes)
        super().__init__(sum(sizes), loc)
        self.block_sizes, checked = sizes, _checked_order(order, sizes)
        self._order = tuple(map(int, checked))
        members = np.split(checked, np.cumsum(sizes)[:-1])
        chosen = [[members[block].tolist() for block in group] for group in _groups(sizes)]
        scale = check_positive("scale", scale)
        self.groups = nn.ModuleList(BlockGroup(latents, scale, self.dim) for latents in chosen)
        held = torch.cat([group.index[group.valid] for group in self.groups])
        slots = torch.cat([group.valid.flatten() for group in self.groups]).nonzero().squeeze(1)
        self.register_buffer("place", slots[held.argsort()], persistent=False)

    @classmethod
    def from_labels(
        cls, labels: Sequence[Hashable] | Tensor, *, scale: float = 1.0, loc: float | Tensor = 0.0
    ) -> "BlockDiagonalPrior":
        """Latents with the same label form a block, wherever they are; large blocks come first.

        Args:
            labels: One per latent, for example the cluster of each atom.
            scale: Initial standard deviation of each latent.
            loc: As in the class.

        Example:
            >>> BlockDiagonalPrior.from_labels([0, 1, 0, 1, 1]).block_sizes
            (3, 2)
        """
        values = labels.tolist() if isinstance(labels, Tensor) else list(labels)
        members: dict[Hashable, list[int]] = {}
        for latent, label in enumerate(values):
            members.setdefault(label, []).append(latent)
        blocks = sorted(members.values(), key=len, reverse=True)
        order = [latent for block in blocks for latent in block]
        return cls([len(block) for block in blocks], order=order, scale=scale, loc=loc)

    @property
    def order(self) -> tuple[int, ...]:
        """The latents, block after block; of replicas, the first one's."""
        return self._order

    def precision(self) -> BlockPrecision:
        return BlockPrecision(tuple(group() for group in self.groups), self.place)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, blocks={len(self.block_sizes)}"


def _checked_sizes(block_sizes: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(int(size) for size in block_sizes)
    if not sizes or min(sizes) < 1 or any(a != b for a, b in zip(sizes, block_sizes, strict=True)):
        raise ConfigError(
            f"blocks need at least one latent each: got sizes {list(block_sizes)}, expected a "
            "non-empty list of integers >= 1.",
            code="prior.block_sizes",
            context={"block_sizes": list(block_sizes)},
        )
    return sizes


def _checked_order(order: Sequence[int] | None, sizes: tuple[int, ...]) -> np.ndarray:
    dim = sum(sizes)
    given = np.arange(dim) if order is None else np.asarray(order)
    if given.shape != (dim,) or (np.sort(given) != np.arange(dim)).any():
        raise ConfigError(
            f"block sizes {'+'.join(map(str, sizes))}={dim} but order has {given.size} entries, "
            f"{len(np.unique(given))} distinct: expected a permutation of 0..{dim - 1}.",
            code="prior.block_order",
            context={"dim": dim, "given": int(given.size)},
        )
    return given


def _groups(sizes: tuple[int, ...]) -> list[list[int]]:
    """Block numbers to pad to one size: all, or by powers of two where that would waste much."""
    squares = [size * size for size in sizes]
    if len(sizes) * max(squares) <= max(SMALL, WASTE * sum(squares)):
        return [list(range(len(sizes)))]
    powers: dict[int, list[int]] = {}
    for block, size in enumerate(sizes):
        powers.setdefault((size - 1).bit_length(), []).append(block)
    return [powers[power] for power in sorted(powers)]
