"""Amortisation networks: from an activation to the numbers a posterior is made of."""

from abc import abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from priors.replicas import rows_affine, rows_times
from vsae.decoders import FreeDecoder, LinearDecoder
from vsae.screen import screened_select
from vsae.select import select, select_magnitude


class LinearEncoder(nn.Module):
    r"""``x W_enc + b_enc``: one matrix, as in most SAEs.

    Args:
        d_model: Width :math:`d` of an activation.
        outputs: Numbers per row; :math:`K`, or more for posteriors with a scale.

    Shapes:
        ``W_enc (d, outputs)``, ``b_enc (outputs,)``.
    """

    def __init__(self, d_model: int, outputs: int) -> None:
        super().__init__()
        self.d_model, self.outputs = d_model, outputs
        self.W_enc = nn.Parameter(_he_uniform(d_model, outputs))
        self.b_enc = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*batch out"]:
        return rows_affine(x, self.W_enc, self.b_enc)

    @torch.no_grad()
    def align(self, decoder: nn.Module) -> None:
        """Set the first ``K`` columns to the decoder's atoms and centre them on its bias."""
        atoms = decoder.W_dec
        self.W_enc[..., : atoms.shape[-2]] = atoms.mT
        if decoder.b_dec is not None:
            self.b_enc[..., : atoms.shape[-2]] = -rows_times(decoder.b_dec, atoms.mT)


