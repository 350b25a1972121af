"""The activation of the released H-SAE: a step at a fixed threshold, with a slope below it."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vsae.errors import ConfigError


class LeakyThreshold(nn.Module):
    r"""``u`` from the threshold on, ``slope · u`` below it.

    .. math:: \mathrm{LR}_θ(u) = u\,[u \ge θ] + ν u\,[u < θ]

    Args:
        threshold: θ, in the units of the codes; finite, at least 0.
        slope: ν, from 0 to 1.

    Raises:
        ConfigError: ``threshold.setting`` for a threshold or slope outside of that.

    Example:
        >>> LeakyThreshold(0.5, slope=0.0)(torch.tensor([0.4, 0.5, -1.0])).tolist()
        [0.0, 0.5, -0.0]

    Source:
        Muchane, Richardson, Park & Veitch (2025), 2506.01197, eq. 2.1 and released code, where
        :math:`θ = 1/\sqrt d`.
    """

    def __init__(self, threshold: float, *, slope: float = 0.0) -> None:
        super().__init__()
        if not (0 <= threshold < float("inf") and 0 <= slope <= 1):  # else it would decrease
            raise ConfigError(
                "a leaky threshold needs a finite threshold of at least 0 and a slope from 0 to 1: "
                f"got {threshold=}, {slope=}.",
                code="threshold.setting",
            )
        self.threshold, self.slope = threshold, slope

    def forward(self, u: Float[Tensor, "*rows n"]) -> Float[Tensor, "*rows n"]:
        return torch.where(u >= self.threshold, u, self.slope * u)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, slope={self.slope}"
