"""Codes that vary slowly over a graph of the data's rows: an objective, not a prior."""

import copy
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from priors.errors import ConfigError, GraphError
from priors.graph import Graph
from priors.induced import EdgeIndex, InducedEdges
from vsae.elbo import ClosedFormELBO
from vsae.schedules import Constant
from vsae.sparse_code import SparseCode


class SampleGraphELBO(ClosedFormELBO):
    r"""The negative ELBO of a batch, and how much codes differ between neighbouring rows in it.

    .. math:: \mathcal L = -\mathrm{ELBO} + λ(t) \sum_{(a, b) \in E,\ a, b \in \text{batch}}
        w_{ab}\, \lVert c_a - c_b \rVert^2

    *Not* a bound on anything, and no prior: the term joins rows, so that no row has a density of
    its own, the sum depends on which rows met in a batch, and β does not scale it. Report the ELBO
    without it. A graph over *latents* is a prior: :class:`priors.GraphLaplacianPrior`.

    :func:`vsae.fit` hands it the rows of each step (:meth:`on`); records have the term
    ``elbo/smoothness``, per row, half of an edge to each of its ends, and ``codes/edges``, the
    edges that the batch had. Of N rows drawn uniformly B hold :math:`|E| \frac{B(B-1)}{N(N-1)}`
    edges on average, next to none: use :class:`vsae.EdgeBatches`. Codes are those that are decoded,
    draws of a Gaussian posterior included. A negative weight asks for opposite codes; a normalised
    graph divides codes by √degree.

    Args:
        graph: Over the N rows of the data; or ``step -> graph``, e.g.
            :class:`vsae.RefreshedNeighbours`.
        strength: λ, or ``step -> λ`` such as :class:`vsae.LinearWarmup`.
        num_particles: Draws averaged per step.

    Raises:
        GraphError: ``graph.num_nodes`` unless it has as many nodes as the data has rows.
        ConfigError: ``elbo.graph`` for anything else; ``elbo.strength`` if negative or not finite,
            of a schedule at the step at which it is; ``elbo.rows`` if asked for terms of a batch
            whose rows it was not told.

    Example:
        >>> from vsae import fit, l1_autoencoder
        >>> graph, x = Graph.ring(64), torch.randn(64, 4)
        >>> elbo = SampleGraphELBO(graph, strength=0.1)
        >>> run = fit(l1_autoencoder(4, 16, l1=0.1), x, steps=1, batch_size=64, elbo=elbo)
        >>> [record.to_dict()["codes/edges"] for record in run]  # all of them
        [64]

    Source:
        Belkin, Niyogi & Sindhwani (2006), *Manifold regularization*, JMLR 7; of sparse codes, Zheng
        et al. (2011), *Graph regularized sparse coding*, IEEE TIP 20:1327.
    """

    def __init__(
        self,
        graph: Graph | Callable[[int], Graph],
        *,
        strength: float | Callable[[int], float] = 1.0,
        num_particles: int = 1,
    ) -> None:
        super().__init__(num_particles=num_particles)
        if not (isinstance(graph, Graph) or callable(graph)):
            raise ConfigError(
                f"edges join rows of the data: got a {type(graph).__name__}, expected a Graph over "
                "the rows, e.g. Graph.knn(x, k), or a function of the step that gives one.",
                code="elbo.graph",
            )
        self.graph = graph
        self.strength = strength if callable(strength) else Constant(_checked(strength))
        self._index: EdgeIndex | None = None
        self._bound: tuple[InducedEdges, Tensor, float] | None = None

    def check_rows(self, rows: int) -> None:
        graph = self.graph(0) if callable(self.graph) else self.graph
        if graph.num_nodes != rows:
            raise GraphError(
                f"the graph is not over the rows of the data: got {graph.num_nodes} nodes and "
                f"{rows} rows. A graph over latents is for GraphLaplacianPrior.",
                code="graph.num_nodes",
                context={"num_nodes": graph.num_nodes, "rows": rows},
            )

    def on(self, rows: Int[Tensor, "seeds B"], step: int) -> "SampleGraphELBO":
        """This objective for the rows of one step: a copy that knows the edges among them."""
        graph = self.graph(step) if callable(self.graph) else self.graph
        if self._index is None or self._index.graph is not graph:
            self._index = EdgeIndex(graph)
        parts = [self._index.among(each) for each in rows]
        counts = torch.tensor([len(part.low) for part in parts])
        edges = InducedEdges.join(parts, rows.shape[1])
        bound = copy.copy(self)
        strength = _checked(self.strength(step))
        bound._bound = (edges, counts if len(rows) > 1 else counts[0], strength)
        return bound

    def report(self) -> dict[str, Tensor]:
        return {} if self._bound is None else {"edges": self._bound[1]}

    def _coupled_terms(self, model, latents: dict[str, dict]) -> dict[str, Tensor]:
        if self._bound is None:
            raise ConfigError(
                "edges join rows of the data: got a batch of unknown rows, expected on(rows, step) "
                "first, as fit does it.",
                code="elbo.rows",
            )
        edges, _, strength = self._bound
        code = model.code({name: site["value"] for name, site in latents.items()})
        return {"smoothness": strength * row_smoothness(code, edges)}


