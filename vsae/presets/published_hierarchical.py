"""The H-SAE as its paper defines it, and as its code was released."""

from collections.abc import Callable

import torch
from torch import nn

from priors.flat import FlatPrior
from priors.laplace import LaplacePrior
from priors.tree import Tree
from vsae.autoencoder import Autoencoder
from vsae.biorthogonality import (
    AbstractBiorthogonality,
    FrobeniusBiorthogonality,
    ShippedBiorthogonality,
)
from vsae.decoders import LinearDecoder
from vsae.errors import ConfigError
from vsae.guides import RoutedGuide
from vsae.hierarchical_decoder import HierarchicalDecoder
from vsae.hierarchical_encoder import HierarchicalEncoder
from vsae.leaky_threshold import LeakyThreshold
from vsae.models.hierarchical import HierarchicalAutoencoder
from vsae.posteriors.routed_losers import RoutedLosersPosterior
from vsae.presets.topk import HALF

HE_NORM = 2**0.5  # of a row of E ~ U(±√(6/d)), on average
SLOPE = 0.01  # below the threshold, of children in the released code; the paper gives no number


def paper_hierarchical_autoencoder(
    d_model: int,
    roots: int,
    *,
    k: int,
    children: int = 16,
    subspace: int = 4,
    top_weight: float = 0.1,
    orthogonality: float = 0.1,
    l1: float = 1e-3,
    width: int | None = None,
    normalizer: nn.Module | None = None,
) -> Autoencoder:
    r"""The H-SAE of the paper's equations, two levels, without a bias.

    .. math:: \lVert x - \hat x \rVert^2 + β \lVert x - \hat x^{top} \rVert^2 + λ_1
        \sum_{\text{lost}} |z| + λ_2 \frac{\lVert E D - \mathrm{diag}(E D) \rVert_F}{m^2 - m}

    Both levels pass scores from :math:`θ = 1/\sqrt d` on, others times a small slope; ℓ1 is on the
    codes that lost, as the text says (algorithm 1 has it on those that won: give
    :class:`vsae.HierarchicalAutoencoder` a :class:`priors.LaplacePrior`). Ours are: that a child of
    a parent that is not positive is empty, the number for the slope, and, unless ``width`` is the
    number of roots, that only the next best roots pay.

    Args:
        d_model: Width :math:`d` of an activation; the paper's have unit norm.
        roots: Latents of the first level, :math:`m`.
        k: Roots per row.
        children: Of each root, :math:`a`.
        subspace: :math:`s`.
        top_weight: β; positive.
        orthogonality: :math:`λ_2`.
        l1: :math:`λ_1`; positive.
        width: Roots whose codes pay ℓ1, ``k … m``; ``min(4k, m)`` if ``None``.
        normalizer: Units the model works in.

    Raises:
        ConfigError: ``tree.size``, ``select.k``, ``posterior.width``, ``hierarchy.published`` for a
            weight that is not positive.
        ShapeError: ``hierarchy.subspace``.

    Source:
        Muchane, Richardson, Park & Veitch (2025), 2506.01197, eq. 2.1, 3.1-3.4.
    """
    leaky = LeakyThreshold(d_model**-0.5, slope=SLOPE)
    return _published(
        Tree(roots, (children,)),
        d_model,
        k=k,
        subspace=subspace,
        width=min(4 * k, roots) if width is None else width,
        activations=(leaky, leaky),
        weights=(top_weight, orthogonality, l1),
        belief=FrobeniusBiorthogonality,
        selected_pay=False,
        normalizer=normalizer,
    )


def shipped_hierarchical_autoencoder(
    d_model: int,
    roots: int,
    *,
    k: int,
    children: int = 16,
    subspace: int = 4,
    top_weight: float = 0.1,
    orthogonality: float = 0.1,
    l1: float = 1e-3,
    width: int | None = None,
    normalizer: nn.Module | None = None,
) -> Autoencoder:
    r"""The H-SAE of the released code: same loss, selection and gradients, number by number.

    Roots are cut off hard below :math:`θ = 1/\sqrt d`, children leak, with the same θ; *every* code
    pays ℓ1, all children of chosen roots included; and the orthogonality is
    :class:`vsae.ShippedBiorthogonality`. With ``fit(clip=0.75, lr=…)`` a step is the released one,
    gradients along atoms removed and norms restored; its schedules and its unit-norm rows are the
    caller's. A child that leaks is small and not zero: count what is active from the threshold on,
    as in ``metrics.l0(codes, threshold=d_model**-0.5)``.

    Args:
        d_model: Width :math:`d` of an activation; the source's have unit norm.
        roots: Latents of the first level, :math:`m`.
        k: Roots per row.
        children: Of each root, :math:`a`.
        subspace: :math:`s`.
        top_weight: β; positive.
        orthogonality: Of the released code.
        l1: Of the released code; positive.
        width: Roots that are looked at, ``k … m``; all of them if ``None``, which is exact, and
            makes ``(B, m)`` arrays. At scale give a number above that of the roots that fire: rows
            in which ``k`` fire are then exact, in others the empty slots are other roots', whose
            children pay ℓ1.
        normalizer: Units the model works in.

    Raises:
        ConfigError: ``tree.size``, ``select.k``, ``posterior.width``, ``hierarchy.published`` for a
            weight that is not positive.
        ShapeError: ``hierarchy.subspace``.

    Source:
        Muchane, Richardson, Park & Veitch (2025), 2506.01197, released code.
    """
    threshold = d_model**-0.5
    return _published(
        Tree(roots, (children,)),
        d_model,
        k=k,
        subspace=subspace,
        width=roots if width is None else width,
        activations=(LeakyThreshold(threshold), LeakyThreshold(threshold, slope=SLOPE)),
        weights=(top_weight, orthogonality, l1),
        belief=ShippedBiorthogonality,
        selected_pay=True,
        normalizer=normalizer,
    )


def _published(
    tree: Tree,
    d_model: int,
    *,
    k: int,
    subspace: int,
    width: int,
    activations: tuple[nn.Module, nn.Module],
    weights: tuple[float, float, float],
    belief: Callable[..., AbstractBiorthogonality],
    selected_pay: bool,
    normalizer: nn.Module | None,
) -> Autoencoder:
    top_weight, orthogonality, l1 = weights
    if not (top_weight > 0 and l1 > 0):
        raise ConfigError(
            f"the published loss has positive weights: got {top_weight=}, {l1=}. Build "
            "hierarchical_autoencoder for one without a term.",
            code="hierarchy.published",
        )
    top = LinearDecoder(tree.roots, d_model, bias=False)
    decoder = HierarchicalDecoder(top, branching=tree.branching, subspaces=(subspace,))
    encoder = HierarchicalEncoder(decoder)
    encoder.top.b_enc.requires_grad_(False)  # published without biases; it stays zero
    with torch.no_grad():
        encoder.top.W_enc.mul_(HE_NORM)
    posterior = RoutedLosersPosterior(
        encoder, k=k, width=width, activation=activations[0], child_activation=activations[1]
    )
    laplace = LaplacePrior(tree.latents, scale=1 / l1)
    model = HierarchicalAutoencoder(
        decoder,
        laplace if selected_pay else FlatPrior(tree.latents),
        k=k,
        noise=HALF,
        top_noise=HALF / top_weight**0.5,
        losers=laplace,
        num_losers=posterior.num_losers,
        orthogonality=belief(encoder.top, decoder.top, weight=orthogonality),
    )
    return Autoencoder(model, RoutedGuide(posterior), normalizer)
