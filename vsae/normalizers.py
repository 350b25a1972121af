"""Units: what a model sees of an activation, stored with the model and undone in its output."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vsae.batches import check_finite
from vsae.errors import ConfigError, DTypeError, ShapeError


class IdentityNormalizer(nn.Module):
    """Raw activations."""

    def forward(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*batch d"]:
        return x

    def inverse(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*batch d"]:
        return x

    def log_jacobian(self, d_model: int) -> float:
        """``log |det ∂normalised/∂raw|``: add it to a normalised ELBO to compare in raw units."""
        return 0.0


class AffineNormalizer(nn.Module):
    r"""``(x - mean) / scale`` with one scale for all coordinates: foldable into the weights.

    Args:
        mean: ``(d,)``, in activation units.
        scale: One positive number, in activation units.

    Raises:
        ConfigError: ``normalizer.scale`` if the scale is not positive and finite.

    Example:
        >>> x = torch.randn(1000, 4, generator=torch.Generator().manual_seed(0)) * 7 + 3
        >>> round(AffineNormalizer.fit(x)(x).square().sum(-1).mean().item(), 4)  # E‖x‖² = d
        4.0
    """

    def __init__(self, mean: Float[Tensor, " d"], scale: float | Tensor) -> None:
        super().__init__()
        scale = torch.as_tensor(scale, dtype=mean.dtype, device=mean.device)
        if not bool((scale > 0) & scale.isfinite()):
            raise ConfigError(
                f"a normaliser's scale must be positive: got {scale.item()}. "
                "All rows of the data may be equal.",
                code="normalizer.scale",
            )
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    @property
    def d_model(self) -> int:
        """Width of an activation."""
        return self.mean.shape[-1]

    @classmethod
    def fit(cls, x: Float[Tensor, "rows d"]) -> "AffineNormalizer":
        """Centre the data ``(rows, d)`` and scale it to ``E‖x‖² = d``.

        Of activations in 16 bits the units are float32, as a model's parameters are.

        Raises:
            ShapeError: ``data.rank`` unless ``(rows, d)``.
            DTypeError: ``data.dtype`` unless floats.
            NonFiniteDataError: ``data.nonfinite``.
        """
        if x.dim() != 2:
            raise ShapeError(
                f"a normaliser is fitted to (rows, d): got {tuple(x.shape)}.", code="data.rank"
            )
        check_floats(x)
        mean = x.mean(0, dtype=torch.float64)
        variance = (x.double() - mean).square().mean()
        dtype = torch.promote_types(x.dtype, torch.float32)
        return cls(mean.to(dtype), variance.sqrt().to(dtype))

    def forward(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*batch d"]:
        return (x - self.mean) / self.scale[..., None]

    def inverse(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*batch d"]:
        return x * self.scale[..., None] + self.mean

    def log_jacobian(self, d_model: int) -> Tensor:
        """``-d log scale``, ``()`` or ``(R,)``: a normalised ELBO plus this is in raw units."""
        return -d_model * (self.scale.squeeze(-1) if self.scale.dim() else self.scale).log()


def check_floats(x: Tensor) -> None:
    """Raise ``data.dtype`` unless activations are floats, ``data.nonfinite`` unless finite."""
    if not x.is_floating_point():
        raise DTypeError(
            f"a normaliser is fitted to floats: got {x.dtype}. Cast the data: x.float().",
            code="data.dtype",
        )
    check_finite(x)
