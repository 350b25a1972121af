"""The crosscoder: one code for the activations of several layers, or of several models."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from priors.errors import ConfigError
from vsae.layers import check_chosen, check_decoder, check_layers, take
from vsae.models.wrapping import WrappingModel
from vsae.skip_connection import SkipConnection


class Crosscoder(WrappingModel):
    r"""A flat model of several layers' activations at once, given those that it does not explain.

    .. math:: z_b \sim p(z), \qquad x_b^{l} \sim
        \mathcal N\Big(b^{l} + \sum_k z_{bk}\, w_k^{l} + A^l x_b^{\text{in}},\ σ^2 I\Big),
        \quad l \in \text{targets}

    A row of data is a concatenation (B, Σ_l d_l). The targets' part is explained by ``model``: any
    model of activations, its sites unchanged (``z``, ``x``, and ``support`` in slots), so that
    every prior and every posterior of a flat SAE is one of a crosscoder. Layers that are no target
    are given: guides may read them, and a skip connection adds a linear function of them. Which
    kind of crosscoder it is follows from that:

    =============  ===============================  ==========================
    kind           a latent reads                   a latent writes
    =============  ===============================  ==========================
    acausal        every layer                      every layer
    causal         layers up to its own             layers after its own
    transport      one layer                        another
    model diff     all models                       all models
    =============  ===============================  ==========================

    What a latent reads is up to the guide's encoder, what it writes to the decoder.

    Args:
        model: Explains the targets, e.g. :class:`vsae.SparseAutoencoder` with a
            :class:`vsae.LayeredDecoder`.
        layers: Width of every layer of a row, in order.
        targets: Which of them the model explains; all if ``None``.
        skip: ``(B, Σd) -> (B, Σ_targets d)``, added to the mean; nothing if ``None``. E.g.
            :class:`vsae.SkipConnection`. Of layers that are given, not of targets, which it would
            copy.

    Raises:
        ConfigError: ``layers.widths``, ``layers.chosen``, ``layers.decoder`` if the decoder does
            not write the targets, ``layers.skip`` for a :class:`vsae.SkipConnection` of other
            layers or targets, or one that reads a target.

    Example:
        >>> import torch
        >>> from priors import LaplacePrior
        >>> from vsae import LayeredDecoder, SparseAutoencoder
        >>> flat = SparseAutoencoder(LayeredDecoder(8, (3, 2)), LaplacePrior(8), noise=0.5)
        >>> Crosscoder(flat, (3, 2))(torch.zeros(5, 5)).shape
        torch.Size([5, 5])

    Source:
        Lindsey et al. (2024), *Sparse Crosscoders for Cross-Layer Features and Model Diffing*; with
        a skip connection and one layer in, one out, Paulo et al. (2025), *Transcoders Beat Sparse
        Autoencoders for Interpretability*.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[int],
        *,
        targets: Sequence[int] | None = None,
        skip: nn.Module | None = None,
    ) -> None:
        super().__init__(model)
        self.skip = skip
        self.layers = check_layers(layers)
        self.targets = check_chosen("targets", targets, self.layers)
        check_decoder(model.decoder, self.targets, self.layers)
        if isinstance(skip, SkipConnection):
            self._check_skip(skip)

    def forward(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*batch e"]:
        explained = self.explained(x)
        if self.skip is None:
            return self.model(explained)
        offset = self.skip(x)  # x - offset ~ Normal(m, σ) is x ~ Normal(m + offset, σ)
        return self.model(explained - offset) + offset

    def explained(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows e"]:
        """The targets' part of rows."""
        return take(x, self.targets, self.layers)

    @property
    def d_model(self) -> int:
        """Width of a row: of all layers together."""
        return sum(self.layers)

    def _check_skip(self, skip: SkipConnection) -> None:
        """It adds to the targets what it reads elsewhere: a target it read it would copy."""
        fits = (skip.layers, skip.targets) == (self.layers, self.targets)
        if not fits or set(skip.inputs) & set(self.targets):
            raise ConfigError(
                f"the skip connection does not lead to the targets from other layers: got inputs "
                f"{skip.inputs} and targets {skip.targets} of layers {skip.layers}, expected "
                f"targets {self.targets} of {self.layers} and inputs that are none of them.",
                code="layers.skip",
                context={"inputs": skip.inputs, "targets": skip.targets, "layers": skip.layers},
            )
