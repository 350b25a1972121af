"""AuxK's model: what the code leaves is explained once more, by dead latents."""

import pyro
import pyro.distributions as dist
from jaxtyping import Float
from torch import Tensor, nn

from priors._prior import check_positive
from vsae.dead_latents import DeadLatents
from vsae.likelihood import SphericalNormal
from vsae.models.wrapping import WrappingModel


class ResidualAutoencoder(WrappingModel):
    r"""``model``, then ``residual ~ Normal(Σ dead_z · dead atom, residual_noise)``, in training.

    .. math:: x - \hat x \sim \mathcal N\Big(\sum_{i\ \text{dead}} z'_i w_i,\ σ_r^2 I\Big),
        \qquad σ_r = σ / \sqrt α

    The residual is data: no gradient reaches the code through it, and the decoder's bias, part of
    :math:`\hat x`, is not added a second time. ``dead_z`` (B, dead) is drawn but never scored. This
    is a *composite* likelihood, the published loss :math:`L + α\,L_{aux}` and not a bound on
    :math:`\log p(x)`; in evaluation mode, and while no latent is dead, the model is ``model``
    alone, whose ELBO is one.

    Args:
        model: Any model with a ``decoder``; it returns the mean.
        dead: Which latents are dead; the guide's own.
        residual_noise: :math:`σ_r` in (normalised) activation units; α is ``(σ / σ_r)²``.

    Raises:
        ConfigError: ``prior.bad_residual_noise`` unless positive.

    Example:
        >>> import torch
        >>> from vsae import topk_autoencoder
        >>> inner, dead = topk_autoencoder(3, 8, k=2).model, DeadLatents(8, after=10)
        >>> model = ResidualAutoencoder(inner, dead, residual_noise=4.0)  # α = 1/32 at σ² = ½
        >>> model(torch.zeros(5, 3)).shape
        torch.Size([5, 3])

    Source:
        Gao et al. (2024), *Scaling and evaluating sparse autoencoders*, §2.4 (AuxK).
    """

    def __init__(self, model: nn.Module, dead: DeadLatents, *, residual_noise: float) -> None:
        super().__init__(model)
        self.dead = dead
        self.residual_noise = check_positive("residual_noise", residual_noise)

    def forward(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        mean, dead = self.model(x), self.dead()
        if not self.training or not len(dead):
            return mean
        flat = dist.Normal(x.new_zeros(len(dead)), 1.0).to_event(1).mask(False)
        with pyro.plate("residual_rows", len(x), dim=-1):  # a plate's name is a site's
            z = pyro.sample("dead_z", flat)
            explained = z @ self.decoder.atoms_of(dead)
            noise = SphericalNormal(explained, self.residual_noise)
            pyro.sample("residual", noise, obs=(x - mean).detach())
        return mean
