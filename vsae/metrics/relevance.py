"""What is relevant to what, as a sparse matrix: no number for each pair of rows."""

from jaxtyping import Int
from scipy import sparse
from torch import Tensor

from priors.graph import Graph
from vsae.errors import ShapeError


def graph_relevance(graph: Graph) -> sparse.csr_array:
    """Neighbours are relevant, as much as their edge weighs: ``(N, N)``, symmetric.

    Raises:
        ShapeError: ``retrieval.relevance`` if a weight is negative.

    Example:
        >>> graph_relevance(Graph.ring(3)).toarray().tolist()
        [[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]
    """
    return check_relevance(graph.adjacency())


def label_relevance(labels: Int[Tensor, " N"]) -> sparse.csr_array:
    """Rows of the same label are relevant to each other, with weight 1; none to a label of -1.

    The number of entries is the sum of the squared sizes of the labels.

    Example:
        >>> import torch
        >>> label_relevance(torch.tensor([5, 2, 5, -1, -1])).toarray()[0].tolist()
        [0.0, 0.0, 1.0, 0.0, 0.0]
    """
    _, group = labels.unique(return_inverse=True)
    known = (labels >= 0).nonzero().flatten().cpu().numpy()
    ones, place = [1.0] * len(known), (known, group.cpu().numpy()[known])
    member = sparse.csr_array((ones, place), shape=(len(labels), int(group.max()) + 1))
    return check_relevance(member @ member.T)


def check_relevance(relevance: sparse.sparray | sparse.spmatrix) -> sparse.csr_array:
    """The relevance in float64 without its diagonal and its zeros, or a typed error."""
    found = sparse.csr_array(relevance, dtype=float, copy=True)
    found.sum_duplicates()
    entries = found.tocoo()
    row, column = entries.coords
    kept = (row != column) & (entries.data != 0)
    place = row[kept], column[kept]
    found = sparse.csr_array((entries.data[kept], place), shape=found.shape)
    square = len(found.shape) == 2 and found.shape[0] == found.shape[1]
    if not square or not (found.data > 0).all():  # NaN is no relevance either
        raise ShapeError(
            f"relevance is a square matrix without negative numbers: got {found.shape}, least "
            f"entry {found.data.min(initial=0.0)}.",
            code="retrieval.relevance",
            context={"shape": found.shape},
        )
    return found
