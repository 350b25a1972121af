"""A graph prior that ties latents whose atoms point the same way, as the decoder learns."""

from torch import nn

from priors.graph import Graph
from priors.laplacian import GraphLaplacianPrior
from vsae.refreshed_graph import AbstractRefreshedGraphPrior


class DecoderGraphPrior(AbstractRefreshedGraphPrior):
    """A graph prior whose graph is the decoder's: each atom tied to its ``k`` nearest by cosine.

    ``Graph.knn(decoder.W_dec, k)``, found anew every so many updates.

    Args:
        prior: Whose graph is replaced.
        decoder: Whose atoms are compared, the model's own.
        k: Neighbours per latent.
        every: Updates from one refresh to the next.
        start: Updates before the clock starts; the first refresh is ``every`` later.

    Raises:
        ConfigError: As :class:`vsae.AbstractRefreshedGraphPrior`.
        GraphError: At a refresh, ``graph.neighbours`` unless ``1 <= k < K``, ``graph.num_nodes`` if
            the decoder has another number of latents; ``graph.too_large`` as of
            :class:`vsae.AbstractRefreshedGraphPrior`.

    Example:
        >>> from vsae import LinearDecoder
        >>> decoder, start = LinearDecoder(8, 3), GraphLaplacianPrior(Graph.ring(8))
        >>> prior = DecoderGraphPrior(start, decoder, 2, every=1)
        >>> prior.observe_posterior({})
        >>> prior.graph == Graph.knn(decoder.W_dec, 2)
        True
    """

    def __init__(
        self, prior: GraphLaplacianPrior, decoder: nn.Module, k: int, *, every: int, start: int = 0
    ) -> None:
        super().__init__(prior, every=every, start=start)
        self.decoder, self.k = decoder, int(k)

    def new_graph(self) -> Graph:
        return Graph.knn(self.decoder.W_dec.detach(), self.k)
