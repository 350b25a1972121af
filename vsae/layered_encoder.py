"""The encoder of a crosscoder: one code from the activations of several layers."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vsae.decoders import LinearDecoder, Projected
from vsae.encoders import DictionaryEncoder
from vsae.layers import (
    check_blocks,
    check_chosen,
    check_decoder,
    check_layers,
    columns,
    per_column,
)


class LayeredEncoder(DictionaryEncoder, Projected):
    r"""``Σ_l x_l W_{k,l} + b_k``, or only its greatest entries, which never makes (B, K).

    ``W_enc`` has a row per latent over all layers, ``(K, Σ_l d_l)``: one product of matrices for
    all of them. Nothing is subtracted from the activations first: centre them, as
    :class:`vsae.LayerNormalizer` does. A row begins as the latent's atom, and at random in layers
    the atom is not in, over its squared norm: where every layer that is read has an atom, a single
    active latent is restored at once.

    Args:
        decoder: The dictionary over the targets, :class:`vsae.LayeredDecoder`; of a single target
            :class:`vsae.LinearDecoder`.
        layers: Width of every layer, in the order of a row of data.
        targets: Which of them the decoder's layers are; all if ``None``.
        reads: Whether a latent reads a layer, ``(K, layers)``; all if ``None``. Elsewhere its
            weights are 0 and stay so.

    Raises:
        ConfigError: ``layers.widths``, ``layers.chosen``, ``layers.blocks``, ``layers.decoder`` if
            the decoder does not write the targets; when run, ``select.k`` unless ``0 < k <= K``.

    Example:
        >>> from vsae import LayeredDecoder
        >>> decoder = LayeredDecoder(8, (3, 2))
        >>> encoder = LayeredEncoder(decoder, (3, 2))
        >>> encoder(torch.zeros(5, 5)).shape, encoder.select(torch.zeros(5, 5), 2)[0].shape
        (torch.Size([5, 8]), torch.Size([5, 2]))

    Source:
        Lindsey et al. (2024), *Sparse Crosscoders for Cross-Layer Features and Model Diffing*.
    """

    def __init__(
        self,
        decoder: LinearDecoder,
        layers: Sequence[int],
        *,
        targets: Sequence[int] | None = None,
        reads: Bool[Tensor, "K layers"] | None = None,
    ) -> None:
        nn.Module.__init__(self)
        self.decoder, self.layers = decoder, check_layers(layers)
        self.targets = check_chosen("targets", targets, self.layers)
        check_decoder(decoder, self.targets, self.layers)
        self.d_model, self.outputs = sum(self.layers), decoder.latents
        self.register_buffer("reads", check_blocks("reads", reads, self.outputs, self.layers))
        self.W_enc = nn.Parameter(self._start())
        self.b_enc = nn.Parameter(torch.zeros(self.outputs))
        self.project()

    def _start(self) -> Float[Tensor, "K d"]:
        atoms = self.decoder.W_dec.detach()
        start = atoms.square().mean().sqrt() * torch.randn(self.outputs, self.d_model)
        where = columns(self.targets, self.layers)
        start[:, where] = torch.where(atoms != 0, atoms, start[:, where])
        if self.reads is not None:
            start = start * per_column(self.reads, self.layers)
        return start / start.square().sum(-1, keepdim=True)

    def centre(self) -> Float[Tensor, "*batch d"]:
        """Nothing."""
        return torch.zeros_like(self.W_enc[..., 0, :])

    @torch.no_grad()
    def project_gradient(self) -> None:
        if self.reads is not None and self.W_enc.grad is not None:
            self.W_enc.grad.mul_(per_column(self.reads, self.layers))

    def has_left(self) -> bool:
        if self.reads is None:
            return False
        return bool(((self.W_enc != 0) & ~per_column(self.reads, self.layers)).any())

    @torch.no_grad()
    def project(self) -> None:
        if self.reads is not None:
            self.W_enc.mul_(per_column(self.reads, self.layers))
