"""What of a layer follows linearly from the layers before it."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from priors.replicas import rows_times
from vsae.layers import check_chosen, check_layers, take


class SkipConnection(nn.Module):
    r"""``x_in A``: a linear map from some layers to others, zero to begin with.

    What it carries costs no latent: the code is left with what is not linear.

    Args:
        layers: Width of every layer of a row.
        inputs: Layers that are read.
        targets: Layers that are written.

    Shapes:
        ``W_skip (Σ_inputs d, Σ_targets d)``.

    Raises:
        ConfigError: ``layers.widths``, ``layers.chosen``.

    Example:
        >>> SkipConnection((3, 2), inputs=(0,), targets=(1,))(torch.ones(5, 5)).shape
        torch.Size([5, 2])

    Source:
        Paulo et al. (2025), *Transcoders Beat Sparse Autoencoders for
        Interpretability*, 2501.18823.
    """

    def __init__(
        self, layers: Sequence[int], *, inputs: Sequence[int], targets: Sequence[int]
    ) -> None:
        super().__init__()
        self.layers = check_layers(layers)
        self.inputs = check_chosen("inputs", inputs, self.layers)
        self.targets = check_chosen("targets", targets, self.layers)
        sizes = [sum(self.layers[i] for i in chosen) for chosen in (self.inputs, self.targets)]
        self.W_skip = nn.Parameter(torch.zeros(*sizes))

    def forward(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows e"]:
        return rows_times(take(x, self.inputs, self.layers), self.W_skip)
