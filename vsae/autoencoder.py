"""The pair of a model and a guide, with the interface of an SAE."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyro
import pyro.poutine as poutine
import torch
from jaxtyping import Float
from pyro.poutine.guide import GuideMessenger
from torch import Tensor, nn
from torch.distributions import Distribution

from vsae.batches import check_finite
from vsae.decoders import Projected
from vsae.elbo import ClosedFormELBO, per_row
from vsae.encoders import AbstractDictionaryEncoder, LinearEncoder, TiedEncoder
from vsae.errors import ConfigError, DTypeError, ShapeError
from vsae.hierarchical_encoder import HierarchicalEncoder
from vsae.normalizers import IdentityNormalizer
from vsae.observer import Observer, latent_values
from vsae.point_estimate import point_estimate
from vsae.sparse_code import SparseCode

Activations = Float[Tensor, "*rows d"] | Sequence[Tensor]
"""What a pair takes: rows; of a crosscoder also ``(…, layers, d)``, or a tensor per layer."""


class Autoencoder(nn.Module):
    """A model and its guide, in the units of the activations: encode, decode, posterior, ELBO.

    Its own methods (``encode``, ``code``, ``decode``, ``posterior``, ``elbo``) always evaluate,
    whatever mode it is in. The mode matters to the model and the guide themselves, in training:
    some models then observe more (prefixes, a residual), and BatchTopK has its threshold from the
    batch. Like any module it starts in training mode.

    Args:
        model: ``x -> mean``, with a ``decoder``, a prior, a latent site ``z``, and ``code(sites)``.
        guide: ``x -> sites``, with a ``posterior``.
        normalizer: Units the pair works in; raw activations if ``None``. Stored with the weights.

    Raises:
        ConfigError: ``pair.guide`` for a guide that runs another model than this one.
        ShapeError: ``data.width`` for a normaliser of another width.

    Example:
        >>> from vsae.examples import tiny
        >>> model, guide, x = tiny()
        >>> pair = Autoencoder(model, guide)
        >>> pair(x).shape, pair.encode(x).shape
        (torch.Size([5, 2]), torch.Size([5, 3]))
    """

    def __init__(self, model: nn.Module, guide: nn.Module, normalizer: nn.Module | None = None):
        super().__init__()
        if isinstance(guide, GuideMessenger) and guide.model is not model:  # which it would score
            raise ConfigError(
                f"the guide follows another model: got one of a {type(guide.model).__name__}, "
                f"expected the pair's own {type(model).__name__}. Build the guide of that.",
                code="pair.guide",
            )
        self.model, self.guide = model, guide
        self.normalizer = IdentityNormalizer() if normalizer is None else normalizer
        width = getattr(self.normalizer, "d_model", None)
        if width is not None and width != self.d_model:
            raise ShapeError(
                f"the normaliser is of another width: got {width}, expected {self.d_model}. Fit it "
                "to the same activations.",
                code="data.width",
                context={"got": width, "expected": self.d_model},
            )
        self._last_codes: tuple[int, latent_values] | None = None

    @property
    def d_model(self) -> int:
        """Width of a row of data."""
        return self.model.decoder.d_model

    def rows(self, x: Activations) -> Tensor:
        """Data as rows, one number after another: flat activations are."""
        return x

    def target(self, x: Activations) -> Tensor:
        """What of ``x`` is to be restored: of flat activations everything."""
        return x

    def posterior(self, x: Activations) -> dict[str, Distribution]:
        """``{site: q(site | x)}``, over latents in normalised units."""
        with self.evaluating():
            return self.guide.posterior(self.normalizer(self.check(x)))

    def code(self, x: Activations) -> Tensor | SparseCode:
        """The code at the posterior *mean*, as the guide writes it: dense, or in slots.

        Of spike and slab only the latents that are more likely on than off: means are never zero.
        """
        return self.model.code({name: point_estimate(q) for name, q in self.posterior(x).items()})

    def encode(self, x: Activations) -> Float[Tensor, "*batch K"]:
        """The code at the posterior *mean*, dense whatever the guide; deterministic."""
        code = self.code(x)
        return code.dense() if isinstance(code, SparseCode) else code

    def decode(self, code: Float[Tensor, "*rows K"] | SparseCode) -> Tensor:
        """The mean activation of a code, in raw units."""
        given = (code.z, code.support) if isinstance(code, SparseCode) else (code,)
        return self.raw(self.model.decoder(*given))

    def raw(self, mean: Float[Tensor, "*rows d"]) -> Tensor:
        """What the model returns, a mean in normalised units, in raw ones and in its shape."""
        return self.normalizer.inverse(mean)

    def restored(self, x: Activations, code: Float[Tensor, "*batch K"] | SparseCode) -> Tensor:
        """The mean activation of the code of ``x``, in raw units: ``decode(code)``."""
        return self.decode(code)

    def forward(self, x: Activations) -> Tensor:
        """``restored(x, code(x))``: what there is to compare with ``target(x)``."""
        return self.restored(x, self.code(x))

    def elbo(self, x: Activations) -> Tensor:
        """The ELBO per row, nats, of *raw* activations: one noise draw, log-Jacobian included.

        Shape ``()``, or ``(R,)`` for replicas.

        Raises:
            ShapeError: ``data.rank`` for a single row without its axis.
        """
        x = self.check(x)
        if x.dim() < 2:
            raise ShapeError(
                f"an ELBO is of rows: got shape {tuple(x.shape)}, expected (rows, …). Of one row "
                "it is that of x[None].",
                code="data.rank",
            )
        self.check_finite(x)
        x = self.normalizer(x)
        with self.evaluating():
            terms = ClosedFormELBO().site_terms(self.model, self.guide, x)
        return self.log_jacobian() - sum(per_row(terms, x.shape[-2]).values())

    def log_jacobian(self) -> Tensor | float:
        """What an ELBO in normalised units lacks to be one in raw units, nats per row."""
        return self.normalizer.log_jacobian(self.d_model)

    def pyro_model(self, x: Activations) -> Tensor:
        """The model as ``pyro.infer.SVI`` wants it, with its parameters registered."""
        pyro.module("autoencoder", self)
        return self.model(self.normalizer(self.rows(x)))

    def pyro_guide(self, x: Activations) -> dict[str, Tensor]:
        """The guide as ``pyro.infer.SVI`` wants it; what follows an update is done before the next.

        Atoms that have left their sphere are put back, and observers see the codes of the update.
        Call :meth:`project` after the last step, which is not followed by another.
        """
        pyro.module("autoencoder", self)
        self.project()
        with poutine.block(hide_fn=_observed), latent_values() as seen:
            sites = self.guide(self.normalizer(self.rows(x)))
        if self.training and torch.is_grad_enabled() and self.observers():
            self._last_codes = (self._updates(), seen)
        return sites

    def project(self) -> None:
        """After a step of SVI: atoms back on their sphere, its codes shown to the observers.

        Codes that no update followed, of another particle or an evaluation, are forgotten.
        """
        last, self._last_codes = self._last_codes, None
        if last is not None and last[0] != self._updates():
            for observer in self.observers():
                last[1].show(observer)
        for module in self.projected():
            if module.has_left():
                module.project()

    def projected(self) -> list[nn.Module]:
        """The modules whose parameters live on a manifold."""
        return [m for m in self.modules() if isinstance(m, Projected)]

    def _updates(self) -> int:
        """A count that grows whenever a parameter is changed in place."""
        return sum(parameter._version for parameter in self.parameters())

    def observers(self) -> list[Observer]:
        """The modules that learn from the codes of training, beside the gradient."""
        return [m for m in self.modules() if isinstance(m, Observer)]

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode inside, whatever mode each module is in; as it was outside."""
        training = [module for module in self.modules() if module.training]
        for module in training:
            module.training = False
        try:
            yield
        finally:
            for module in training:
                module.training = True

    def check(self, x: Activations) -> Tensor:
        """``x`` itself, or a typed error naming what is wrong with its shape, dtype or device."""
        d_model, weight = self.d_model, self._weight
        if x.dim() < 1 or x.shape[-1] != d_model:
            raise ShapeError(
                f"activations of the wrong width: got shape {tuple(x.shape)}, expected (…, "
                f"{d_model}).",
                code="data.width",
                context={"got": tuple(x.shape), "expected": d_model},
            )
        self.check_dtype()
        if x.dtype != weight.dtype:
            raise DTypeError(
                f"activations are {x.dtype}, the model is {weight.dtype}. Cast one: x.to(…).",
                code="data.dtype",
            )
        for buffer in self.normalizer.buffers():
            if buffer.is_floating_point() and buffer.dtype != weight.dtype:
                raise DTypeError(
                    f"the normaliser is {buffer.dtype}, the model is {weight.dtype}. Cast it: "
                    "normalizer.to(…).",
                    code="data.dtype",
                )
        if x.device != weight.device:
            raise ShapeError(
                f"activations are on {x.device}, the model on {weight.device}. Move one with .to.",
                code="data.device",
            )
        return x

    def check_finite(self, x: Float[Tensor, "*rows d"]) -> None:
        """Raise ``NonFiniteDataError`` (``data.nonfinite``) naming the first value that is not."""
        check_finite(x)

    def check_dtype(self) -> None:
        """Raise ``DTypeError`` (``model.dtype``) unless parameters are float32 or float64."""
        if self._weight.dtype not in (torch.float32, torch.float64):
            raise DTypeError(
                f"parameters are {self._weight.dtype}: expected float32 or float64, as small "
                "updates round away in 16 bits. Keep float32 parameters; autocast the rest.",
                code="model.dtype",
            )

    @property
    def _weight(self) -> Tensor:
        """A parameter of the dictionary, for dtype and device; all atoms may be dear to make."""
        return next(self.model.decoder.parameters())

    @property
    def W_dec(self) -> Tensor:
        """Atoms ``(K, d)``."""
        return self.model.decoder.W_dec

    @property
    def b_dec(self) -> Tensor:
        """Decoder bias ``(d,)``, zeros if there is none."""
        decoder = self.model.decoder
        return torch.zeros_like(self._weight[..., 0, :]) if decoder.b_dec is None else decoder.b_dec

    @property
    def W_enc(self) -> Tensor:
        """Encoder matrix of the posterior mean ``(d, K)``; linear encoders only."""
        encoder = self._linear_encoder()
        if not isinstance(encoder, LinearEncoder | TiedEncoder):  # a row per latent
            return encoder.W_enc.mT
        return encoder.W_enc[..., : self.guide.posterior.latents]

    @property
    def b_enc(self) -> Tensor:
        """Encoder bias of the posterior mean ``(K,)``; linear encoders only.

        After :class:`vsae.TiedEncoder` and :class:`vsae.DictionaryEncoder` it is added to
        ``(x - b_dec) W_enc``.
        """
        return self._linear_encoder().b_enc[..., : self.guide.posterior.latents]

    def _linear_encoder(self) -> nn.Module:
        encoder = getattr(self.guide.posterior, "encoder", None)
        linear = LinearEncoder | TiedEncoder | AbstractDictionaryEncoder | HierarchicalEncoder
        if not isinstance(encoder, linear):
            raise ConfigError(
                f"W_enc and b_enc exist for linear encoders: got {type(encoder).__name__}. "
                "Use encode(x).",
                code="encoder.not_linear",
            )
        return encoder


def _observed(msg: dict) -> bool:
    """What a guide that runs its model meets there, and is none of its sites."""
    return msg["type"] == "sample" and msg["is_observed"]
