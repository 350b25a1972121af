"""A graph over the rows that follows their codes."""

import torch
from scipy import sparse
from torch import Tensor

from priors.coactivation import coactivation_graph
from priors.edge_list import Symmetrize
from priors.errors import ConfigError
from priors.graph import Graph
from priors.replicas import num_replicas
from vsae.autoencoder import Activations, Autoencoder
from vsae.sparse_code import SparseCode

ROWS = 4096  # encoded at a time


class RefreshedNeighbours:
    r"""``step -> graph``: the ``k`` nearest neighbours of the codes, found anew now and then.

    Rows are neighbours if their *present* codes are alike by cosine,
    :func:`priors.coactivation_graph` of the codes' transpose; between refreshes the graph stays.
    For :class:`vsae.SampleGraphELBO` and :class:`vsae.EdgeBatches`, which may share one. It is no
    part of the pair, so that :func:`vsae.save` does not keep it: give ``graph`` to go on with one.

    Neighbours found from codes confirm what the codes say already: a graph from elsewhere, or the
    shuffled one, is the control.

    Args:
        autoencoder: One pair, in training.
        data: All rows ``(N, d)``, or as the pair takes them.
        k: Neighbours per row.
        every: Steps from one search to the next.
        graph: Used until the first refresh, at step ``every``; found at the first call if ``None``.
        symmetrize: As of :func:`priors.coactivation_graph`.

    Raises:
        ConfigError: ``refresh.every`` unless positive, ``replicas.graph`` for a stack.

    Example:
        >>> from vsae import l1_autoencoder
        >>> pair, x = l1_autoencoder(4, 16, l1=0.1), torch.randn(50, 4)
        >>> near = RefreshedNeighbours(pair, x, 3, every=9)
        >>> near(0) is near(8), near(8) is near(9)
        (True, False)

    Source:
        Periodic re-clustering during training, as Caron et al. (2018), *Deep clustering*, ECCV.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        data: Activations,
        k: int,
        *,
        every: int,
        graph: Graph | None = None,
        symmetrize: Symmetrize = "max",
    ) -> None:
        self.every = check_every(every)
        if num_replicas(autoencoder):
            raise ConfigError(
                "replicas have neighbours of their own: got a stack, expected one model.",
                code="replicas.graph",
            )
        self.autoencoder, self.data = autoencoder, autoencoder.rows(data)
        self.k, self.symmetrize = k, symmetrize
        self.graph, self._era = graph, 0

    def __call__(self, step: int) -> Graph:
        era = step // self.every
        if self.graph is None or era != self._era:
            codes = codes_of(self.autoencoder, self.data)
            self.graph, self._era = (
                coactivation_graph(codes.T, self.k, symmetrize=self.symmetrize),
                era,
            )
        return self.graph


@torch.no_grad()
def codes_of(autoencoder: Autoencoder, data: Activations) -> sparse.csr_array:
    """The codes of all rows, as a sparse matrix ``(N, K)``."""
    rows, device = autoencoder.rows(data), autoencoder.W_dec.device
    parts = [autoencoder.code(x.to(device)) for x in rows.split(ROWS)]
    return sparse.csr_array(sparse.vstack([as_sparse(part) for part in parts]))


def as_sparse(code: Tensor | SparseCode) -> sparse.csr_array:
    """A code, dense or in slots, as a sparse matrix."""
    if isinstance(code, SparseCode):
        return code.to_scipy()
    return sparse.csr_array(code.detach().cpu().numpy())


def check_every(every: int) -> int:
    """``every`` if it can be a number of steps."""
    if every < 1:
        raise ConfigError(
            f"a graph is refreshed every so many steps: got {every}, expected >= 1.",
            code="refresh.every",
        )
    return int(every)
