"""Routing through a tree: the best roots, each one's best child, and so on down."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from vsae.hierarchical_encoder import check_hierarchical
from vsae.posteriors.point import point
from vsae.select import check_k


class RoutedPosterior(nn.Module):
    r"""Points ``support`` and ``z``: TopK over the roots, then one child of each, level by level.

    .. math:: \mathcal K = \mathrm{top}_k(u), \quad z_j = f(u_j), \quad c_j = \arg\max_c v_c,
        \quad z_{c_j} = f'(v_{c_j})\,[z_j > 0]

    A latent whose parent is empty is empty. With no level below the first this is
    :class:`vsae.TopKPosterior`.

    Args:
        encoder: :class:`vsae.HierarchicalEncoder`.
        k: Roots per row; slots are ``k · depth``.
        activation: Of the roots' scores, non-decreasing; ``nn.ReLU()`` if ``None``.
        child_activation: Of the other levels' scores; ``nn.ReLU()`` if ``None``.

    Raises:
        ConfigError: ``select.k`` unless ``0 < k <= m``.

    Example:
        >>> from vsae import HierarchicalDecoder, HierarchicalEncoder, LinearDecoder
        >>> decoder = HierarchicalDecoder(LinearDecoder(8, 6), branching=(4,), subspaces=(2,))
        >>> encoder = HierarchicalEncoder(decoder)
        >>> RoutedPosterior(encoder, k=3)(torch.ones(5, 6))["z"].event_shape
        torch.Size([6])

    Source:
        Muchane, Richardson, Park & Veitch (2025), 2506.01197, §3.1.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        k: int,
        activation: nn.Module | None = None,
        child_activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_k(k, check_hierarchical(encoder).tree.roots)
        self.encoder, self.k, self.latents = encoder, k, encoder.outputs
        self.activation = nn.ReLU() if activation is None else activation
        self.child_activation = nn.ReLU() if child_activation is None else child_activation

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        scores, support = self.encoder.route(x, self.k)
        return {"support": point(support), "z": point(self.amplitudes(scores))}

    def amplitudes(self, scores: Float[Tensor, "*rows w"]) -> Float[Tensor, "*rows w"]:
        """Of the scores of a route; a slot below an empty one is empty."""
        roots, *below = scores.unflatten(-1, (self.encoder.tree.depth, -1)).unbind(-2)
        z = [self.activation(roots)]
        for level in below:
            z.append(self.child_activation(level) * (z[-1] > 0))
        return torch.cat(z, -1)