class TiedEncoder(nn.Module):
    """``(x - b_dec) W_decᵀ + b_enc`` with the decoder's own parameters, shared, not copied.

    Args:
        decoder: The dictionary whose atoms are also the encoder's; it keeps owning them.
    """

    def __init__(self, decoder: LinearDecoder | FreeDecoder) -> None:
        super().__init__()
        self.decoder, self.d_model, self.outputs = decoder, decoder.d_model, decoder.latents
        self.b_enc = nn.Parameter(torch.zeros(decoder.latents))

    @property
    def W_enc(self) -> Tensor:
        return self.decoder.W_dec.mT

    def forward(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*batch K"]:
        bias = self.decoder.b_dec
        centred = x if bias is None else x - bias
        return rows_affine(centred, self.decoder.W_dec.mT, self.b_enc)


class AbstractDictionaryEncoder(nn.Module):
    r"""``(x - b_dec) W_encᵀ + b_enc``, or only its greatest entries, which never makes (B, K).

    ``W_enc`` has a row per latent, as the decoder's atoms, which it starts from. The decoder's bias
    is its own parameter, shared. How the greatest are found is up to a subclass.

    Args:
        decoder: The dictionary; it keeps owning its bias.

    Shapes:
        ``W_enc (K, d)``, ``b_enc (K,)``.
    """

    def __init__(self, decoder: LinearDecoder | FreeDecoder) -> None:
        super().__init__()
        self.decoder, self.d_model, self.outputs = decoder, decoder.d_model, decoder.latents
        self.W_enc = nn.Parameter(decoder.W_dec.detach().clone())
        self.b_enc = nn.Parameter(torch.zeros(decoder.latents))

    def forward(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*batch K"]:
        return rows_affine(x - self.centre(), self.W_enc.mT, self.b_enc)

    def rows_of(self, latents: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """The rows of some latents."""
        return self.W_enc.index_select(0, latents)

    def centre(self) -> Float[Tensor, "*batch d"]:
        """What is subtracted first: the decoder's bias, zeros if it has none."""
        bias = self.decoder.b_dec
        return torch.zeros_like(self.W_enc[..., 0, :]) if bias is None else bias

    @abstractmethod
    def select(
        self, x: Float[Tensor, "*rows d"], k: int
    ) -> tuple[Float[Tensor, "*rows k"], Int[Tensor, "*rows k"]]:
        """The ``k`` greatest of :meth:`forward`'s outputs in each row, and which they are."""

    def select_magnitude(
        self, x: Float[Tensor, "*rows d"], k: int
    ) -> tuple[Float[Tensor, "*rows k"], Int[Tensor, "*rows k"]]:
        """The ``k`` greatest in absolute value, with their signs, and which they are."""
        flat = x.reshape(-1, self.d_model)
        values, support = select_magnitude(flat, self.W_enc, self.b_enc, self.centre(), k)
        return values.view(*x.shape[:-1], k), support.view(*x.shape[:-1], k)


class DictionaryEncoder(AbstractDictionaryEncoder):
    """The encoder of codes in slots: one product, in chunks of rows, of which the greatest stay.

    Args:
        decoder: The dictionary; it keeps owning its bias.

    Raises:
        ConfigError: ``select.k``, when run, unless ``0 < k <= K``.

    Shapes:
        ``W_enc (K, d)``, ``b_enc (K,)``.

    Example:
        >>> values, support = DictionaryEncoder(LinearDecoder(8, 3)).select(torch.zeros(5, 3), 2)
        >>> values.shape, support.shape
        (torch.Size([5, 2]), torch.Size([5, 2]))

    Source:
        Gao et al. (2024), *Scaling and evaluating sparse autoencoders*, §2.1.
    """

    def select(
        self, x: Float[Tensor, "*rows d"], k: int
    ) -> tuple[Float[Tensor, "*rows k"], Int[Tensor, "*rows k"]]:
        flat = x.reshape(-1, self.d_model)
        values, support = select(flat, self.W_enc, self.b_enc, self.centre(), k)
        return values.view(*x.shape[:-1], k), support.view(*x.shape[:-1], k)


class ScreenedEncoder(AbstractDictionaryEncoder):
    """The same encoder, that finds the greatest with a bfloat16 product first.

    The ``2k`` best of that product, or ``4k``, are scored again in full; a bound on its rounding
    certifies, row by row, that the ``k`` greatest are among them, and rows without a certificate
    take the full product. So :meth:`select` is exact, to the ties of the full product's own
    rounding; on a CPU with bfloat16 instructions it takes less time than that product alone,
    elsewhere more. :meth:`select_magnitude` is not screened.

    Args:
        decoder: The dictionary; it keeps owning its bias.

    Raises:
        ConfigError: ``select.k``, when run, unless ``0 < k <= K``; ``screen.accumulation`` where
            the product may accumulate in bfloat16.

    Example:
        >>> values, support = ScreenedEncoder(LinearDecoder(8, 3)).select(torch.zeros(5, 3), 2)
        >>> values.shape, support.shape
        (torch.Size([5, 2]), torch.Size([5, 2]))

    Source:
        The certificate is :mod:`vsae.screen`'s.
    """

    def select(
        self, x: Float[Tensor, "*rows d"], k: int
    ) -> tuple[Float[Tensor, "*rows k"], Int[Tensor, "*rows k"]]:
        flat, candidates = x.reshape(-1, self.d_model), min(2 * k, self.outputs)
        values, support = screened_select(
            flat, self.W_enc, self.b_enc, self.centre(), k, candidates
        )
        return values.view(*x.shape[:-1], k), support.view(*x.shape[:-1], k)


class MLPEncoder(nn.Module):
    r"""``relu(x W₁ + b₁) W₂ + b₂``: the two-layer ReLU network of document A.

    Args:
        d_model: Width :math:`d` of an activation.
        hidden: Hidden units :math:`H`.
        outputs: Numbers per row, :math:`2K` for a mean and a scale.
    """

    def __init__(self, d_model: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.d_model, self.hidden, self.outputs = d_model, hidden, outputs
        self.W_hidden = nn.Parameter(_he_uniform(d_model, hidden))
        self.b_hidden = nn.Parameter(torch.zeros(hidden))
        self.W_out = nn.Parameter(_he_uniform(hidden, outputs))
        self.b_out = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*batch out"]:
        hidden = rows_affine(x, self.W_hidden, self.b_hidden).relu()
        return rows_affine(hidden, self.W_out, self.b_out)


def _he_uniform(inputs: int, outputs: int) -> Tensor:
    bound = (3 / inputs) ** 0.5
    return torch.empty(inputs, outputs).uniform_(-bound, bound)
