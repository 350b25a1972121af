"""The pair of a crosscoder and its guide: activations of several layers in and out."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vsae.autoencoder import Activations, Autoencoder
from vsae.batches import check_finite
from vsae.errors import ConfigError, DTypeError, NonFiniteDataError, ShapeError
from vsae.layer_normalizer import LayerNormalizer
from vsae.layered_encoder import LayeredEncoder
from vsae.models.crosscoder import Crosscoder
from vsae.normalizers import IdentityNormalizer
from vsae.precision_weighted import PrecisionWeightedGuide
from vsae.sparse_code import SparseCode


class LayeredAutoencoder(Autoencoder):
    """:class:`vsae.Autoencoder` of a :class:`vsae.Crosscoder`, in the shape of layers.

    Activations are ``(…, layers, d)``, or a list of ``(…, d_l)``, or the concatenation
    ``(…, Σd)``: the only one of these that a tensor can be where widths differ. What is restored
    has the layers the model explains, as ``(…, targets, d)`` if they are equally wide and
    concatenated if not; :meth:`target` has the activations it is to be compared with.

    Args:
        model: A :class:`vsae.Crosscoder`.
        guide: ``x (B, Σd) -> sites``, with a ``posterior`` that may read every layer.
        normalizer: Units the pair works in, :class:`vsae.LayerNormalizer` as a rule; raw
            activations if ``None``.

    Raises:
        ConfigError: ``layers.units`` for the units of other layers, or for another normaliser where
            not all layers are targets; ``layers.encoder`` for a :class:`vsae.LayeredEncoder` of
            other layers.

    Example:
        >>> from vsae import topk_crosscoder
        >>> pair = topk_crosscoder((4, 4, 4), 16, k=3)
        >>> pair(torch.ones(2, 3, 4)).shape, pair.encode(torch.ones(2, 12)).shape
        (torch.Size([2, 3, 4]), torch.Size([2, 16]))
    """

    def __init__(self, model: nn.Module, guide: nn.Module, normalizer: nn.Module | None = None):
        _check_units(model, normalizer)
        _check_encoder(model, guide)
        super().__init__(model, guide, normalizer)

    @classmethod
    def of(cls, pair: Autoencoder, layers: Sequence[int]) -> "LayeredAutoencoder":
        """A flat pair over the concatenation of some layers, as a crosscoder; parameters shared.

        Every architecture is one this way, with atoms of size 1 in the :class:`ConcatenatedNorm`
        of a flat decoder. A guide that follows its model follows the crosscoder.

        Raises:
            ConfigError: ``layers.widths``, ``layers.decoder`` if it is of another width.

        Example:
            >>> from vsae import matching_pursuit_autoencoder
            >>> flat = matching_pursuit_autoencoder(8, 16, k=3)
            >>> LayeredAutoencoder.of(flat, (4, 4))(torch.ones(5, 2, 4)).shape
            torch.Size([5, 2, 4])
        """
        model, guide = Crosscoder(pair.model, layers), pair.guide
        if isinstance(guide, PrecisionWeightedGuide):
            guide = guide.following(model)
        return cls(model, guide, pair.normalizer)

    @property
    def d_model(self) -> int:
        """Width of a row: of all layers together."""
        return self.model.d_model

    @property
    def layers(self) -> tuple[int, ...]:
        """Width of every layer."""
        return self.model.layers

    def rows(self, x: Activations) -> Tensor:
        """The concatenation of all layers, a view where ``x`` is one tensor.

        Raises:
            ShapeError: ``data.layers``, naming the layer of a list that is of another width.
            DTypeError: ``data.tensor`` for what is neither a tensor nor a list of tensors.
        """
        if not isinstance(x, Tensor):
            return torch.cat(self._parts(x), -1)
        if x.dim() and x.shape[-1] == self.d_model:
            return x
        count, even = len(self.layers), len(set(self.layers)) == 1
        if not even or x.shape[-2:] != (count, self.layers[0]):
            other = f"(…, {count}, {self.layers[0]})" if even else "a list of a tensor per layer"
            raise ShapeError(
                f"activations of other layers than the crosscoder's, {self.layers}: got shape "
                f"{tuple(x.shape)}, expected (…, {self.d_model}) or {other}.",
                code="data.layers",
                context={"got": tuple(x.shape), "expected": self.layers},
            )
        return x.flatten(-2)

    def check(self, x: Activations) -> Tensor:
        """The rows of ``x``, or a typed error naming what is wrong with them."""
        return super().check(self.rows(x))

    def target(self, x: Activations) -> Tensor:
        """The layers of ``x`` that are to be restored, as :meth:`forward` shapes them."""
        return self._shaped(self.model.explained(self.rows(x)))

    def decode(self, code: Float[Tensor, "*rows K"] | SparseCode) -> Tensor:
        """The mean activation of a code, in raw units, without what a skip connection adds."""
        return self.raw(self._mean(code))

    def restored(self, x: Activations, code: Float[Tensor, "*batch K"] | SparseCode) -> Tensor:
        """The mean activation of the code of ``x``, in raw units, skip connection included."""
        mean = self._mean(code)
        if self.model.skip is not None:
            mean = mean + self.model.skip(self.normalizer(self.check(x)))
        return self.raw(mean)

    def raw(self, mean: Float[Tensor, "*rows e"]) -> Tensor:
        """What the model returns, a mean in normalised units, in raw ones and in its shape."""
        if not isinstance(self.normalizer, LayerNormalizer):
            return self._shaped(self.normalizer.inverse(mean))
        centre, scale = self.normalizer.units(self.model.targets)
        return self._shaped(mean * scale + centre)

    def split(self, rows: Tensor) -> tuple[Tensor, ...]:
        """What is restored or to be restored, layer by layer, of whatever widths."""
        flat = rows.flatten(-2) if self._even and rows.shape[-1] != sum(self._targets) else rows
        return flat.split(self._targets, -1)

    def check_finite(self, x: Float[Tensor, "*rows d"]) -> None:
        """Raise ``NonFiniteDataError`` (``data.nonfinite``) naming layer, row and column."""
        for layer, part in enumerate(x.split(self.layers, -1)):
            try:
                check_finite(part)
            except NonFiniteDataError as error:
                context = error.context | {"layer": layer}
                raise NonFiniteDataError(
                    f"layer {layer}: {error}", code="data.nonfinite", context=context
                ) from None

    def log_jacobian(self) -> Tensor | float:
        """Of the layers the model explains: the others are given."""
        if not isinstance(self.normalizer, LayerNormalizer):
            return super().log_jacobian()
        return -self.normalizer.units(self.model.targets)[1].log().sum(-1).squeeze(-1)

    @property
    def _targets(self) -> tuple[int, ...]:
        chosen: Any = self.model.targets
        return tuple(self.layers[i] for i in chosen)

    @property
    def _even(self) -> bool:
        return len(set(self._targets)) == 1 and len(self._targets) > 1

    def _mean(self, code: Float[Tensor, "*rows K"] | SparseCode) -> Tensor:
        given = (code.z, code.support) if isinstance(code, SparseCode) else (code,)
        return self.model.decoder(*given)

    def _shaped(self, rows: Float[Tensor, "*rows e"]) -> Tensor:
        return rows.unflatten(-1, (len(self._targets), -1)) if self._even else rows

    def _parts(self, x: Sequence[Tensor]) -> list[Tensor]:
        """A tensor per layer, of its width, all of the same rows."""
        if not isinstance(x, Sequence) or not all(isinstance(part, Tensor) for part in x):
            raise DTypeError(
                f"activations are a tensor, or a list of a tensor per layer: got "
                f"{type(x).__name__}. Convert them: torch.as_tensor(…).",
                code="data.tensor",
            )
        self._check_widths(tuple(part.shape[-1] if part.dim() else 0 for part in x))
        shapes = [tuple(part.shape) for part in x]
        if len({shape[:-1] for shape in shapes}) > 1:
            raise ShapeError(
                f"layers of different rows: got shapes {shapes}, expected (…, d_l) with the same "
                "rows in each.",
                code="data.layers",
                context={"got": shapes, "expected": self.layers},
            )
        return list(x)

    def _check_widths(self, found: tuple[int, ...]) -> None:
        if found == self.layers:
            return
        pairs = list(zip(found, self.layers, strict=False))
        wrong = [i for i, (got, expected) in enumerate(pairs) if got != expected]
        where = f"layer {wrong[0]} is" if wrong else "their number is"
        raise ShapeError(
            f"layers of other widths than the crosscoder's: got {found}, expected {self.layers}; "
            f"{where} wrong. Layers of unequal width are a list of tensors, or concatenated.",
            code="data.layers",
            context={"got": found, "expected": self.layers, "layers": wrong},
        )


def _check_units(model: nn.Module, normalizer: nn.Module | None) -> None:
    if isinstance(normalizer, LayerNormalizer):
        if normalizer.layers == model.layers:
            return
        raise ConfigError(
            f"the units of other layers: got {normalizer.layers}, expected {model.layers}. Fit the "
            "normaliser with the layers of the pair.",
            code="layers.units",
            context={"got": normalizer.layers, "expected": model.layers},
        )
    raw = normalizer is None or isinstance(normalizer, IdentityNormalizer)
    if not raw and len(model.targets) < len(model.layers):
        raise ConfigError(
            f"the units of some layers alone: got {type(normalizer).__name__}, expected a "
            "LayerNormalizer, which has a scale for each.",
            code="layers.units",
        )


def _check_encoder(model: nn.Module, guide: nn.Module) -> None:
    expected = model.layers, model.targets
    for encoder in (part for part in guide.modules() if isinstance(part, LayeredEncoder)):
        if (got := (encoder.layers, encoder.targets)) != expected:
            raise ConfigError(
                f"the encoder is of other layers than the model: got {got[0]} with targets "
                f"{got[1]}, expected {expected[0]} with targets {expected[1]}.",
                code="layers.encoder",
                context={"got": got, "expected": expected},
            )
