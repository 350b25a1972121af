"""The dictionary of a tree of latents: children act in a subspace that belongs to their parent."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from priors.tree import Tree
from vsae.child_dictionary import ChildDictionary, directions, effective, of_tree
from vsae.decoders import LinearDecoder, decode
from vsae.errors import ConfigError
from vsae.slots import check_range


class HierarchicalDecoder(nn.Module):
    r"""``mean = b + Σ_j z_j d_j + Π_jᵘᵖ (Σ_c z_c e_c + Π_cᵘᵖ (…))``: linear in the codes of a tree.

    .. math:: \hat x = b + \sum_{j \in \text{roots}} z_j d_j + Π_j^{up} r_j, \qquad
        r_j = \sum_{c \in \text{children}(j)} z_c e_c + Π_c^{up} r_c

    A code is one of ``tree.latents`` numbers, of which a child's atom in activation space is
    :math:`Π_j^{up} e_c`; all atoms together are ``W_dec``, made when asked for. A routed code has
    slots level by level (:class:`priors.TreeSubsets`) and is decoded by :meth:`levels` without any
    ``(B, k, s, d)`` or ``(B, K)`` array.

    Args:
        top: The dictionary of the roots, with the bias, if any; the source has none.
        branching: Children of every latent of a level, one number per level below the first.
        subspaces: Dimensions :math:`s` a parent gives its children, as many; none greater than the
            one before.

    Shapes:
        ``top.W_dec (m, d)`` and ``below[l].atoms.W_dec (n, s)`` unit rows; ``below[l].W_up``
        ``(parents · s, outer)``, of any norm.

    Raises:
        ConfigError: ``tree.size`` for a level without latents; ``hierarchy.levels`` unless there is
            a subspace for every level below the first.
        ShapeError: ``hierarchy.subspace`` if one is greater than what is around it.

    Example:
        >>> decoder = HierarchicalDecoder(LinearDecoder(8, 6), branching=(4,), subspaces=(2,))
        >>> decoder.W_dec.shape, decoder(torch.zeros(5, 40)).shape
        (torch.Size([40, 6]), torch.Size([5, 6]))

    Source:
        Muchane, Richardson, Park & Veitch (2025), 2506.01197, eq. 3.1; any depth is ours.
    """

    def __init__(
        self, top: LinearDecoder, *, branching: Sequence[int] = (), subspaces: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.top, self.d_model = top, top.d_model
        self.tree = tree = Tree(top.latents, branching)
        self.branching, self.subspaces = tree.branching, tuple(subspaces)
        if len(self.subspaces) != len(tree.branching):
            raise ConfigError(
                f"every level below the first needs a subspace: got subspaces={self.subspaces} for "
                f"branching={tree.branching}, expected {len(tree.branching)} of them.",
                code="hierarchy.levels",
            )
        around = (top.d_model, *self.subspaces)
        self.below = nn.ModuleList(
            ChildDictionary(parents, each, outer=outer, subspace=inner)
            for parents, each, outer, inner in zip(
                tree.sizes, tree.branching, around, self.subspaces, strict=False
            )
        )

    @property
    def latents(self) -> int:
        """Latents of all levels."""
        return self.tree.latents

    @property
    def b_dec(self) -> Tensor | None:
        """The bias (d,), if any."""
        return self.top.b_dec

    @property
    def W_dec(self) -> Float[Tensor, "K d"]:
        """The atoms of all latents in activation space; unit norm on the first level only."""
        parts, spaces = [self.top.W_dec], None
        for level in self.below:
            spaces = directions(level.W_up, level.parents, spaces)
            parts.append(effective(level.atoms.W_dec, spaces))
        return torch.cat(parts)

    def atoms_of(self, latents: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """The atoms of some latents in activation space, without those of the others."""
        tables, maps = [b.atoms.W_dec for b in self.below], [b.W_up for b in self.below]
        return of_tree(self.tree, latents, self.top.W_dec, tables, maps)

    def forward(
        self, z: Float[Tensor, "*rows K"], support: Int[Tensor, "*rows K"] | None = None
    ) -> Float[Tensor, "*batch d"]:
        """Dense ``z`` (B, K), or amplitudes of the latents ``support`` in any order."""
        if support is None:
            return decode(z, None, self.W_dec, self.b_dec)
        check_range(support, self.latents)
        flat, nodes = z.reshape(-1, z.shape[-1]), support.reshape(-1, z.shape[-1])
        mean = sum(self._alone(level, flat, nodes) for level in range(self.tree.depth))
        mean = mean if self.b_dec is None else mean + self.b_dec
        return mean.view(*z.shape[:-1], self.d_model)

    def _alone(self, level: int, z: Tensor, nodes: Tensor) -> Tensor:
        """What the codes of one level add, wherever in a row they stand."""
        place = nodes - self.tree.offsets[level]
        here = (place >= 0) & (place < self.tree.sizes[level])
        path = [torch.where(here, place, 0)]
        for each in reversed(self.tree.branching[:level]):
            path.append(path[-1].div(each, rounding_mode="floor"))
        amplitudes = [None] * level + [torch.where(here, z, 0.0)]
        return self._decode(path[::-1], amplitudes)

    def levels(
        self, z: Float[Tensor, "*rows w"], support: Int[Tensor, "*rows w"]
    ) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch d"]]:
        """The mean of the roots alone, bias included, and of the whole of a routed code."""
        flat = (code.reshape(-1, z.shape[-1]) for code in torch.broadcast_tensors(z, support))
        top, mean = self._levels(*flat)
        shape = (*torch.broadcast_shapes(z.shape, support.shape)[:-1], self.d_model)
        return top.view(shape), mean.view(shape)

    def _levels(self, z: Tensor, support: Tensor) -> tuple[Tensor, Tensor]:
        depth, offsets = self.tree.depth, self.tree.offsets
        width = z.shape[-1] // depth
        nodes = support.unflatten(-1, (depth, width)).unbind(-2)
        places = [node - offset for node, offset in zip(nodes, offsets, strict=True)]
        amplitudes = list(z.unflatten(-1, (depth, width)).unbind(-2))
        top = self.top(amplitudes[0].contiguous(), places[0].contiguous())
        if depth == 1:
            return top, top
        return top, top + self._decode(places, [None, *amplitudes[1:]])

    def _decode(self, places: list[Tensor], amplitudes: list[Tensor | None]) -> Tensor:
        """The levels that have amplitudes, from the deepest up, without the bias."""
        carried = None
        for level in range(len(places) - 1, 0, -1):
            below, parent, given = self.below[level - 1], places[level - 1], amplitudes[level]
            if given is not None:
                own = below.inside(places[level], given)
                carried = own if carried is None else carried + own
            if level > 1:
                carried = below.raised(parent, carried)
            else:
                return below.summed(parent, carried)
        return decode(amplitudes[0], places[0], self.top.W_dec, None)
