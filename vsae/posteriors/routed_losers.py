"""Routing that also says what lost: for penalties on codes that are never decoded."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from vsae.errors import ConfigError
from vsae.hierarchical_encoder import check_hierarchical
from vsae.posteriors.point import point
from vsae.select import check_k


class RoutedLosersPosterior(nn.Module):
    r"""The sites of :class:`vsae.RoutedPosterior`, and in training those that lost.

    ``lost`` and ``lost_z`` (B, L) hold the ``width - k`` roots that came next, and every child of
    the chosen parents but the one that was kept, as amplitudes: a child that is best of an empty
    parent is decoded as nothing and stands here. Roots beyond ``width`` are not looked at. Among
    equal amplitudes the latent of the smaller number wins; with ``width = m`` that is the released
    code's choice of empty slots too, otherwise those are taken from the ``width`` best scores.

    .. math:: L = \mathrm{width} - k + k \sum_ℓ a_ℓ

    Args:
        encoder: :class:`vsae.HierarchicalEncoder`.
        k: Roots per row.
        width: Roots looked at, ``k … m``.
        activation: Of the roots' scores, non-decreasing.
        child_activation: Of the other levels' scores.

    Raises:
        ConfigError: ``select.k`` unless ``0 < k`` and ``width <= m``; ``posterior.width`` if the
            width is less than ``k``.

    Example:
        >>> from vsae import HierarchicalDecoder, HierarchicalEncoder, LinearDecoder
        >>> decoder = HierarchicalDecoder(LinearDecoder(8, 6), branching=(4,), subspaces=(2,))
        >>> encoder = HierarchicalEncoder(decoder)
        >>> relu = nn.ReLU()
        >>> q = RoutedLosersPosterior(
        ...     encoder, k=3, width=8, activation=relu, child_activation=relu
        ... )
        >>> q(torch.ones(5, 6))["lost_z"].event_shape
        torch.Size([17])

    Source:
        Muchane, Richardson, Park & Veitch (2025), 2506.01197, §3.2 and released code.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        k: int,
        width: int,
        activation: nn.Module,
        child_activation: nn.Module,
    ) -> None:
        super().__init__()
        check_k(k, check_hierarchical(encoder).tree.roots)
        check_k(width, encoder.tree.roots)
        if width < k:
            raise ConfigError(
                f"losers are looked for among width roots: got {width=} for {k=}, expected at "
                "least k.",
                code="posterior.width",
            )
        self.encoder, self.k, self.width, self.latents = encoder, k, width, encoder.outputs
        self.activation, self.child_activation = activation, child_activation

    @property
    def num_losers(self) -> int:
        """Slots of ``lost``, ``L``."""
        return self.width - self.k + self.k * sum(self.encoder.tree.branching)

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        won, lost = self.encode(x.reshape(-1, x.shape[-1]))
        sites = {"support": won[1], "z": won[0]}
        if self.training and self.num_losers:
            sites |= {"lost": lost[1], "lost_z": lost[0]}
        return {name: point(v.view(*x.shape[:-1], v.shape[-1])) for name, v in sites.items()}

    def encode(self, x: Float[Tensor, "B d"]) -> tuple[list[Tensor], list[Tensor]]:
        """Amplitudes and latents of the winners, and of the losers."""
        z, place = self._roots(x)
        won_z, won, lost_z, lost = [z[:, : self.k]], [place[:, : self.k]], [z[:, self.k :]], []
        lost.append(place[:, self.k :])
        place, inside = won[0], None
        for level, offset in zip(self.encoder.below, self.encoder.tree.offsets[1:], strict=True):
            if inside is None:
                inside = level.project(x, place, self.encoder.decoder.b_dec)
            else:
                inside = level.lowered(inside, place)
            codes = self.child_activation(level.scores(inside, place))
            best = codes.detach().argmax(-1, keepdim=True)
            kept = codes.gather(-1, best).squeeze(-1) * (won_z[-1] > 0)
            rest = F.one_hot(best.squeeze(-1), level.branching) * (won_z[-1] > 0).unsqueeze(-1)
            children = place.unsqueeze(-1) * level.branching + torch.arange(
                level.branching, device=place.device
            )
            lost_z.append((codes * (1 - rest)).flatten(-2))
            lost.append(offset + children.flatten(-2))
            place = children.gather(-1, best).squeeze(-1)
            won_z.append(kept)
            won.append(offset + place)
        return [torch.cat(won_z, -1), torch.cat(won, -1)], [
            torch.cat(lost_z, -1),
            torch.cat(lost, -1),
        ]

    def _roots(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Amplitudes of the ``width`` best roots and which they are, the greatest first."""
        values, place = self.encoder.top.select(x, self.width)
        place, order = place.sort(-1)
        z = self.activation(values.gather(-1, order))
        order = z.detach().sort(stable=True, dim=-1, descending=True).indices
        return z.gather(-1, order), place.gather(-1, order)
