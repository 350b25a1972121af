"""A graph prior whose graph follows the run: the schedule, without a source of graphs."""

import torch
from torch import Tensor
from torch.distributions import Distribution

from priors._gaussian import PrecisionNormal
from priors.errors import ConfigError
from priors.graph import Graph
from priors.laplacian import GraphLaplacianPrior
from priors.replicas import stack_like
from vsae.observer import PosteriorObserver
from vsae.refreshed_neighbours import check_every
from vsae.unstackable import refuse_replicas


class AbstractRefreshedGraphPrior(PosteriorObserver):
    """A :class:`priors.GraphLaplacianPrior` whose graph is replaced every so many updates.

    *A subclass defines* :meth:`new_graph`, and :meth:`see` if it learns from codes. The graph of
    the moment is saved with the model, as its edges and weights; ``γ`` and ``λ`` stay. The
    log-determinant is that of the new graph, so that the ELBO jumps at a refresh.

    A graph made from a run confirms what the run has found: report the arm whose graph is fixed,
    and the shuffled one.

    How far a new graph's factor fills in is known when the graph is. Graphs of neighbours do: of
    ten thousand latents or more, give ``prior`` a ``logdet`` for any graph, ``LanczosSpectrum()``
    or ``Omitted()``, as its default may refuse in the middle of a run.

    Args:
        prior: Whose graph is replaced.
        every: Updates from one refresh to the next.
        start: Updates before the clock starts; the first refresh is ``every`` later.

    Raises:
        ConfigError: ``refresh.every`` unless ``every >= 1``, ``refresh.start`` unless
            ``start >= 0``; ``replicas.single`` when stacked.
        GraphError: After a refresh, ``graph.too_large`` if the log-determinant of ``prior`` cannot
            be computed for the new graph.
    """

    updates: Tensor

    def __init__(self, prior: GraphLaplacianPrior, *, every: int, start: int = 0) -> None:
        super().__init__()
        if start < 0:
            raise ConfigError(
                f"updates before the first refresh: got {start}, expected >= 0.",
                code="refresh.start",
            )
        self.prior, self.every, self.start = prior, check_every(every), int(start)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self._step: int | None = None  # updates, as the host knows them

    @property
    def dim(self) -> int:
        """Number of latents."""
        return self.prior.dim

    @property
    def graph(self) -> Graph:
        """The graph of the moment."""
        return self.prior.graph

    def forward(self) -> PrecisionNormal:
        return self.prior()

    def new_graph(self) -> Graph:
        """The graph from now on; *a subclass defines it*."""
        raise NotImplementedError(f"{type(self).__name__} defines no new_graph()")

    def see(self, posterior: dict[str, Distribution], wait: int) -> None:
        """Learn from an update that the next refresh follows in ``wait`` updates."""

    @torch.no_grad()
    def observe_posterior(self, posterior: dict[str, Distribution]) -> None:
        if self._step is None:
            self._step = int(self.updates)  # read once: it may have been loaded
        self.updates += 1
        self._step += 1
        since = self._step - self.start
        wait = -since % self.every if since > 0 else self.every - since
        self.see(posterior, wait)
        if wait == 0:
            self.prior.replace_graph(self.new_graph())

    def report(self) -> dict[str, Tensor]:
        return {"graph_edges": torch.tensor(self.graph.num_edges)}

    def extra_repr(self) -> str:
        return f"every={self.every}, start={self.start}"


stack_like.register(AbstractRefreshedGraphPrior, refuse_replicas)
