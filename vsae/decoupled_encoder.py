"""The encoder of a decoupled crosscoder: one score per latent, one size per latent and layer."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from priors.replicas import rows_affine
from vsae.decoupled_decoder import DecoupledDecoder
from vsae.select import check_k, chunk_rows, top
from vsae.slots import dots


class DecoupledEncoder(nn.Module):
    r"""``z_{k,l} = n_{k,l} (Σ_m x_m W_{k,m} + b_k)``: what latent ``k`` adds to layer ``l``.

    The score is the latent's, as in any crosscoder; its size :math:`n_{k,l} > 0` is what the norm
    of a free atom would be. Selecting the greatest :math:`z_{k,l}` may keep a latent in one layer
    and not in another.

    Args:
        decoder: The dictionary.

    Raises:
        ConfigError: ``select.k``, when run, unless ``0 < k <= K · layers``.

    Shapes:
        ``W_enc (K, Σd)``, ``b_enc (K,)``, ``log_sizes (K · layers,)``.

    Example:
        >>> encoder = DecoupledEncoder(DecoupledDecoder(8, (3, 3)))
        >>> encoder(torch.zeros(5, 6)).shape, encoder.select(torch.zeros(5, 6), 4)[0].shape
        (torch.Size([5, 16]), torch.Size([5, 4]))

    Source:
        As :class:`vsae.DecoupledDecoder`.
    """

    def __init__(self, decoder: DecoupledDecoder) -> None:
        super().__init__()
        self.decoder, self.d_model, self.outputs = decoder, decoder.d_model, decoder.latents
        self.count = len(decoder.layers)
        atoms = decoder.atoms.detach().view(decoder.shared, -1)
        self.W_enc = nn.Parameter(atoms / self.count)  # restores a latent of equal sizes at once
        self.b_enc = nn.Parameter(torch.zeros(decoder.shared))
        self.log_sizes = nn.Parameter(torch.zeros(decoder.latents))

    def forward(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*batch K"]:
        scores = rows_affine(x, self.W_enc.mT, self.b_enc)
        return scores.repeat_interleave(self.count, -1) * self.log_sizes.exp()

    def select(
        self, x: Float[Tensor, "*rows d"], k: int
    ) -> tuple[Float[Tensor, "*rows k"], Int[Tensor, "*rows k"]]:
        """The ``k`` greatest of :meth:`forward`'s outputs in each row, and which they are."""
        check_k(k, self.outputs)
        flat = x.reshape(-1, self.d_model)
        with torch.no_grad():  # which, in chunks; what, from the winners alone
            chunks = flat.split(max(1, chunk_rows(self.W_enc) // self.count))
            support = torch.cat([top(self(part), k)[1] for part in chunks])
        latent = support // self.count
        scores = dots(flat, latent, self.W_enc) + self.b_enc[latent]
        values = scores * self.log_sizes[support].exp()
        return values.view(*x.shape[:-1], k), support.view(*x.shape[:-1], k)
