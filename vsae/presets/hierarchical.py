"""The H-SAE, as one call."""

from collections.abc import Callable, Sequence

from torch import nn

from priors.flat import FlatPrior
from vsae.autoencoder import Autoencoder
from vsae.biorthogonality import Biorthogonality
from vsae.decoders import LinearDecoder
from vsae.encoders import DictionaryEncoder
from vsae.errors import ConfigError
from vsae.guides import RoutedGuide
from vsae.hierarchical_decoder import HierarchicalDecoder
from vsae.hierarchical_encoder import HierarchicalEncoder
from vsae.models.hierarchical import HierarchicalAutoencoder
from vsae.posteriors.routed import RoutedPosterior
from vsae.presets.topk import HALF


def hierarchical_autoencoder(
    d_model: int,
    roots: int,
    *,
    k: int,
    branching: Sequence[int] = (16,),
    subspaces: Sequence[int] = (4,),
    top_weight: float = 0.1,
    orthogonality: float = 0.0,
    prior: nn.Module | None = None,
    noise: float | nn.Module = HALF,
    normalizer: nn.Module | None = None,
    bias: bool = True,
    encoder: Callable[[LinearDecoder], nn.Module] = DictionaryEncoder,
) -> Autoencoder:
    r"""The H-SAE: ``k`` roots per row, and in each one's subspace one child, level by level.

    .. math:: \lVert x - \hat x \rVert^2 + β \lVert x - \hat x^{top} \rVert^2
        + \frac{λ}{m^2 - m} \sum_{i \ne j} \langle E_i, d_j \rangle^2

    Without levels below the first, and with both weights 0, it is :func:`vsae.topk_autoencoder`.

    Args:
        d_model: Width :math:`d` of an activation.
        roots: Latents of the first level, :math:`m`.
        k: Roots per row.
        branching: Children of every latent of a level, one number per level below the first.
        subspaces: Dimensions of the subspace a latent gives its children, as many.
        top_weight: β, of the reconstruction by roots alone; 0 for none.
        orthogonality: λ, of roots' rows and other roots' atoms; 0 for none.
        prior: Over all latents of the tree, with a sparse form; :class:`priors.FlatPrior`, no
            penalty, if ``None``. :class:`priors.LaplacePrior` is ℓ1 on what is selected.
        noise: σ in (normalised) activation units, or, with ``top_weight=0``, a module ``() -> σ``;
            it matters only relative to a prior's penalty and to ``orthogonality``.
        normalizer: Units the model works in.
        bias: Whether the decoder has one; the source has none.
        encoder: Of the roots.

    Raises:
        ConfigError: ``tree.size`` for a level without latents, ``hierarchy.levels`` unless there
            are as many subspaces as levels below the first, ``select.k`` unless ``0 < k <= roots``,
            ``hierarchy.weight``, ``hierarchy.noise``, ``biorthogonality.setting``.
        ShapeError: ``hierarchy.subspace`` for a subspace greater than what is around it.

    Example:
        >>> import torch
        >>> sae = hierarchical_autoencoder(6, 8, k=3, branching=(4,), subspaces=(2,))
        >>> sae.encode(torch.ones(5, 6)).shape, sae.W_dec.shape
        (torch.Size([5, 40]), torch.Size([40, 6]))

    Source:
        Muchane, Richardson, Park & Veitch (2025), *Incorporating Hierarchical Semantics in Sparse
        Autoencoder Architectures*, 2506.01197.
    """
    if not 0 <= top_weight < float("inf"):
        raise ConfigError(
            f"the roots' own reconstruction needs a weight of at least 0: got {top_weight=}.",
            code="hierarchy.weight",
        )
    if top_weight and not isinstance(noise, float | int):
        raise ConfigError(
            f"the roots' own reconstruction needs a fixed noise: got {type(noise).__name__}. Give "
            "a number, or top_weight=0.",
            code="hierarchy.noise",
        )
    top = LinearDecoder(roots, d_model, bias=bias)
    decoder = HierarchicalDecoder(top, branching=branching, subspaces=subspaces)
    routes = HierarchicalEncoder(decoder, top=encoder(top))
    belief = Biorthogonality(routes.top, top, weight=orthogonality) if orthogonality else None
    posterior = RoutedPosterior(routes, k=k)
    model = HierarchicalAutoencoder(
        decoder,
        FlatPrior(decoder.latents) if prior is None else prior,
        k=k,
        noise=noise,
        top_noise=noise / top_weight**0.5 if top_weight else None,
        orthogonality=belief,
    )
    return Autoencoder(model, RoutedGuide(posterior), normalizer)
