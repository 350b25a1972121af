"""A Gaussian posterior whose variance is not learned."""

import pyro.distributions as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from priors._prior import check_positive


class FixedVarianceGaussianPosterior(nn.Module):
    r"""``z ~ Normal(encoder(x), scale²)``: noise of one fixed size, really injected.

    Its KL to a standard normal prior is :math:`\tfrac12\lVert μ\rVert^2` plus a constant: the ℓ2
    penalty on all pre-activations.

    Args:
        encoder: Network with ``K`` outputs, the mean.
        scale: Standard deviation, in the units of the codes; the same for all rows and latents.

    Raises:
        ConfigError: ``prior.bad_scale`` unless positive and finite.

    Example:
        >>> import torch
        >>> from vsae import LinearEncoder
        >>> q = FixedVarianceGaussianPosterior(LinearEncoder(3, 8), scale=0.5)
        >>> q(torch.zeros(5, 3))["z"].variance[0, 0].item()
        0.25

    Source:
        Baker & Li (2025), *Analysis of Variational Sparse Autoencoders*, 2509.22994: variance 1 in
        the text, no noise in the released code.
    """

    def __init__(self, encoder: nn.Module, *, scale: float = 1.0) -> None:
        super().__init__()
        self.encoder, self.latents = encoder, encoder.outputs
        self.scale = check_positive("scale", scale)

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        loc = self.encoder(x)
        return {"z": dist.Normal(loc, loc.new_tensor(self.scale)).to_event(1)}
