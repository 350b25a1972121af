"""One level below another: for every latent above, a small dictionary in a subspace of its own."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from priors.tree import Tree
from vsae.decoders import LinearDecoder
from vsae.errors import ShapeError
from vsae.slots import bag


def check_subspace(subspace: int, outer: int) -> int:
    """``subspace`` itself, if it fits into ``outer`` dimensions.

    Raises:
        ShapeError: ``hierarchy.subspace`` if it is greater, or less than 1.
    """
    if not 0 < subspace <= outer:
        raise ShapeError(
            f"a subspace has at least one dimension, and at most those around it: got s={subspace} "
            f"in {outer}.",
            code="hierarchy.subspace",
            context={"subspace": subspace, "outer": outer},
        )
    return subspace


class ChildDictionary(nn.Module):
    r"""``Π_jᵘᵖ``, ``s → outer``, and ``a`` unit atoms in ``s`` dimensions, for each of ``parents``.

    Args:
        parents: Latents of the level above.
        branching: Children of each, :math:`a`.
        outer: Dimensions the level above lives in: ``d`` below the first level.
        subspace: :math:`s`, at most ``outer``.

    Shapes:
        ``W_up (parents · s, outer)``, row ``j · s + i`` being the ``i``-th direction of parent
        ``j``; ``atoms.W_dec (parents · a, s)``.

    Raises:
        ShapeError: ``hierarchy.subspace`` if ``s > outer``.
    """

    def __init__(self, parents: int, branching: int, *, outer: int, subspace: int) -> None:
        super().__init__()
        self.parents, self.branching, self.outer = parents, branching, outer
        self.subspace = check_subspace(subspace, outer)
        self.W_up = nn.Parameter(F.normalize(torch.randn(parents * subspace, outer), dim=-1))
        self.atoms = LinearDecoder(parents * branching, subspace, bias=False)

    def inside(
        self, child: Int[Tensor, "B n"], amplitudes: Float[Tensor, "B n"]
    ) -> Float[Tensor, "B n s"]:
        """Amplitude times atom, in the parent's own coordinates."""
        return amplitudes.unsqueeze(-1) * take(self.atoms.W_dec, child)

    def raised(
        self, parent: Int[Tensor, "B n"], inside: Float[Tensor, "B n s"]
    ) -> Float[Tensor, "B n outer"]:
        """The same vectors in the coordinates around; of a level whose ``outer`` is small."""
        table = self.W_up.view(self.parents, -1)
        maps = take(table, parent).unflatten(-1, (self.subspace, self.outer))
        return (inside.unsqueeze(-2) @ maps).squeeze(-2)

    def summed(
        self, parent: Int[Tensor, "B n"], inside: Float[Tensor, "B n s"]
    ) -> Float[Tensor, "B outer"]:
        """The sum of the raised vectors of a row, as one sparse product: never ``(B, n, s, d)``."""
        return bag(spread(parent, self.subspace), inside.flatten(-2), self.W_up)


def take(table: Float[Tensor, "n c"], index: Int[Tensor, "B j"]) -> Float[Tensor, "B j c"]:
    """The rows of a table of few columns; a much cheaper backward than that of an embedding."""
    return table.index_select(0, index.reshape(-1)).view(*index.shape, table.shape[1])


def spread(index: Int[Tensor, "B n"], each: int) -> Int[Tensor, "B rows"]:
    """Rows ``i·each … i·each + each - 1`` of every ``i``."""
    return (index.unsqueeze(-1) * each + torch.arange(each, device=index.device)).flatten(-2)


def directions(
    maps: Float[Tensor, "rows outer"], parents: int, above: Float[Tensor, "p s d"] | None
) -> Float[Tensor, "parents each d"]:
    """Every parent's subspace in activation space, given those of the level above, if any."""
    own = maps.view(parents, -1, maps.shape[-1])
    if above is None:
        return own
    return own @ above.repeat_interleave(parents // len(above), dim=0)


def of_tree(
    tree: Tree,
    latents: Int[Tensor, " n"],
    roots: Float[Tensor, "m d"],
    tables: Sequence[Float[Tensor, "_ _"]],
    maps: Sequence[Float[Tensor, "_ _"]],
) -> Float[Tensor, "n d"]:
    """Rows of some latents in activation space.

    Args:
        tree: Of the latents.
        latents: Which.
        roots: Rows of the roots.
        tables: Rows inside the parents' subspaces, per level below the first.
        maps: The directions of those subspaces, likewise.
    """
    found = roots.new_zeros(len(latents), roots.shape[1])
    for level, (offset, size) in enumerate(zip(tree.offsets, tree.sizes, strict=True)):
        where = ((latents >= offset) & (latents < offset + size)).nonzero().squeeze(-1)
        place = latents.index_select(0, where) - offset
        rows = roots if level == 0 else tables[level - 1]
        vectors = rows.index_select(0, place)
        for above in range(level - 1, -1, -1):
            place = place.div(tree.branching[above], rounding_mode="floor")
            own = maps[above].view(tree.sizes[above], vectors.shape[1], -1)
            vectors = (vectors.unsqueeze(1) @ own.index_select(0, place)).squeeze(1)
        found = found.index_add(0, where, vectors)
    return found


def effective(
    rows: Float[Tensor, "n s"], subspaces: Float[Tensor, "parents s d"]
) -> Float[Tensor, "n d"]:
    """Rows in subspaces as rows in activation space, for all latents of a level."""
    return (rows.view(len(subspaces), -1, rows.shape[-1]) @ subspaces).flatten(0, 1)
