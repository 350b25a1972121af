"""Whether near codes belong to near things: rankings, with the query itself left out."""

import torch
from jaxtyping import Float
from torch import Tensor

from vsae.errors import ShapeError


def _check(scores: Tensor, relevance: Tensor, k: int) -> None:
    square = scores.dim() == 2 and scores.shape[0] == scores.shape[1]
    if not square or scores.shape != relevance.shape or not 0 < k < len(scores):
        raise ShapeError(
            f"retrieval needs two (N, N) matrices and 0 < k < N: got {tuple(scores.shape)}, "
            f"{tuple(relevance.shape)} and {k=}.",
            code="retrieval.shape",
        )


def _ranked(scores: Tensor, relevance: Tensor, k: int) -> Tensor:
    _check(scores, relevance, k)
    scores = scores.double().clone().fill_diagonal_(-torch.inf)
    return relevance.double().gather(-1, scores.topk(k, dim=-1).indices)


def precision_at_k(
    scores: Float[Tensor, "N N"], relevance: Float[Tensor, "N N"], *, k: int
) -> Float[Tensor, " N"]:
    r"""Share of each query's ``k`` nearest that are relevant (``relevance > 0``), self excluded.

    The mean over queries of a random ranking is ``mean(#relevant) / (N - 1)``: print it beside.

    Args:
        scores: Similarity of codes; the greater, the nearer.
        relevance: Of item ``j`` to query ``i``; binary here (``> 0``).
        k: Length of the ranking.

    Example:
        >>> eye = torch.eye(4).roll(1, 0)
        >>> precision_at_k(eye, eye, k=1).mean().item()
        1.0
    """
    return (_ranked(scores, relevance, k) > 0).double().mean(-1)


def ndcg_at_k(
    scores: Float[Tensor, "N N"], relevance: Float[Tensor, "N N"], *, k: int
) -> Float[Tensor, " N"]:
    r"""Discounted gain of each query's ranking over that of the ideal one, self excluded.

    .. math:: \mathrm{NDCG}_n = \sum_{r \le k} \frac{rel_{n,r}}{\log_2(r + 1)} \Big/ \mathrm{IDCG}_n

    Relevance is graded as given, and must not be negative; a query without relevant items scores 0.

    Source:
        Järvelin & Kekäläinen (2002), *Cumulated gain-based evaluation of IR techniques*.
    """
    gains = _ranked(scores, relevance, k)
    ideal = relevance.double().clone().fill_diagonal_(0.0).topk(k, dim=-1).values
    discount = torch.arange(2, k + 2, dtype=torch.float64, device=gains.device).log2().reciprocal()
    best = (ideal * discount).sum(-1)
    return torch.where(best > 0, (gains * discount).sum(-1) / best, 0.0)
