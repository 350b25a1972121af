"""Units of a crosscoder: every layer on its own, so that none outweighs the others."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vsae.errors import ConfigError, ShapeError
from vsae.layers import check_layers, per_column, take
from vsae.normalizers import check_floats


class LayerNormalizer(nn.Module):
    r"""``(x_l - mean_l) / scale_l``, one scale per layer, of a concatenation of layers.

    The residual stream grows from layer to layer; without this the last layers would be all that a
    crosscoder explains.

    Args:
        mean: ``(Σd,)``, in activation units.
        scales: One positive number per layer, ``(layers,)``, in activation units.
        layers: Width of every layer.

    Raises:
        ConfigError: ``normalizer.scale`` unless all scales are positive and finite,
            ``layers.widths``.
        ShapeError: ``data.width`` if the widths do not fit.

    Example:
        >>> x = torch.randn(1000, 5, generator=torch.Generator().manual_seed(0)) * 7 + 3
        >>> normal = LayerNormalizer.fit(x, (3, 2))(x)
        >>> [round(part.square().sum(-1).mean().item(), 4) for part in normal.split((3, 2), -1)]
        [3.0, 2.0]
    """

    def __init__(
        self, mean: Float[Tensor, " d"], scales: Float[Tensor, " n"], layers: Sequence[int]
    ) -> None:
        super().__init__()
        self.layers = check_layers(layers)
        if mean.shape != (sum(self.layers),) or scales.shape != (len(self.layers),):
            raise ShapeError(
                f"a normaliser of layers {self.layers}: got a mean {tuple(mean.shape)} and scales "
                f"{tuple(scales.shape)}, expected ({sum(self.layers)},) and ({len(self.layers)},).",
                code="data.width",
            )
        if not bool(((scales > 0) & scales.isfinite()).all()):
            raise ConfigError(
                f"a normaliser's scales must be positive: got {scales.tolist()}. A layer's rows "
                "may all be equal.",
                code="normalizer.scale",
            )
        self.register_buffer("mean", mean)
        self.register_buffer("scales", scales)

    @property
    def d_model(self) -> int:
        """Width of a row."""
        return sum(self.layers)

    @classmethod
    def fit(cls, x: Float[Tensor, "rows d"], layers: Sequence[int]) -> "LayerNormalizer":
        """Centre the rows ``(rows, Σd)`` and scale every layer to ``E‖x_l‖² = d_l``.

        Of activations in 16 bits the units are float32, as a model's parameters are.
        """
        layers = check_layers(layers)
        if x.dim() != 2 or x.shape[1] != sum(layers):
            raise ShapeError(
                f"a normaliser of layers {layers} is fitted to (rows, {sum(layers)}): got "
                f"{tuple(x.shape)}. Use pair.rows(x), or x.flatten(1).",
                code="data.rank",
            )
        check_floats(x)
        mean = x.mean(0, dtype=torch.float64)
        squares = (x.double() - mean).square().mean(0).split(layers)
        scales = torch.stack([square.mean().sqrt() for square in squares])
        dtype = torch.promote_types(x.dtype, torch.float32)
        return cls(mean.to(dtype), scales.to(dtype), layers)

    def units(self, chosen: Sequence[int]) -> tuple[Float[Tensor, "*R e"], Float[Tensor, "*R e"]]:
        """Mean and scale of every column of some layers."""
        scales = per_column(self.scales, self.layers)
        return take(self.mean, chosen, self.layers), take(scales, chosen, self.layers)

    def forward(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*batch d"]:
        return (x - self.mean) / per_column(self.scales, self.layers)

    def inverse(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*batch d"]:
        return x * per_column(self.scales, self.layers) + self.mean

    def log_jacobian(self, d_model: int) -> Tensor:
        """``-Σ_l d_l log scale_l``, ``()`` or ``(R,)``: added to a normalised ELBO, raw units.

        Normalisers without a width of their own need ``d_model``; here the layers say it.
        """
        total = -per_column(self.scales.log(), self.layers).sum(-1)
        return total.squeeze(-1) if total.dim() else total
