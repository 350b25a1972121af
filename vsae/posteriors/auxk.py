"""AuxK's posterior: another code, over the dead latents alone."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from priors.errors import ConfigError
from vsae.dead_latents import DeadLatents
from vsae.posteriors.point import point


class AuxKPosterior(nn.Module):
    r"""``posterior``'s sites, and ``dead_z`` (B, dead): the ``k`` best scores of the dead latents.

    In evaluation mode, or while no latent is dead, there is no ``dead_z``. If fewer than ``k``
    latents are dead, all of them are used. The cost is two small products over the dead
    columns; of a tree, their rows are made first.

    Args:
        posterior: Of the code, with an ``encoder`` that has rows ``W_enc`` per latent.
        dead: Which latents are dead; the model's own.
        k: Dead latents used per row; half of ``d`` in the source.

    Raises:
        ConfigError: ``select.k`` unless ``k`` is positive.

    Example:
        >>> from vsae import DictionaryEncoder, LinearDecoder, TopKPosterior
        >>> dead = DeadLatents(8, after=10)
        >>> _ = dead.silent_for[:3].fill_(10)
        >>> q = AuxKPosterior(TopKPosterior(DictionaryEncoder(LinearDecoder(8, 3)), k=2), dead, k=1)
        >>> q(torch.ones(5, 3))["dead_z"].event_shape, sorted(q.eval()(torch.ones(5, 3)))
        (torch.Size([3]), ['support', 'z'])

    Source:
        Gao et al. (2024), *Scaling and evaluating sparse autoencoders*, §2.4.
    """

    def __init__(self, posterior: nn.Module, dead: DeadLatents, *, k: int) -> None:
        super().__init__()
        if k < 1:
            raise ConfigError(f"AuxK needs at least one latent: got k={k}.", code="select.k")
        self.posterior, self.dead, self.k = posterior, dead, k
        self.latents = posterior.latents

    @property
    def encoder(self) -> nn.Module:
        """The posterior's own."""
        return self.posterior.encoder

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        sites, dead, encoder = self.posterior(x), self.dead(), self.encoder
        if not self.training or not len(dead):
            return sites
        atoms = encoder.rows_of(dead)
        bias = encoder.b_enc.index_select(0, dead) - atoms @ encoder.centre()
        scores = nn.functional.linear(x, atoms, bias)  # (x - b_dec) would ask a gradient of x
        return sites | {"dead_z": point(keep_top(scores, self.k).relu())}


def keep_top(scores: Float[Tensor, "*rows n"], k: int) -> Float[Tensor, "*rows n"]:
    """``scores`` with all but the ``k`` greatest of each row set to zero."""
    n = scores.shape[-1]
    if k >= n:
        return scores
    few = min(k, n - k)  # look for the winners or for the losers, whichever are fewer
    winners = few == k
    place = scores.detach().topk(few, dim=-1, largest=winners, sorted=False).indices
    mask = torch.full_like(scores, float(not winners)).scatter_(-1, place, float(winners))
    return scores * mask
