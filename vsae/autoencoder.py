"""The pair of a model and a guide, with the interface of an SAE."""

import pyro
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from vsae.decoders import Projected
from vsae.elbo import ClosedFormELBO, per_row
from vsae.encoders import LinearEncoder, TiedEncoder
from vsae.errors import ConfigError, DTypeError, ShapeError
from vsae.normalizers import IdentityNormalizer


class Autoencoder(nn.Module):
    """A model and its guide, in the units of the activations: encode, decode, posterior, ELBO.

    Args:
        model: ``x -> mean``, with a ``decoder``, a ``link`` and a latent site ``z``.
        guide: ``x -> sites``, with a ``posterior``.
        normalizer: Units the pair works in; raw activations if ``None``. Stored with the weights.

    Example:
        >>> from vsae.examples import tiny
        >>> model, guide, x = tiny()
        >>> pair = Autoencoder(model, guide)
        >>> pair(x).shape, pair.encode(x).shape
        (torch.Size([5, 2]), torch.Size([5, 3]))
    """

    def __init__(self, model: nn.Module, guide: nn.Module, normalizer: nn.Module | None = None):
        super().__init__()
        self.model, self.guide = model, guide
        self.normalizer = IdentityNormalizer() if normalizer is None else normalizer

    def posterior(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        """``{site: q(site | x)}``, over latents in normalised units."""
        return self.guide.posterior(self.normalizer(self.check(x)))

    def encode(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*batch K"]:
        """The code at the posterior *mean*: ``link(E[z | x])``; deterministic."""
        return self.model.link(self.posterior(x)["z"].mean)

    def decode(self, code: Float[Tensor, "*rows K"]) -> Float[Tensor, "*batch d"]:
        """The mean activation of a code, in raw units."""
        return self.normalizer.inverse(self.model.decoder(code))

    def forward(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*batch d"]:
        """``decode(encode(x))``."""
        return self.decode(self.encode(x))

    def elbo(self, x: Float[Tensor, "rows d"]) -> Tensor:
        """The ELBO per row, nats, of *raw* activations: one noise draw, log-Jacobian included.

        Shape ``()``, or ``(R,)`` for replicas.
        """
        terms = ClosedFormELBO().site_terms(self.model, self.guide, self.normalizer(self.check(x)))
        loss = sum(per_row(terms, x.shape[-2]).values())
        return self.normalizer.log_jacobian(x.shape[-1]) - loss

    def pyro_model(self, x: Float[Tensor, "rows d"]) -> Tensor:
        """The model as ``pyro.infer.SVI`` wants it, with its parameters registered."""
        pyro.module("autoencoder", self)
        return self.model(self.normalizer(x))

    def pyro_guide(self, x: Float[Tensor, "rows d"]) -> dict[str, Tensor]:
        """The guide as ``pyro.infer.SVI`` wants it; atoms that have left their sphere are put back.

        Call :meth:`project` after the last step, which is not followed by another.
        """
        pyro.module("autoencoder", self)
        self.project()
        return self.guide(self.normalizer(x))

    def project(self) -> None:
        """Put atoms that have left their sphere back on it."""
        for module in self.projected():
            if module.has_left():
                module.project()

    def projected(self) -> list[nn.Module]:
        """The modules whose parameters live on a manifold."""
        return [m for m in self.modules() if isinstance(m, Projected)]

    def check(self, x: Tensor) -> Tensor:
        """``x`` itself, or a typed error naming what is wrong with its shape, dtype or device."""
        d_model, weight = self.model.decoder.d_model, self.model.decoder.W_dec
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
        if x.device != weight.device:
            raise ShapeError(
                f"activations are on {x.device}, the model on {weight.device}. Move one with .to.",
                code="data.device",
            )
        return x

    def check_dtype(self) -> None:
        """Raise ``DTypeError`` (``model.dtype``) unless parameters are float32 or float64."""
        if self.W_dec.dtype not in (torch.float32, torch.float64):
            raise DTypeError(
                f"parameters are {self.W_dec.dtype}: expected float32 or float64, as small updates "
                "round away in 16 bits. Keep float32 parameters; autocast encoder and decoder.",
                code="model.dtype",
            )

    @property
    def W_dec(self) -> Tensor:
        """Atoms ``(K, d)``."""
        return self.model.decoder.W_dec

    @property
    def b_dec(self) -> Tensor:
        """Decoder bias ``(d,)``, zeros if there is none."""
        decoder = self.model.decoder
        return (
            torch.zeros_like(decoder.W_dec[..., 0, :]) if decoder.b_dec is None else decoder.b_dec
        )

    @property
    def W_enc(self) -> Tensor:
        """Encoder matrix of the posterior mean ``(d, K)``; linear encoders only."""
        return self._linear_encoder().W_enc[..., : self.guide.posterior.latents]

    @property
    def b_enc(self) -> Tensor:
        """Encoder bias of the posterior mean ``(K,)``; linear encoders only."""
        return self._linear_encoder().b_enc[..., : self.guide.posterior.latents]

    def _linear_encoder(self) -> nn.Module:
        encoder = self.guide.posterior.encoder
        if not isinstance(encoder, LinearEncoder | TiedEncoder):
            raise ConfigError(
                f"W_enc and b_enc exist for linear encoders: got {type(encoder).__name__}. "
                "Use encode(x).",
                code="encoder.not_linear",
            )
        return encoder
