r"""Deterministic smoothness penalties: the quadratic part of a graph prior, without the prior.

Four objectives in use make codes vary slowly over a graph. Three are the same number in three
arrangements, per row :math:`z^\top L z` with no ½: :func:`laplacian_quadratic`,
:func:`pairwise_difference`, :func:`edge_list_difference`. The fourth, the variational one, is the
KL of the posterior from ``GraphLaplacianPrior``, that is ``torch.distributions.kl_divergence(q,
prior())``: at a fixed posterior covariance it is ½ λ :math:`μ^\top L μ` + ½ γ‖μ‖² plus a constant.

A penalty is evaded by scaling ``z`` down and the decoder up; keep unit-norm atoms.
:func:`sample_graph_smoothness` is a different object: its graph joins rows of the batch.
"""

from jaxtyping import Float
from torch import Tensor

from priors.errors import GraphError, NegativeWeightError
from priors.graph import Graph
from priors.symmetric_product import symmetric_product


def laplacian_quadratic(z: Float[Tensor, "*batch K"], graph: Graph) -> Float[Tensor, "*batch"]:
    r"""The quadratic form :math:`z^\top L z` per row, no ½, through the sparse Laplacian.

    Takes ``O(B (K + E))`` time and no ``(K, K)`` array. Where neighbouring codes agree to many
    digits it subtracts nearly equal numbers; :func:`edge_list_difference` does not, at more memory.

    Args:
        z: Codes ``(*batch, K)``.
        graph: Over the latents: ``graph.num_nodes == K``.

    Raises:
        GraphError: ``graph.num_nodes`` if the sizes differ.

    Example:
        >>> import torch
        >>> laplacian_quadratic(torch.tensor([[1.0, 2.0, 4.0]]), Graph.tree([-1, 0, 1])).tolist()
        [5.0]

    Source:
        Chung (1997), *Spectral Graph Theory*, eq. 1.2.
    """
    _check_nodes(z.shape[-1], graph, "latents")
    pointers, columns, values = (part.to(z.device) for part in graph.laplacian_csr)
    return (z * symmetric_product(z, pointers[:-1], columns, values.to(z.dtype))).sum(-1)


def pairwise_difference(
    z: Float[Tensor, "*batch K"], adjacency: Float[Tensor, "K K"], *, signed: bool = False
) -> Float[Tensor, "*batch"]:
    r"""The same form per row from a dense adjacency, no ``L``.

    .. math:: \tfrac12 \sum_{ij} |A_{ij}| (z_i - \operatorname{sign}(A_{ij}) z_j)^2

    An asymmetric ``A`` gives exactly the form of its symmetrisation :math:`(A + A^\top)/2` (for
    ``A`` of one sign per pair), because each pair's two terms are equal; the diagonal does not
    count. That is *not* the quadratic form of ``D_out - A``, which may be negative. Takes ``K²``
    numbers per row.

    Args:
        z: Codes ``(*batch, K)``.
        adjacency: Dense weights ``(K, K)``, >= 0 unless ``signed``.
        signed: Whether negative weights are meant.

    Raises:
        GraphError: ``graph.nan_weight``, ``graph.negative_weight`` (a ``NegativeWeightError``).

    Example:
        >>> import torch
        >>> one_way = torch.tensor([[0.0, 2.0], [0.0, 0.0]])
        >>> pairwise_difference(torch.tensor([[1.0, 3.0]]), one_way).tolist()  # ½ · 2 · (1 - 3)²
        [4.0]
    """
    if not adjacency.isfinite().all():
        raise GraphError(
            "adjacency has NaN or infinite weights, expected finite ones.", code="graph.nan_weight"
        )
    if not signed and (adjacency < 0).any():
        raise NegativeWeightError(
            f"adjacency has negative weights: got a minimum of {adjacency.min():.3g}, expected "
            ">= 0. Pass signed=True for the signed form.",
            code="graph.negative_weight",
            context={"minimum": float(adjacency.min()), "count": int((adjacency < 0).sum())},
        )
    adjacency = adjacency.to(z)
    gap = z[..., :, None] - adjacency.sign() * z[..., None, :]
    # A_ii joins z_i to itself: 0 for positive weights, but 4 |A_ii| z_i² for negative ones.
    return (adjacency.abs().fill_diagonal_(0.0) * gap.square()).sum((-2, -1)) / 2


def edge_list_difference(z: Float[Tensor, "*batch K"], graph: Graph) -> Float[Tensor, "*batch"]:
    r"""The same form per row as a sum over edges, each counted once.

    .. math:: \sum_{(i,j)} |w_{ij}| (s_i z_i - \operatorname{sign}(w_{ij}) s_j z_j)^2

    Never negative, exact where neighbours agree, and 0 only on the null space; takes ``E`` numbers
    per row, so :func:`laplacian_quadratic` is the one for large graphs.

    Args:
        z: Codes ``(*batch, K)``.
        graph: Over the latents: ``graph.num_nodes == K``.

    Raises:
        GraphError: ``graph.num_nodes`` if the sizes differ.

    Example:
        >>> import torch
        >>> edge_list_difference(torch.tensor([[1.0, 2.0, 4.0]]), Graph.tree([-1, 0, 1])).tolist()
        [5.0]
    """
    _check_nodes(z.shape[-1], graph, "latents")
    low, high = graph.edges.to(z.device)
    weights, scaled = graph.weights.to(z), z * graph.scaling.to(z)
    gap = scaled[..., low] - weights.sign() * scaled[..., high]
    return (weights.abs() * gap.square()).sum(-1)


def sample_graph_smoothness(z: Float[Tensor, "B K"], graph: Graph) -> Float[Tensor, ""]:
    r"""How much codes vary over a graph of the *rows* of a batch, one number.

    .. math:: \operatorname{tr}(Z^\top L Z) = \sum_{(a,b)} w_{ab} \lVert z_a - z_b \rVert^2

    Not a prior on one code: it couples the rows of a batch, so it has no per-row density, does not
    factorise over a plate, and depends on which rows met in the batch.

    Args:
        z: Codes ``(B, K)``.
        graph: Over the rows: ``graph.num_nodes == B``.

    Raises:
        GraphError: ``graph.num_nodes`` if the sizes differ.

    Example:
        >>> import torch
        >>> sample_graph_smoothness(torch.tensor([[1.0, 2.0], [4.0, 6.0]]), Graph.ring(2)).item()
        25.0

    Source:
        Belkin & Niyogi (2003), Laplacian eigenmaps, Neural Computation 15.
    """
    _check_nodes(z.shape[0], graph, "rows")
    return edge_list_difference(z.mT, graph).sum()


def _check_nodes(size: int, graph: Graph, what: str) -> None:
    if size != graph.num_nodes:
        raise GraphError(
            f"the graph does not fit: got {size} {what} and {graph.num_nodes} nodes, expected as "
            "many.",
            code="graph.num_nodes",
            context={"size": size, "num_nodes": graph.num_nodes},
        )
