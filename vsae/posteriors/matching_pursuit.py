"""Matching pursuit: latents chosen one after another, each for what the others leave."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributions import Distribution

from priors.errors import ConfigError
from vsae.decoders import Projected
from vsae.posteriors.point import point
from vsae.select import check_k, select


class MatchingPursuitPosterior(nn.Module):
    r"""``k`` greedy steps against the residual: a point in ``k`` slots; there is no encoder.

    .. math:: r_0 = x - b_{dec}, \qquad j_t = \arg\max_j w_j^\top r_{t-1}, \qquad
        v_t = w_{j_t}^\top r_{t-1}, \qquad r_t = r_{t-1} - v_t w_{j_t}

    With unit atoms :math:`r_t \perp w_{j_t}` and :math:`\lVert r_t\rVert^2 = \lVert
    r_{t-1}\rVert^2 - v_t^2`. The greatest inner product is meant, not the greatest magnitude: an
    amplitude is negative only where all inner products are. A latent picked again adds to its
    amplitude, :math:`z_j = \sum_{t : j_t = j} v_t`, and takes one slot; the slot left over is
    empty. The gradient runs through all steps, given the picks. A step costs a product with the
    whole dictionary: a code costs ``k`` times TopK's.

    Args:
        decoder: With atoms ``W_dec`` (K, d) and bias ``b_dec``, which the code is computed from.
        k: Steps, and slots, per row.

    Raises:
        ConfigError: ``select.k`` unless ``0 < k <= K``; ``pursuit.decoder`` unless atoms have unit
            norm.

    Example:
        >>> from vsae import LinearDecoder
        >>> decoder = LinearDecoder(8, 3)
        >>> q = MatchingPursuitPosterior(decoder, k=2)(decoder.W_dec[:5].detach())
        >>> bool((q["z"].mean[:, 0] > 0.999).all())  # an atom is its own code
        True

    Source:
        Costa et al. (2025), *From Flat to Hierarchical: Extracting Sparse Representations with
        Matching Pursuit*, 2506.03093; Mallat & Zhang (1993).
    """

    def __init__(self, decoder: nn.Module, *, k: int) -> None:
        super().__init__()
        check_k(k, decoder.latents)
        if not isinstance(decoder, Projected):
            raise ConfigError(
                f"a pursuit with atoms of any norm diverges: got {type(decoder).__name__}, "
                "expected a LinearDecoder.",
                code="pursuit.decoder",
            )
        self.decoder, self.k, self.latents = decoder, k, decoder.latents

    @property
    def encoder(self) -> nn.Module:
        """The decoder: codes are read with the atoms that write them."""
        return self.decoder

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        values, picks = self.pursue(x)
        values, support = merge(values, picks, self.latents)
        shape = (*x.shape[:-1], self.k)
        return {"support": point(support.view(shape)), "z": point(values.view(shape))}

    def pursue(
        self, x: Float[Tensor, "*rows d"]
    ) -> tuple[Float[Tensor, "B k"], Int[Tensor, "B k"]]:
        """The amplitude and the latent of each step, in order; a latent may come again."""
        atoms, bias = self.decoder.W_dec, self.decoder.b_dec
        zeros, origin = atoms.new_zeros(len(atoms)), torch.zeros_like(atoms[0])
        residual = (x if bias is None else x - bias).reshape(-1, x.shape[-1])
        steps = []
        for step in range(self.k):
            value, pick = select(residual, atoms, zeros, origin, 1)
            steps.append((value, pick))
            if step + 1 < self.k:
                residual = residual - value * atoms.index_select(0, pick.squeeze(1))
        values, picks = zip(*steps, strict=True)
        return torch.cat(values, 1), torch.cat(picks, 1)


def merge(
    values: Float[Tensor, "B k"], picks: Int[Tensor, "B k"], latents: int
) -> tuple[Float[Tensor, "B k"], Int[Tensor, "B k"]]:
    """Codes with no latent twice: sums in the first slot of each, the other slots empty.

    An empty slot still names a latent: the lowest ones that the row does not use.

    Args:
        values: Amplitudes.
        picks: The latent of each, repeated or not.
        latents: ``K >= k``.

    Example:
        >>> merge(torch.tensor([[5.0, 2.0, 1.0]]), torch.tensor([[4, 0, 4]]), 6)
        (tensor([[6., 2., 0.]]), tensor([[4, 0, 1]]))
    """
    k = picks.shape[1]
    first = (picks[:, :, None] == picks[:, None, :]).byte().argmax(-1)
    sums = torch.zeros_like(values).scatter_add(1, first, values)
    again = first != torch.arange(k, device=picks.device)
    # Among the first 2k latents (or all K) at least as many are unused as slots are left over.
    names = min(2 * k, latents)
    used = torch.zeros(len(picks), names + 1, dtype=torch.uint8, device=picks.device)
    used = used.scatter(1, picks.clamp(max=names), 1)[:, :names]
    unused = used.argsort(dim=1, stable=True)[:, :k]
    rank = (again.cumsum(1) - 1).clamp(min=0)
    return sums, torch.where(again, unused.gather(1, rank), picks)
