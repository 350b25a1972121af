"""Precision and discounted gain of rankings in a collection, each beside what chance gives."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Generator, Tensor

from vsae.errors import ShapeError
from vsae.metrics.bootstrap import bootstrap_interval, check_resamples
from vsae.metrics.ranking import nearest_rows
from vsae.metrics.relevance import check_relevance


@dataclass(frozen=True, kw_only=True)
class RetrievalScore:
    """A mean over queries, beside three things to hold it against.

    Args:
        value: The mean over queries.
        interval: 95 % bootstrap interval over queries, the collection being what it is.
        chance: The exact expectation of ``value`` if every ranking were uniformly random.
        null_mean: Its mean when the collection's relevance is that of other rows.
        null_interval: Its 2.5 % and 97.5 % quantiles then.
    """

    value: float
    interval: tuple[float, float]
    chance: float
    null_mean: float
    null_interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """Precision@k and NDCG@k of one ranking of every row.

    ``precision`` counts what is relevant at all, ``ndcg`` how much it is: the two share a relevance
    only if that is binary. ``relevant`` is the mean number of relevant rows per query.
    """

    k: int
    precision: RetrievalScore
    ndcg: RetrievalScore
    relevant: float


def precision_chance(relevance: sparse.sparray) -> Float[Tensor, " N"]:
    r"""Expected precision of a uniformly random ranking of the others, :math:`|T(n)| / (N - 1)`.

    It does not depend on ``k``: precision that grows with ``k`` because T grows with it is chance.

    Args:
        relevance: ``(N, N)``, sparse; relevant is what is positive, the diagonal is left out.

    Raises:
        ShapeError: ``retrieval.relevance``.

    Example:
        >>> precision_chance(sparse.eye_array(5, k=1)).tolist()
        [0.25, 0.25, 0.25, 0.25, 0.0]
    """
    found = check_relevance(relevance)
    return torch.from_numpy(np.diff(found.indptr) / (found.shape[0] - 1))


def ndcg_chance(relevance: sparse.sparray, *, k: int) -> Float[Tensor, " N"]:
    r"""Expected NDCG@k of a uniformly random ranking of the others, exactly.

    .. math:: \mathrm E\,\mathrm{NDCG}_n = \frac{\sum_{j \ne n} rel_{nj}}{N - 1}
        \sum_{r \le k} \frac1{\log_2(r + 1)} \Big/ \mathrm{IDCG}_n

    since each place holds each of the others equally often, and the ideal does not depend on the
    ranking. 0 for a query without relevant rows, as its NDCG is.

    Args:
        relevance: ``(N, N)``, sparse, graded, not negative; the diagonal is left out.
        k: Length of the ranking.

    Raises:
        ShapeError: ``retrieval.relevance``, ``retrieval.shape``.

    Example:
        >>> ndcg_chance(sparse.eye_array(5, k=1), k=1).tolist()
        [0.25, 0.25, 0.25, 0.25, 0.0]
    """
    found = check_relevance(relevance)
    _check_k(found, k)
    share = torch.from_numpy(_gains(found, k).sum(1)) / (found.shape[0] - 1)
    return share * float(_discount(k).sum())


def score_retrieval(
    codes: Float[Tensor, "N K"],
    relevance: sparse.sparray,
    *,
    k: int,
    generator: Generator,
    permutations: int = 200,
) -> Retrieval:
    r"""Whether rows of near codes are relevant to each other: Precision@k, NDCG@k, and chance.

    .. math:: P = \frac1N\sum_n \frac{|R_k(n) \cap T(n)|}k, \qquad
        \mathrm{NDCG} = \frac1N\sum_n \frac{\sum_{r \le k} rel_{n,r} / \log_2(r + 1)}
        {\mathrm{IDCG}_n}

    with :math:`R_k(n)` from :func:`nearest_rows` and T what is relevant at all, self excluded. Both
    are of the form :math:`\sum_{ij} W_{ij} A_{ij}`, W the ranking and A the relevance; the null is
    :math:`\sum_{ij} W_{ij} A_{π(i)π(j)}` over random renamings π of the rows of A, which leaves
    both the geometry of the codes and the shape of the graph alone. The null's mean is near the
    chance; it is its *spread* that is wanted: hubs make it wider than independent queries would.

    Args:
        codes: ``(N, K)``.
        relevance: ``(N, N)``, sparse; see :func:`graph_relevance` and :func:`label_relevance`.
        k: Length of the rankings.
        generator: Ties, renamings and resampling; on the CPU.
        permutations: Renamings of the null.

    Raises:
        ShapeError: ``retrieval.shape``, ``retrieval.relevance``.
        ConfigError: ``metrics.resamples`` unless there are two renamings or more.

    Example:
        >>> codes = torch.eye(4).repeat_interleave(3, 0)
        >>> same = torch.block_diag(*[torch.ones(3, 3)] * 4).numpy()
        >>> found = score_retrieval(codes, sparse.csr_array(same), k=2, generator=torch.Generator())
        >>> found.precision.value, round(found.precision.chance, 6), found.ndcg.value
        (1.0, 0.181818, 1.0)

    Source:
        Järvelin & Kekäläinen (2002); Hubert & Schultz (1976), *Quadratic assignment as a general
        data analysis strategy* (the null).
    """
    check_resamples(permutations)
    relevant = check_relevance(relevance)
    _check_k(relevant, k, len(codes))
    ranking = nearest_rows(codes, k, generator=generator)
    hits, gains = relevant.copy(), _gains(relevant, k)
    hits.data = np.ones_like(hits.data)
    places = (np.full(k, 1 / k), _discount(k))
    weights = [_ranked(ranking, place) for place in places]
    drawn: list[list[float]] = [[], []]
    for _ in range(permutations):
        new = torch.randperm(len(codes), generator=generator).numpy()
        for null, weight, matrix in zip(drawn, weights, (hits, gains), strict=True):
            null.append(float(weight.multiply(matrix[new][:, new]).sum()) / len(codes))
    chances = precision_chance(relevant), ndcg_chance(relevant, k=k)
    precision, ndcg = (
        _score(torch.from_numpy(np.asarray(weight.multiply(matrix).sum(1))), *rest, generator)
        for weight, matrix, *rest in zip(weights, (hits, gains), chances, drawn, strict=True)
    )
    return Retrieval(k=k, precision=precision, ndcg=ndcg, relevant=relevant.nnz / len(codes))


def _score(
    values: Tensor, chance: Tensor, null: list[float], generator: Generator
) -> RetrievalScore:
    drawn = torch.tensor(null, dtype=torch.float64)
    tails = torch.tensor([0.025, 0.975], dtype=torch.float64)
    low, high = drawn.quantile(tails).tolist()
    return RetrievalScore(
        value=float(values.mean()),
        interval=bootstrap_interval(values, generator=generator),
        chance=float(chance.mean()),
        null_mean=float(drawn.mean()),
        null_interval=(low, high),
    )


def _discount(k: int) -> np.ndarray:
    return 1 / np.log2(np.arange(2, k + 2))


def _gains(relevance: sparse.csr_array, k: int) -> sparse.csr_array:
    """Each row of the relevance over its ideal discounted gain."""
    scaled, discount = relevance.copy(), _discount(k)
    for row in range(relevance.shape[0]):
        entries = slice(relevance.indptr[row], relevance.indptr[row + 1])
        best = np.sort(relevance.data[entries])[::-1][:k]
        scaled.data[entries] /= (best @ discount[: len(best)]) if len(best) else 1.0
    return scaled


def _ranked(ranking: Int[Tensor, "N k"], places: np.ndarray) -> sparse.csr_array:
    """The weight of each place, where the row in it stands."""
    rows, k = ranking.shape
    starts = np.arange(0, rows * k + 1, k)
    entries = (np.tile(places, rows), ranking.flatten().numpy(), starts)
    return sparse.csr_array(entries, shape=(rows, rows))


def _check_k(relevance: sparse.csr_array, k: int, rows: int | None = None) -> None:
    count = relevance.shape[0]
    if not 0 < k < count or rows not in (None, count):
        raise ShapeError(
            f"rankings of {k} among {count} rows, for {rows or count} codes: expected 0 < k < N "
            "and a code for each row of the relevance.",
            code="retrieval.shape",
        )
