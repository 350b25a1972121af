"""Crosscoders with atoms of any size, as they are released, read and written."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vsae.atom_norms import AbstractAtomNorm
from vsae.autoencoder import Autoencoder
from vsae.errors import CheckpointError
from vsae.layered_autoencoder import LayeredAutoencoder
from vsae.layered_encoder import LayeredEncoder
from vsae.normalizers import IdentityNormalizer
from vsae.posteriors import ReLUPosterior
from vsae.presets.dense_crosscoders import l1_crosscoder

NAMES = ("W_enc", "b_enc", "W_dec", "b_dec")


def from_released_crosscoder(
    tensors: Mapping[str, Tensor], *, l1: float, norm: AbstractAtomNorm | None = None
) -> LayeredAutoencoder:
    r"""The released ReLU crosscoder with these weights: the same function, atoms of size 1.

    .. math:: w_k \to w_k / s_k, \qquad (W_k, b_k) \to s_k\,(W_k, b_k)

    Codes are those released times the size :math:`s_k` of their atom, which the published penalty
    multiplies them by.

    Args:
        tensors: ``W_enc (layers, d, K)``, ``b_enc (K,)``, ``W_dec (K, layers, d)``, ``b_dec
            (layers, d)``, floating point; other names are refused.
        l1: The coefficient λ.
        norm: The size of an atom; :class:`vsae.SumOfNorms` if ``None``, as released.

    Returns:
        In torch's default dtype, of raw activations: multiply them by the factors released with the
        weights, if there are any.

    Raises:
        CheckpointError: ``conversion.names``, ``conversion.layout`` for shapes that do not fit
            together, ``conversion.nonfinite``, ``conversion.zero`` for an atom of size 0.

    Example:
        >>> given = l1_crosscoder((4, 4), 16, l1=0.1)
        >>> again = from_released_crosscoder(to_released_crosscoder(given), l1=0.1)
        >>> x = torch.randn(5, 2, 4)
        >>> bool(torch.allclose(again(x), given(x), atol=1e-5))
        True

    Source:
        Kissane, robertzk, Conmy & Nanda (2024), *Open Source Replication of Anthropic's Crosscoder
        paper for model-diffing*, released code: the layout.
    """
    if set(tensors) != set(NAMES):
        raise CheckpointError(
            f"a released crosscoder has the tensors {', '.join(NAMES)}: got "
            f"{', '.join(sorted(tensors))}.",
            code="conversion.names",
            context={"got": sorted(tensors)},
        )
    count, width, latents = _sizes(tensors)
    given = {name: tensors[name].to(torch.get_default_dtype()) for name in NAMES}
    if not all(bool(tensor.isfinite().all()) for tensor in given.values()):
        raise CheckpointError(
            "a released crosscoder of weights that are not all finite.", code="conversion.nonfinite"
        )
    pair = l1_crosscoder((width,) * count, latents, l1=l1, norm=norm)
    decoder, encoder = pair.model.decoder, pair.guide.posterior.encoder
    size = decoder.norm.size(given["W_dec"].norm(dim=-1))
    if not bool((size > 0).all()):
        raise CheckpointError(
            f"{int((size == 0).sum())} atoms are zero: got latent {int(size.argmin())} first, "
            "expected a size above 0, which is divided by. Leave those latents out.",
            code="conversion.zero",
            context={"latent": int(size.argmin())},
        )
    with torch.no_grad():
        encoder.W_enc.copy_((given["W_enc"].flatten(0, 1) * size).mT)
        encoder.b_enc.copy_(given["b_enc"] * size)
        decoder.W_dec.copy_(given["W_dec"].flatten(1) / size[:, None])
        decoder.b_dec.copy_(given["b_dec"].flatten())
    return pair


def to_released_crosscoder(pair: Autoencoder) -> dict[str, Tensor]:
    """The same tensors of a ReLU crosscoder, its normaliser folded into them.

    Args:
        pair: A crosscoder that reads and restores every layer, as :func:`vsae.l1_crosscoder` is.

    Returns:
        ``W_enc (layers, d, K)``, ``b_enc (K,)``, ``W_dec (K, layers, d)``, ``b_dec (layers, d)``,
        of raw activations.

    Raises:
        CheckpointError: ``conversion.source`` for a model the layout has no place for: a flat one,
            another posterior, layers of unequal width, layers that are given.

    Example:
        >>> given = to_released_crosscoder(l1_crosscoder((4, 4), 16, l1=0.1))
        >>> {name: tuple(tensor.shape) for name, tensor in given.items() if name[0] == "W"}
        {'W_enc': (2, 4, 16), 'W_dec': (16, 2, 4)}
    """
    if not isinstance(pair, LayeredAutoencoder):
        raise CheckpointError(
            f"the released layout is of layers: got the flat {type(pair).__name__} of "
            f"{pair.d_model} numbers, expected a crosscoder. LayeredAutoencoder.of(pair, layers) "
            "has some.",
            code="conversion.source",
        )
    posterior, model = pair.guide.posterior, pair.model
    plain = isinstance(posterior, ReLUPosterior) and isinstance(posterior.encoder, LayeredEncoder)
    even, whole = len(set(pair.layers)) == 1, len(model.targets) == len(pair.layers)
    if not (plain and even and whole and model.skip is None):
        raise CheckpointError(
            "the released layout is of an acausal ReLU crosscoder of layers of one width: got "
            f"{type(posterior).__name__}, layers {pair.layers}, targets {model.targets} and the "
            f"skip connection {model.skip}. Save it with vsae.save.",
            code="conversion.source",
        )
    encoder, decoder, count = posterior.encoder, model.decoder, len(pair.layers)
    mean, scale = _units(pair)
    reads = encoder.W_enc.detach() / scale
    writes = decoder.W_dec.detach() * scale
    bias = torch.zeros_like(mean) if decoder.b_dec is None else decoder.b_dec.detach() * scale
    return {
        "W_enc": reads.mT.unflatten(0, (count, -1)).contiguous(),
        "b_enc": encoder.b_enc.detach() - reads @ mean,
        "W_dec": writes.unflatten(1, (count, -1)).contiguous(),
        "b_dec": (bias + mean).unflatten(0, (count, -1)),
    }


def _units(pair: LayeredAutoencoder) -> tuple[Tensor, Tensor]:
    """Mean and scale of every column, of whatever affine normaliser."""
    if isinstance(pair.normalizer, IdentityNormalizer):
        zeros = torch.zeros_like(pair.W_dec[0])
        return zeros, torch.ones_like(zeros)
    units = getattr(pair.normalizer, "units", None)
    if units is None:
        raise CheckpointError(
            f"a {type(pair.normalizer).__name__} cannot be folded into the weights: expected a "
            "LayerNormalizer or none.",
            code="conversion.source",
        )
    return units(pair.model.targets)


def _sizes(tensors: Mapping[str, Tensor]) -> tuple[int, int, int]:
    """layers, d, K of tensors whose shapes fit together."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(shapes["W_enc"]) == 3:
        n, d, latents = shapes["W_enc"]
        fits = {
            "W_enc": (n, d, latents),
            "b_enc": (latents,),
            "W_dec": (latents, n, d),
            "b_dec": (n, d),
        }
        if shapes == fits and n > 1:
            return n, d, latents
    raise CheckpointError(
        f"shapes do not fit together: got {shapes}, expected W_enc (layers, d, K), b_enc (K,), "
        "W_dec (K, layers, d), b_dec (layers, d), of two layers or more.",
        code="conversion.layout",
        context={"shapes": shapes},
    )
