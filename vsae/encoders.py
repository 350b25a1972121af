"""Amortisation networks: from an activation to the numbers a posterior is made of."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from priors.replicas import rows_affine, rows_times
from vsae.decoders import FreeDecoder, LinearDecoder


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
