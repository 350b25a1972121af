"""Amplitudes solved again on a support: what a code is worth without the shrinkage of ℓ1."""

import torch
from jaxtyping import Float
from torch import Tensor

from vsae.posteriors.accelerated import accelerated

STEPS = 100
WIDEST = 64  # active latents of a row that are kept, at most
CHUNK = 2048


@torch.no_grad()
def refitted(
    x: Float[Tensor, "rows d"],
    codes: Float[Tensor, "rows K"],
    atoms: Float[Tensor, "K d"],
    k: int | None = None,
) -> Float[Tensor, "rows K"]:
    r"""The non-negative least-squares amplitudes of the ``k`` greatest entries of each row, or all.

    .. math:: \arg\min_{z \ge 0,\ z_{S^c} = 0} \lVert x - zW \rVert^2

    The problem of :class:`vsae.RelaxedFISTAPosterior`, solved in the coordinates of the support.

    Args:
        x: Activations less the decoder's bias, in the units of the codes.
        codes: Of which only the support counts.
        atoms: The dictionary.
        k: How many of a row are kept, at most; 64 if all.
    """
    width = int((codes > 0).sum(-1).max()) if k is None else k
    width = min(max(width, 1), codes.shape[1], WIDEST)
    parts = zip(x.split(CHUNK), codes.split(CHUNK), strict=True)
    return torch.cat([_refit(rows, code, atoms, width) for rows, code in parts])


def _refit(x: Tensor, codes: Tensor, atoms: Tensor, width: int) -> Tensor:
    values, support = codes.topk(width, dim=-1)
    own = torch.where((values > 0)[..., None], atoms[support], 0.0)  # (rows, width, d)
    gram, target = own @ own.mT, (own @ x[..., None])[..., 0]
    # A row sum of |gram| is at least its greatest eigenvalue.
    length = 1 / gram.abs().sum(-1).amax(-1, keepdim=True).clamp(min=1e-12)

    def update(ahead: Tensor) -> Tensor:
        return (ahead + length * (target - (gram @ ahead[..., None])[..., 0])).clamp(min=0)

    z = accelerated(update, values.clamp(min=0), STEPS)
    return torch.zeros_like(codes).scatter_(-1, support, torch.where(values > 0, z, 0.0))
