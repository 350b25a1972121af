"""A graph prior that ties latents that have been active together, as the codes are learned."""

from scipy import sparse
from torch.distributions import Distribution

from priors.coactivation import coactivation_graph
from priors.errors import ConfigError
from priors.graph import Graph
from priors.laplacian import GraphLaplacianPrior
from vsae.point_estimate import point_estimate
from vsae.refreshed_graph import AbstractRefreshedGraphPrior
from vsae.refreshed_neighbours import as_sparse
from vsae.sparse_code import SparseCode


class CoactivationPrior(AbstractRefreshedGraphPrior):
    """A graph prior whose graph is :func:`priors.coactivation_graph` of the run's recent codes.

    Codes at the posterior mean, negative ones of dense codes being inactive, of the ``window``
    updates before a refresh: only those are copied to the host, and none is saved, so that of a
    run saved within a window the rest of it decides.

    Args:
        prior: Whose graph is replaced.
        k: Neighbours per latent.
        every: Updates from one refresh to the next.
        start: Updates before the clock starts; the first refresh is ``every`` later.
        window: Updates whose codes count, at most ``every``.

    Raises:
        ConfigError: As :class:`vsae.AbstractRefreshedGraphPrior`; ``refresh.window`` unless
            ``1 <= window <= every``; at the first update, ``refresh.site`` unless codes are of a
            site ``z``, which a ladder does not have.
        GraphError: At a refresh, ``graph.neighbours`` unless ``1 <= k < K``; ``graph.too_large``
            as of :class:`vsae.AbstractRefreshedGraphPrior`.

    Example:
        >>> import torch
        >>> from pyro.distributions import Delta
        >>> prior = CoactivationPrior(GraphLaplacianPrior(Graph.ring(3)), 1, every=1, window=1)
        >>> codes = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        >>> prior.observe_posterior({"z": Delta(codes, event_dim=1)})
        >>> prior.graph.edges.tolist()
        [[0], [1]]
    """

    def __init__(
        self,
        prior: GraphLaplacianPrior,
        k: int,
        *,
        every: int,
        start: int = 0,
        window: int = 16,
    ) -> None:
        super().__init__(prior, every=every, start=start)
        if not 1 <= window <= self.every:
            raise ConfigError(
                f"codes of a window before each refresh: got {window=} and {every=}, expected "
                "1 <= window <= every.",
                code="refresh.window",
            )
        self.k, self.window = int(k), int(window)
        self._seen: list[sparse.csr_array] = []

    def see(self, posterior: dict[str, Distribution], wait: int) -> None:
        if "z" not in posterior:
            raise ConfigError(
                f"codes of the site z tie these latents: got the sites {sorted(posterior)}, of a "
                "ladder. Give its levels graphs that stay, or DecoderGraphPrior of a level's map.",
                code="refresh.site",
                context={"sites": sorted(posterior)},
            )
        if wait >= self.window:
            return
        code = point_estimate(posterior["z"]).flatten(0, -2)
        if "support" in posterior:
            support = point_estimate(posterior["support"]).flatten(0, -2)
            self._seen.append(as_sparse(SparseCode(support, code, self.dim)))
        else:
            self._seen.append(as_sparse(code.clamp(min=0.0)))

    def new_graph(self) -> Graph:
        seen, self._seen = self._seen, []
        return coactivation_graph(sparse.vstack(seen), self.k)
