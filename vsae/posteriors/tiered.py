"""Codes in tiers, a point: what each tier's part of the curriculum lets through."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from priors.tiers import per_latent
from vsae.posteriors.point import point


class TieredPosterior(nn.Module):
    r"""``z = (c_1 h_1, …, c_n h_n)``, a point: codes of an encoder in tiers, ramped in.

    Both the reconstruction and the penalty see :math:`c_i h_i`, so a tier whose ramp is 0 is not
    there: it has no gradient of its own. In evaluation mode the ramps are where training left them.

    Args:
        encoder: With ``sizes`` and non-negative outputs: :class:`vsae.TieredEncoder`.
        curriculum: A module ``() -> (n,)``, e.g. :class:`vsae.Curriculum`.

    Example:
        >>> import torch
        >>> from vsae import Curriculum, TieredEncoder
        >>> q = TieredPosterior(TieredEncoder(2, (3, 2)), Curriculum((0, 100), (0, 50)))
        >>> q(torch.ones(5, 2))["z"].mean[:, 3:].any().item()  # the second tier has yet to come
        False

    Source:
        *Compositional Hierarchies* (tiered HSAE, under review), eq. 1.
    """

    def __init__(self, encoder: nn.Module, curriculum: nn.Module) -> None:
        super().__init__()
        self.encoder, self.curriculum, self.latents = encoder, curriculum, encoder.outputs

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        ramps = per_latent(self.curriculum(), self.encoder.sizes)
        return {"z": point(ramps * self.encoder(x))}
