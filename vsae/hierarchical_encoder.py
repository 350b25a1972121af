"""The encoder of a tree of latents: the best roots, then level by level each one's best child."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vsae.child_dictionary import (
    ChildDictionary,
    directions,
    effective,
    of_tree,
    spread,
    take,
)
from vsae.encoders import AbstractDictionaryEncoder, DictionaryEncoder
from vsae.errors import ConfigError
from vsae.hierarchical_decoder import HierarchicalDecoder
from vsae.slots import dots

GATHERED = 2**23  # numbers, at most, gathered at once where all children of a parent are scored


def check_hierarchical(encoder: nn.Module) -> "HierarchicalEncoder":
    """``encoder`` itself, if it routes.

    Raises:
        ConfigError: ``hierarchy.encoder`` if it does not.
    """
    if not isinstance(encoder, HierarchicalEncoder):
        raise ConfigError(
            f"routing needs a HierarchicalEncoder: got {type(encoder).__name__}. For flat codes "
            "use TopKPosterior.",
            code="hierarchy.encoder",
        )
    return encoder


class ChildEncoder(nn.Module):
    """``Π_jᵈᵒʷⁿ``, ``outer → s``, and a row per child, for every parent of a level.

    Both start as the transposes of the dictionary's.

    Args:
        dictionary: The level's, of which it has the shapes.

    Shapes:
        ``W_down (parents · s, outer)``, ``W_child (parents · a, s)``.
    """

    def __init__(self, dictionary: ChildDictionary) -> None:
        super().__init__()
        self.parents, self.branching = dictionary.parents, dictionary.branching
        self.subspace, self.outer = dictionary.subspace, dictionary.outer
        self.W_down = nn.Parameter(dictionary.W_up.detach().clone())
        self.W_child = nn.Parameter(dictionary.atoms.W_dec.detach().clone())

    def project(
        self,
        x: Float[Tensor, "B d"],
        parent: Int[Tensor, "B n"],
        centre: Float[Tensor, " d"] | None,
    ) -> Float[Tensor, "B n s"]:
        """``Π_jᵈᵒʷⁿ (x - centre)`` for the parents of each row, without ``(B, n, s, d)``."""
        inside = dots(x, spread(parent, self.subspace), self.W_down)
        inside = inside.unflatten(-1, (-1, self.subspace))
        if centre is None:
            return inside
        # A gradient asked of x - centre would cost a product of its own.
        return inside - take((self.W_down @ centre).view(self.parents, -1), parent)

    def lowered(
        self, inside: Float[Tensor, "B n outer"], parent: Int[Tensor, "B n"]
    ) -> Float[Tensor, "B n s"]:
        """``Π_jᵈᵒʷⁿ`` of vectors inside the subspace around."""
        maps = take(self.W_down.view(self.parents, -1), parent)
        maps = maps.unflatten(-1, (self.subspace, self.outer))
        return (maps @ inside.unsqueeze(-1)).squeeze(-1)

    def scores(
        self, inside: Float[Tensor, "B n s"], parent: Int[Tensor, "B n"]
    ) -> Float[Tensor, "B n a"]:
        """The score of every child of each parent."""
        tables = take(self.W_child.view(self.parents, -1), parent)
        tables = tables.unflatten(-1, (self.branching, self.subspace))
        return (tables @ inside.unsqueeze(-1)).squeeze(-1)

    @torch.no_grad()
    def best(
        self, inside: Float[Tensor, "B n s"], parent: Int[Tensor, "B n"]
    ) -> Int[Tensor, "B n"]:
        """The child of greatest score, counted among all children of the level."""
        rows = max(1, GATHERED // (parent.shape[1] * self.branching * self.subspace))
        parts = zip(inside.split(rows), parent.split(rows), strict=True)
        chosen = torch.cat([self.scores(i, p).argmax(-1) for i, p in parts])
        return parent * self.branching + chosen

    def score(
        self, inside: Float[Tensor, "B n s"], child: Int[Tensor, "B n"]
    ) -> Float[Tensor, "B n"]:
        """The score of the chosen children."""
        return (take(self.W_child, child) * inside).sum(-1)


class HierarchicalEncoder(nn.Module):
    r"""Scores of a tree: ``(x - b_dec) W_encᵀ + b_enc`` for roots, the same inside subspaces below.

    .. math:: u_j = Π_j^{down} (x - b_{dec}), \quad v_c = \langle E_c, u_j \rangle, \quad
        u_c = Π_c^{down} u_j, \quad …

    Children see the activation itself, not what their parent leaves of it.

    Args:
        decoder: The dictionary; it keeps owning its bias.
        top: Encoder of ``decoder.top``: :class:`vsae.DictionaryEncoder`, which is the default, or
            :class:`vsae.ScreenedEncoder` where bfloat16 is fast.

    Shapes:
        ``top.W_enc (m, d)``, ``top.b_enc (m,)``; ``below[l].W_down (parents · s, outer)``,
        ``below[l].W_child (n, s)``.

    Example:
        >>> from vsae import LinearDecoder
        >>> top = LinearDecoder(8, 6)
        >>> encoder = HierarchicalEncoder(HierarchicalDecoder(top, branching=(4,), subspaces=(2,)))
        >>> scores, support = encoder.route(torch.ones(5, 6), 3)
        >>> scores.shape, bool(((support[:, 3:] - 8) // 4 == support[:, :3]).all())
        (torch.Size([5, 6]), True)

    Source:
        Muchane, Richardson, Park & Veitch (2025), 2506.01197, algorithm 1.
    """

    def __init__(
        self,
        decoder: HierarchicalDecoder,
        *,
        top: AbstractDictionaryEncoder | None = None,
    ) -> None:
        super().__init__()
        self.decoder, self.tree = decoder, decoder.tree
        self.d_model, self.outputs = decoder.d_model, decoder.latents
        self.top = DictionaryEncoder(decoder.top) if top is None else top
        self.below = nn.ModuleList(ChildEncoder(level) for level in decoder.below)

    def centre(self) -> Float[Tensor, " d"]:
        """What is subtracted first: the decoder's bias, zeros if it has none."""
        return self.top.centre()

    @property
    def W_enc(self) -> Float[Tensor, "K d"]:
        """The rows of all latents in activation space."""
        parts, spaces = [self.top.W_enc], None
        for level in self.below:
            spaces = directions(level.W_down, level.parents, spaces)
            parts.append(effective(level.W_child, spaces))
        return torch.cat(parts)

    @property
    def b_enc(self) -> Float[Tensor, " K"]:
        """The bias of every latent; children have none."""
        bias = self.top.b_enc
        return torch.cat([bias, bias.new_zeros(self.outputs - len(bias))])

    def rows_of(self, latents: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """The rows of some latents in activation space, without those of the others."""
        tables, maps = [b.W_child for b in self.below], [b.W_down for b in self.below]
        return of_tree(self.tree, latents, self.top.W_enc, tables, maps)

    def forward(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows K"]:
        """The scores of all latents, whoever is selected; for a look, not for training."""
        return F.linear(x - self.centre(), self.W_enc, self.b_enc)

    def route(
        self, x: Float[Tensor, "*rows d"], k: int
    ) -> tuple[Float[Tensor, "*rows w"], Int[Tensor, "*rows w"]]:
        """Scores and latents of the ``k`` best roots and of each one's best child, level by level.

        Returns:
            ``k · depth`` scores per row and the latents they are of, as
            :class:`priors.TreeSubsets` orders them.
        """
        flat = x.reshape(-1, self.d_model)
        values, roots = self.top.select(flat, k)
        scores, places = self.descend(flat, roots)
        support = [p + o for p, o in zip([roots, *places], self.tree.offsets, strict=True)]
        shape = (*x.shape[:-1], k * self.tree.depth)
        return torch.cat([values, *scores], -1).view(shape), torch.cat(support, -1).view(shape)

    def descend(
        self, x: Float[Tensor, "B d"], roots: Int[Tensor, "B n"]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Per level below the first, score and place of the best child of what was chosen above."""
        scores, places, place, inside = [], [], roots, None
        for level in self.below:
            if inside is None:
                inside = level.project(x, place, self.decoder.b_dec)
            else:
                inside = level.lowered(inside, place)
            place = level.best(inside, place)
            scores.append(level.score(inside, place))
            places.append(place)
        return scores, places
