"""The causal inner product as units: activations whose covariance is the identity."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from priors.replicas import rows_times
from vsae.batches import check_finite
from vsae.errors import DataError, ShapeError
from vsae.normalizers import check_floats


class WhiteningNormalizer(nn.Module):
    r"""``(x - mean) W`` with :math:`W = Σ^{-1/2}`, symmetric: Euclidean geometry there is causal.

    .. math:: \langle Wu, Wv \rangle = u^\top Σ^{-1} v, \qquad
        \text{log-Jacobian} = \log\lvert\det W\rvert

    After :meth:`fit` the rows it was fitted to have mean 0, covariance ``I`` and
    :math:`\mathbb E\lVert x\rVert^2 = d`. Directions of little variance are amplified as much as
    others are shrunk: noise in them too. Nothing is clipped, regularised or left out.

    Args:
        mean: ``(d,)``, in activation units.
        whitening: ``W`` (d, d), in inverse activation units; any invertible matrix.

    Raises:
        ShapeError: ``normalizer.shape`` unless ``(d,)`` and ``(d, d)``.
        DataError: ``normalizer.rank`` for a singular matrix; ``data.nonfinite``.

    Shapes:
        ``mean (d,)``, ``whitening (d, d)``, its inverse ``unwhitening (d, d)``, ``log_det ()``;
        stacked, each with ``(R, 1)`` in front.

    Example:
        >>> x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
        >>> x = x @ torch.tensor([[5.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 2.0, 0.1]])
        >>> normalizer = WhiteningNormalizer.fit(x)
        >>> torch.allclose(normalizer(x).T @ normalizer(x) / 500, torch.eye(3), atol=1e-4)
        True

    Source:
        Park, Choe & Veitch (2024), *The Linear Representation Hypothesis*, 2311.03658; Muchane et
        al. (2025), *Incorporating Hierarchical Semantics in Sparse Autoencoder Architectures*,
        appendix B.
    """

    def __init__(self, mean: Float[Tensor, " d"], whitening: Tensor) -> None:
        super().__init__()
        if whitening.shape != (len(mean), len(mean)):
            raise ShapeError(
                f"a whitening of {tuple(whitening.shape)} for a mean of {tuple(mean.shape)}: "
                f"expected {(len(mean), len(mean))}.",
                code="normalizer.shape",
            )
        check_finite(mean[None])
        check_finite(whitening)
        exact = whitening.double()
        rank = int(torch.linalg.matrix_rank(exact))
        if rank < len(mean):
            raise _singular(rank, len(mean), "a whitening matrix")
        self.register_buffer("mean", mean)
        self.register_buffer("whitening", whitening)
        # Of the matrix as stored, rounding included: what forward does, inverse undoes.
        self.register_buffer("unwhitening", torch.linalg.inv(exact).to(whitening.dtype))
        self.register_buffer("log_det", torch.linalg.slogdet(exact).logabsdet.to(whitening.dtype))

    @property
    def d_model(self) -> int:
        """Width of an activation."""
        return self.mean.shape[-1]

    @classmethod
    def fit(cls, x: Tensor) -> "WhiteningNormalizer":
        """Centre the data ``(rows, d)`` and whiten it by ``Σ^-1/2``, found in float64.

        Raises:
            ShapeError: ``data.rank`` unless ``(rows, d)``.
            DataError: ``normalizer.rank`` if the covariance is singular to the rounding of ``x``,
                as it is with no more rows than columns; ``data.nonfinite``.
            DTypeError: ``data.dtype`` unless floats.
        """
        if x.dim() != 2:
            raise ShapeError(
                f"a normaliser is fitted to (rows, d): got {tuple(x.shape)}.", code="data.rank"
            )
        check_floats(x)
        rows, d_model = x.shape
        if rows <= d_model:
            raise _singular(max(rows - 1, 0), d_model, f"the covariance of {rows} rows")
        mean = x.mean(0, dtype=torch.float64)
        centred = x.double() - mean
        variance, axes = torch.linalg.eigh(centred.mT @ centred / rows)
        # Rounding of the entries of x has a variance too, and eigh an error: below is nothing.
        unit = max(d_model * torch.finfo(torch.float64).eps, torch.finfo(x.dtype).eps ** 2)
        rank = int((variance > unit * x.double().square().sum(-1).mean()).sum())
        if rank < d_model:
            raise _singular(rank, d_model, f"the covariance of {rows} rows")
        return cls(mean.to(x.dtype), (axes / variance.sqrt() @ axes.mT).to(x.dtype))

    def forward(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*batch d"]:
        return rows_times(x - self.mean, self.whitening)

    def inverse(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*batch d"]:
        return rows_times(x, self.unwhitening) + self.mean

    def log_jacobian(self, d_model: int) -> Tensor:
        """``log|det W|``, ``()`` or ``(R,)``: a normalised ELBO plus this is in raw units."""
        return self.log_det.squeeze(-1) if self.log_det.dim() else self.log_det


def _singular(rank: int, d_model: int, what: str) -> DataError:
    return DataError(
        f"cannot whiten: got {what} of rank {rank}, expected {d_model}. Give more rows than "
        "columns, drop coordinates that do not vary or repeat others, or use AffineNormalizer.",
        code="normalizer.rank",
        context={"rank": rank, "expected": d_model},
    )
