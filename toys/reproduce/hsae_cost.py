r"""What an autoencoder costs: its parameters, and multiply-adds per row of one forward pass.

.. math:: C_{flat} = K d + k d, \qquad C_{tree} = m d + k d + k \sum_ℓ
    (\underbrace{s_{ℓ-1} s_ℓ}_{down} + \underbrace{a_ℓ s_ℓ}_{encode} + \underbrace{s_ℓ}_{decode} +
    \underbrace{s_ℓ s_{ℓ-1}}_{up}), \qquad s_0 = d

Encoding by a low level is :math:`k a s` and decoding its one atom :math:`k s`; the paper has the
two exchanged. Biases, thresholds and the selection are not counted. A multiply-add is two FLOPs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from vsae.autoencoder import Autoencoder
from vsae.decoders import LinearDecoder
from vsae.hierarchical_decoder import HierarchicalDecoder


@dataclass(frozen=True)
class Cost:
    """Sizes of a trained pair.

    Args:
        parameters: Trainable numbers, weights shared by model and guide once.
        operations: Multiply-adds per row.
    """

    parameters: int
    operations: int

    @property
    def flops(self) -> int:
        """Two per multiply-add."""
        return 2 * self.operations


def cost(pair: Autoencoder, k: int) -> Cost:
    """Of a pair with a dictionary encoder that selects ``k`` latents, or roots, per row."""
    parameters = sum(p.numel() for p in pair.parameters() if p.requires_grad)
    return Cost(parameters, operations(pair.model.decoder, k))


def operations(decoder: LinearDecoder | HierarchicalDecoder, k: int) -> int:
    """Multiply-adds per row of encoding and decoding with this dictionary.

    Example:
        >>> operations(LinearDecoder(10, 4), 2)  # 10 scores and 2 atoms of 4 numbers
        48
    """
    if isinstance(decoder, HierarchicalDecoder):
        levels = decoder.branching, decoder.subspaces
        return tree_operations(decoder.top.latents, decoder.d_model, k, *levels)
    return flat_operations(decoder.latents, decoder.d_model, k)


def flat_operations(latents: int, d_model: int, k: int) -> int:
    """A score per latent, an atom per selected one."""
    return (latents + k) * d_model


def tree_operations(
    roots: int, d_model: int, k: int, branching: Sequence[int], subspaces: Sequence[int]
) -> int:
    """Those of the roots as a flat dictionary, and level by level those of ``k`` families."""
    levels = zip((d_model, *subspaces), subspaces, branching, strict=False)
    below = sum(2 * around * s + a * s + s for around, s, a in levels)
    return flat_operations(roots, d_model, k) + k * below


def flat_parameters(latents: int, d_model: int) -> int:
    """Of a flat SAE: atoms, encoder rows, a bias per latent and one per neuron."""
    return latents * (2 * d_model + 1) + d_model


def width_of_parameters(parameters: int, d_model: int) -> int:
    """Latents of the flat SAE with as many parameters, to the nearest."""
    return max(1, round((parameters - d_model) / (2 * d_model + 1)))


def width_of_operations(total: int, d_model: int, k: int) -> int:
    """Latents of the flat SAE of ``k`` active ones with as many multiply-adds, to the nearest."""
    return max(1, round(total / d_model) - k)
