"""Which layers of its input drive a latent: by its weights, and by masking a layer at a time."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vsae.batches import check_finite
from vsae.errors import EmptyDataError, ShapeError
from vsae.metrics.layer_variance import concatenated, layer_views

ROWS = 8192  # encoded at a time


def layer_contributions(
    x: Float[Tensor, "rows ..."], encoder: Float[Tensor, "width K"], layers: Sequence[int]
) -> Float[Tensor, "K n"]:
    r"""Each input layer's share of a latent's pre-activation, by the variance of its part.

    .. math:: a_{kl} = \langle e_{kl}, x^l\rangle, \qquad
        p_{kl} = \mathrm{Var}\, a_{kl} \Big/ \sum_m \mathrm{Var}\, a_{km}

    over all rows. Covariances between the parts are left out, so that shares are not negative; the
    residual streams of neighbouring layers are alike, and an encoder that reads their *difference*
    counts as reading both. What a latent loses without a layer is :func:`layer_masking`. nan for a
    latent that reads nothing.

    Args:
        x: What the encoder sees, in *its* units (``pair.normalizer(pair.rows(x))``):
            ``(N, n, d)`` or ``(N, Σ d_l)``.
        encoder: Its matrix, a column per latent (``pair.W_enc``).
        layers: Widths.

    Raises:
        ShapeError: ``metrics.layers``.
        EmptyDataError, NonFiniteDataError: ``data.empty``, ``data.nonfinite``.

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [2.0, 2.0]])
        >>> layer_contributions(x, torch.tensor([[1.0, 1.0], [0.0, 1.0]]), (1, 1)).tolist()
        [[1.0, 0.0], [0.5, 0.5]]
    """
    views = layer_views(_checked(x, layers).detach().double(), layers)
    parts = layer_views(encoder.detach().double().mT, layers)
    variances = []
    for rows, weights in zip(views, parts, strict=True):
        centred = rows - rows.mean(0)
        covariance = centred.mT @ centred / len(rows)
        variances.append(((weights @ covariance) * weights).sum(-1))
    found = torch.stack(variances, -1)
    return found / found.sum(-1, keepdim=True)


@dataclass(frozen=True)
class LayerMasking:
    """What becomes of each latent when a layer of its input is masked.

    Args:
        kept: ``(K, n)``, the share of its activation that a latent keeps on the rows on which it
            fired; more than 1 if it grows. nan for a latent that never fires.
        changed: ``(K, n)``, the mean absolute change of its activation on those rows, over its mean
            activation there. nan likewise.
        overlap: ``(K, n)``, Jaccard index of the rows on which it fires, before and after.
        cosine: ``(K, n)``, of its activations over all rows, before and after; 0 if it never fires.
    """

    kept: Float[Tensor, "K n"]
    changed: Float[Tensor, "K n"]
    overlap: Float[Tensor, "K n"]
    cosine: Float[Tensor, "K n"]

    @property
    def shares(self) -> Float[Tensor, "K n"]:
        """Each layer's share of what masking changes, ``changed`` made of sum 1.

        nan where no layer changes anything: each is made up for by the others.
        """
        return self.changed / self.changed.sum(-1, keepdim=True)


def layer_masking(
    encode: Callable[[Tensor], Tensor], x: Float[Tensor, "rows ..."], layers: Sequence[int]
) -> LayerMasking:
    r"""Encode anew with one layer at a time replaced by its mean, and compare the codes.

    .. math:: \mathrm{kept}_{kl} = \frac{\sum_{n:\,c_{nk} \ne 0} |c_{nk}^{(l)}|}
        {\sum_n |c_{nk}|}, \qquad
        \mathrm{changed}_{kl} = \frac{\sum_{n:\,c_{nk} \ne 0} |c_{nk} - c_{nk}^{(l)}|}
        {\sum_n |c_{nk}|}, \qquad
        p_{kl} = \frac{\mathrm{changed}_{kl}}{\sum_m \mathrm{changed}_{km}}

    with :math:`c^{(l)}` the code of x with layer l at its mean over the rows. The *effective number
    of layers that drive a latent* is ``exp H(p_k)``, :func:`effective_layers` of
    :attr:`LayerMasking.shares`: 1 if it hangs on one layer, n if it needs all alike. It sees the
    guide as it is, with selection among latents (TopK) included, where :func:`layer_contributions`
    sees only the matrix.

    Demou et al. report a *functional coherence* by which latents of standard crosscoders are driven
    by one or two layers though their decoder norms are even. Only their abstract was at hand: the
    formula here is this library's, and its numbers are not to be compared with theirs.

    Args:
        encode: Maps rows as given to codes ``(N, K)``, each row on its own (``pair.encode``).
        x: ``(N, n, d)`` or ``(N, Σ d_l)``, in raw units.
        layers: Widths.

    Raises:
        ShapeError: ``metrics.layers``.
        EmptyDataError, NonFiniteDataError: ``data.empty``, ``data.nonfinite``.

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [4.0, 4.0]])
        >>> found = layer_masking(lambda rows: rows[:, :1], x, (1, 1))
        >>> found.kept.tolist(), found.shares.tolist()
        ([[0.5, 1.0]], [[1.0, 0.0]])

    Source:
        After Demou et al. (2026), *fmxcoders*, 2605.09438 (the idea).
    """
    flat = _checked(x, layers).detach()
    means = layer_views(flat.double().mean(0), layers)
    shape, sums = (-1, *x.shape[1:]), []
    for rows in flat.split(ROWS):
        clean = encode(rows.view(shape)).detach().double()
        parts = [_compared(clean, encode(masked.view(shape))) for masked in _masked(rows, means)]
        sums.append(torch.stack(parts, -1))
    still, moved, total, both, either, product, square, other = torch.stack(sums).sum(0)
    norms = (square * other).sqrt()
    cosine = product / torch.where(norms > 0, norms, 1.0)
    return LayerMasking(still / total, moved / total, both / either, cosine)


def _masked(rows: Tensor, means: Sequence[Tensor]) -> Iterator[Tensor]:
    """The rows with each layer in turn at its mean."""
    for layer, mean in enumerate(means):
        views = list(rows.split([len(m) for m in means], -1))
        views[layer] = mean.to(rows).expand_as(views[layer])
        yield torch.cat(views, -1)


def _compared(clean: Tensor, masked: Tensor) -> Float[Tensor, "sums K"]:
    masked = masked.detach().double()
    fires, still = clean != 0, masked != 0
    return torch.stack(
        [
            torch.where(fires, masked.abs(), 0.0).sum(0),
            torch.where(fires, (clean - masked).abs(), 0.0).sum(0),
            clean.abs().sum(0),
            (fires & still).double().sum(0),
            (fires | still).double().sum(0),
            (clean * masked).sum(0),
            clean.square().sum(0),
            masked.square().sum(0),
        ]
    )


def _checked(x: Tensor, layers: Sequence[int]) -> Tensor:
    if not len(x):
        raise EmptyDataError("no rows: got 0, expected >= 1.", code="data.empty")
    if x.dim() not in (2, 3):
        raise ShapeError(
            f"rows of layers are (N, n, d) or (N, Σ d_l): got {tuple(x.shape)}.",
            code="metrics.layers",
        )
    flat = concatenated(x, layers)
    check_finite(flat)
    return flat
