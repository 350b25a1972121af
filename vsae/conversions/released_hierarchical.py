"""The array layout of the released H-SAE, a JAX module, read and written."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from vsae.autoencoder import Autoencoder
from vsae.errors import CheckpointError
from vsae.leaky_threshold import LeakyThreshold
from vsae.models.hierarchical import HierarchicalAutoencoder
from vsae.normalizers import IdentityNormalizer
from vsae.posteriors.routed_losers import RoutedLosersPosterior
from vsae.presets.published_hierarchical import SLOPE, shipped_hierarchical_autoencoder

NAMES = ("E", "D", "W_down", "W_up", "E_low", "D_low")


def from_released_hierarchical(
    arrays: Mapping[str, np.ndarray],
    *,
    k: int,
    top_weight: float = 0.1,
    orthogonality: float = 0.1,
    l1: float = 1e-3,
    width: int | None = None,
) -> Autoencoder:
    r"""The released H-SAE with these weights, as :func:`vsae.shipped_hierarchical_autoencoder`.

    Args:
        arrays: ``E (m, d)``, ``D (d, m)``, ``W_down (m, s, d)``, ``W_up (m, d, s)``,
            ``E_low (m, a, s)``, ``D_low (m, s, a)``, floating point; other names are refused. The
            released configuration has no bias.
        k: Roots per row.
        top_weight: β.
        orthogonality: Weight of the released penalty.
        l1: Weight of ℓ1 on every code.
        width: Roots whose codes pay ℓ1; all of them if ``None``.

    Returns:
        In torch's default dtype. Atoms are taken as they are: their norms are restored by the first
        training step.

    Raises:
        CheckpointError: ``conversion.names``, ``conversion.layout`` for shapes that do not fit
            together, ``conversion.dtype``, ``conversion.nonfinite``.
        ConfigError: As :func:`vsae.shipped_hierarchical_autoencoder`.

    Example:
        >>> given = shipped_hierarchical_autoencoder(6, 8, k=3, children=3, subspace=2)
        >>> again = from_released_hierarchical(to_released_hierarchical(given), k=3)
        >>> x = torch.randn(5, 6)
        >>> bool(torch.equal(again(x), given(x)))
        True

    Source:
        Muchane, Richardson, Park & Veitch (2025), 2506.01197, released code.
    """
    if set(arrays) != set(NAMES):
        raise CheckpointError(
            f"a released H-SAE has the arrays {', '.join(NAMES)}: got {', '.join(sorted(arrays))}.",
            code="conversion.names",
            context={"got": sorted(arrays)},
        )
    weights = {name: _native(name, np.asarray(array)) for name, array in arrays.items()}
    roots, d_model, children, subspace = _sizes(weights)
    autoencoder = shipped_hierarchical_autoencoder(
        d_model,
        roots,
        k=k,
        children=children,
        subspace=subspace,
        top_weight=top_weight,
        orthogonality=orthogonality,
        l1=l1,
        width=width,
    )
    with torch.no_grad():
        for name, parameter in _parameters(autoencoder).items():
            parameter.copy_(_rows(name, torch.from_numpy(weights[name])).reshape(parameter.shape))
    return autoencoder


def to_released_hierarchical(autoencoder: Autoencoder) -> dict[str, np.ndarray]:
    """The same arrays of a two-level H-SAE without biases.

    Raises:
        CheckpointError: ``conversion.source`` for a model the layout has no place for.
    """
    model = autoencoder.model
    if not isinstance(model, HierarchicalAutoencoder) or model.decoder.tree.depth != 2:
        raise CheckpointError(
            f"the released layout is of a two-level H-SAE: got {type(model).__name__}.",
            code="conversion.source",
        )
    encoder = autoencoder.guide.posterior.encoder
    if not _as_released(autoencoder.guide.posterior, model.decoder.d_model):
        raise CheckpointError(
            "the released code reads its arrays with thresholds of its own: got "
            f"{type(autoencoder.guide.posterior).__name__}, expected the posterior of "
            "shipped_hierarchical_autoencoder. Another one would be another function.",
            code="conversion.source",
        )
    if not isinstance(autoencoder.normalizer, IdentityNormalizer):
        raise CheckpointError(
            "the released layout has no normaliser: got "
            f"{type(autoencoder.normalizer).__name__}. Train on activations it was applied to, "
            "with normalizer=None.",
            code="conversion.source",
        )
    if model.decoder.b_dec is not None or bool(encoder.top.b_enc.any()):
        raise CheckpointError(
            "the released layout has no biases: got a decoder's or an encoder's. Fold them into "
            "the data, or save the autoencoder with vsae.save.",
            code="conversion.source",
        )
    m, s = model.decoder.tree.roots, model.decoder.subspaces[0]
    found = {n: p.detach().cpu().clone() for n, p in _parameters(autoencoder).items()}
    inner = {n: found[n].view(m, -1, found[n].shape[-1]) for n in ("W_up", "E_low", "D_low")}
    found |= inner | {"W_down": found["W_down"].view(m, s, -1)}
    return {name: _rows(name, array).contiguous().numpy() for name, array in found.items()}


def _as_released(posterior: nn.Module, d_model: int) -> bool:
    """Whether roots and children pass as they do in the released code."""
    if not isinstance(posterior, RoutedLosersPosterior):
        return False
    found = posterior.activation, posterior.child_activation
    if not all(isinstance(part, LeakyThreshold) for part in found):
        return False
    settings = [(part.threshold, part.slope) for part in found]
    return settings == [(d_model**-0.5, 0.0), (d_model**-0.5, SLOPE)]


def _native(name: str, array: np.ndarray) -> np.ndarray:
    """A copy in the dtype of parameters and the byte order of this machine, all of it finite."""
    dtype = torch.empty(0).numpy().dtype
    if array.dtype.kind != "f":
        raise CheckpointError(
            f"{name} holds {array.dtype} numbers, expected float16, float32 or float64. Cast them: "
            "array.astype(numpy.float32).",
            code="conversion.dtype",
            context={"array": name},
        )
    with np.errstate(over="ignore"):
        copy = array.astype(dtype)
    if not np.isfinite(copy).all():
        raise CheckpointError(
            f"{name} holds {array.dtype} numbers that are not all finite as {dtype}.",
            code="conversion.nonfinite",
            context={"array": name},
        )
    return copy


def _rows(name: str, array: Tensor) -> Tensor:
    """Decoders are stored by column there; their own inverse."""
    return array.mT if name in ("D", "W_up", "D_low") else array


def _parameters(autoencoder: Autoencoder) -> dict[str, Tensor]:
    decoder, encoder = autoencoder.model.decoder, autoencoder.guide.posterior.encoder
    return {
        "E": encoder.top.W_enc,
        "D": decoder.top.W_dec,
        "W_down": encoder.below[0].W_down,
        "W_up": decoder.below[0].W_up,
        "E_low": encoder.below[0].W_child,
        "D_low": decoder.below[0].atoms.W_dec,
    }


def _sizes(weights: Mapping[str, np.ndarray]) -> tuple[int, int, int, int]:
    """m, d, a, s of arrays whose shapes fit together."""
    shapes = {name: array.shape for name, array in weights.items()}
    if len(shapes["E"]) == 2 and len(shapes["E_low"]) == 3:
        (m, d), (_, a, s) = shapes["E"], shapes["E_low"]
        fits = {
            "E": (m, d),
            "D": (d, m),
            "W_down": (m, s, d),
            "W_up": (m, d, s),
            "E_low": (m, a, s),
            "D_low": (m, s, a),
        }
        if shapes == fits:
            return m, d, a, s
    raise CheckpointError(
        f"shapes do not fit together: got {shapes}, expected E (m, d), D (d, m), W_down (m, s, d), "
        "W_up (m, d, s), E_low (m, a, s), D_low (m, s, a). Decoders are stored by column.",
        code="conversion.layout",
        context={"shapes": shapes},
    )
