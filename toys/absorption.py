"""Feature absorption, exactly: the true and the absorbed autoencoder of a toy with a hierarchy."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from priors.errors import ConfigError
from toys.forest import Forest
from toys.magnitudes import ConstantMagnitude
from toys.tree_cases import TreeCase, TreeToy
from vsae.autoencoder import Autoencoder
from vsae.presets import l1_autoencoder


def absorption_case(
    *,
    parent: float = 0.3,
    child: float = 0.4,
    d_model: int = 8,
    lengths: tuple[float, ...] = (1.0,),
) -> TreeCase:
    """One parent and one child, orthonormal, without noise, of constant size.

    Args:
        parent: The parent's rate.
        child: The child's probability given its parent.
        d_model: Dimension of the activations, >= 2.
        lengths: Of both, or of the parent and of the child, in activation units.

    Example:
        >>> round(absorption_case(parent=0.5, child=0.2).forest.expected_l0, 6)
        0.6

    Source:
        Chanin et al. (2024), *A is for Absorption*, 2409.14507, and their toy models.
    """
    forest = Forest(parents=(-1, 0), probability=(parent, child), exclusive=(False, False))
    return TreeCase(forest=forest, d_model=d_model, lengths=lengths)


def true_solution(toy: TreeToy, *, margin: float = 0.1) -> Autoencoder:
    r"""The autoencoder whose latents are the features: atom and encoder :math:`d_i`.

    Args:
        toy: With an orthonormal dictionary and constant sizes.
        margin: As of :func:`absorbed_solution`.

    Raises:
        ConfigError: ``toy.absorption`` for other toys.

    Example:
        >>> toy = absorption_case().build(torch.Generator().manual_seed(0))
        >>> pair = true_solution(toy)
        >>> torch.allclose(pair.encode(toy.concepts), torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
        True
    """
    _check(toy)
    return _autoencoder(toy, torch.eye(toy.forest.size), toy.offsets, margin)


def absorbed_solution(toy: TreeToy, *, margin: float = 0.1) -> Autoencoder:
    r"""The autoencoder whose latents are the *deepest* features: as exact, and sparser.

    .. math:: \mathrm{enc}_i = d_i - \sum_{c\,:\,π(c) = i} d_c, \qquad \mathrm{dec}_i = \ell_i

    in units of each feature's length, atoms then scaled to norm 1. A parent's latent is silent
    where a child fires, whose atom has absorbed the parent's direction. The error is zero; expected
    L0 falls by the sum of the rates of all children, to that of the roots alone; a parent's latent
    finds its feature with recall :math:`1 - P(\text{a child} \mid \text{parent})`.

    Args:
        toy: With an orthonormal dictionary and constant sizes; siblings exclude each other.
        margin: Share ``t`` of an active code below which a latent is off: codes are
            ``relu((1 + t) u - t)`` of what the weights above give, 0 or 1 in units of the length.
            It keeps rounding (and small noise) from counting as active; 0 leaves it out.

    Raises:
        ConfigError: ``toy.absorption`` for other toys.

    Example:
        >>> toy = absorption_case().build(torch.Generator().manual_seed(0))
        >>> (absorbed_solution(toy).encode(toy.concepts) > 0).int().tolist()
        [[1, 0], [0, 1]]

    Source:
        Chanin et al. (2024), 2409.14507; for whole trees, ours.
    """
    _check(toy)
    forest = toy.forest
    for node in range(forest.size):
        if len(forest.children(node)) > 1 and not forest.excludes(node):
            raise ConfigError(
                f"the children of node {node} may fire together: expected siblings that exclude "
                "each other, or one child. No latent can absorb their parent twice.",
                code="toy.absorption",
                context={"node": node},
            )
    parents, above = toy.parents, torch.eye(forest.size)
    children = (parents >= 0).nonzero().squeeze(1)
    above[parents[children], children] = -1.0
    return _autoencoder(toy, above, toy.concepts, margin)


def _check(toy: TreeToy) -> None:
    rows = toy.dictionary.double()
    overlap = (rows @ rows.mT - torch.eye(len(rows), dtype=rows.dtype)).abs().max().item()
    if overlap > 1e-5 or not isinstance(toy.law.magnitude, ConstantMagnitude):
        raise ConfigError(
            f"no exact solution: got a dictionary orthonormal up to {overlap:.2g} and "
            f"{toy.law.magnitude}, expected orthonormal directions and a ConstantMagnitude.",
            code="toy.absorption",
            context={"overlap": overlap},
        )


def _autoencoder(
    toy: TreeToy, combine: Float[Tensor, "F F"], meaning: Float[Tensor, "F d"], margin: float
) -> Autoencoder:
    """Latent ``i`` reads ``Σ_j combine_ij f_j`` and adds ``meaning_i``."""
    features, d_model = meaning.shape
    autoencoder = l1_autoencoder(d_model, features, l1=1.0)
    length = meaning.norm(dim=-1)
    read = toy.dictionary / toy.offsets.norm(dim=-1, keepdim=True)  # f_j of an activation
    encoder, decoder = autoencoder.guide.posterior.encoder, autoencoder.model.decoder
    with torch.no_grad():
        encoder.W_enc.copy_((1 + margin) * ((combine.to(read.dtype) @ read).mT * length))
        encoder.b_enc.copy_(-margin * length)
        decoder.W_dec.copy_(normalize(meaning, dim=-1))
    return autoencoder