def _checked(strength: float | Tensor) -> float | Tensor:
    """Below zero neighbours would be pushed apart, without a bound; a tensor stays unread."""
    if not isinstance(strength, Tensor) and not 0 <= strength < float("inf"):
        raise ConfigError(
            f"a strength is a finite number: got {strength}, expected >= 0.", code="elbo.strength"
        )
    return strength


def row_smoothness(
    code: Float[Tensor, "*rows K"] | SparseCode, edges: InducedEdges
) -> Float[Tensor, "*rows"]:
    """What the edges among rows make of their codes, half to each end; in slots never densified.

    Example:
        >>> edges = EdgeIndex(Graph.ring(3)).among(torch.arange(3))
        >>> row_smoothness(torch.tensor([[1.0], [1.0], [3.0]]), edges).tolist()  # edges 0, 4, 4
        [2.0, 2.0, 4.0]
    """
    z = code.z if isinstance(code, SparseCode) else code
    edges = edges.to(z)
    if isinstance(code, SparseCode):
        gap = _slot_gaps(z.flatten(0, -2), code.support.flatten(0, -2), edges)
    else:
        flat = z.flatten(0, -2)
        ends = (flat.index_select(0, end) for end in (edges.low, edges.high))
        one, other = (
            end * s[:, None] for end, s in zip(ends, (edges.left, edges.right), strict=True)
        )
        gap = (one - other).square().sum(-1)
    half = 0.5 * edges.size * gap
    out = half.new_zeros(z.shape[:-1].numel())
    return out.index_add(0, edges.low, half).index_add(0, edges.high, half).view(z.shape[:-1])


def _slot_gaps(
    z: Float[Tensor, "B W"], support: Int[Tensor, "B W"], edges: InducedEdges
) -> Float[Tensor, " E"]:
    """``‖s_a c_a - s_b c_b‖²``: a slot of ``a`` finds its latent among the sorted slots of ``b``.

    Of repeated latents, of which all but one are empty slots, that one is found.
    """
    key, order = (2 * support + (z == 0)).sort(-1)
    z = z.gather(-1, order)
    one, other = (z.index_select(0, end) for end in (edges.low, edges.high))
    keys = key.index_select(0, edges.high)
    wanted = key.index_select(0, edges.low) // 2
    place = torch.searchsorted(keys, 2 * wanted).clamp(max=keys.shape[-1] - 1)
    same = keys.gather(-1, place) // 2 == wanted
    met = torch.where(same, other.gather(-1, place), 0.0)
    square = z.square().sum(-1)
    own = edges.left.square() * square.index_select(0, edges.low)
    others = edges.right.square() * square.index_select(0, edges.high)
    return own + others - 2 * edges.left * edges.right * (one * met).sum(-1)
