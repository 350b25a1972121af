"""Gates in pairs: two latents fire together, or not together, more than their rates say."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Size, Tensor, nn

from priors._prior import check_dim, register
from priors.errors import ConfigError
from priors.gates import AbstractGates, refuse_replicas
from priors.graph import Graph
from priors.replicas import stack_like
from priors.symmetric_product import symmetric_product

ENUMERATED = 16  # latents, at most, whose 2^K states are summed over
SWEEPS = 50  # of Gibbs, before a draw is taken


class IsingGates(AbstractGates):
    r"""Pairwise gates, centred at their rates.

    .. math:: \log p(g) = \sum_k b_k g_k + \log(1 - π_k)
        + \sum_{(i,j)} J_{ij} (g_i - π_i)(g_j - π_j) - \log Z, \qquad
        b_k = \operatorname{logit} π_k

    Written about the rates, the couplings leave the field of a latent alone while the others fire
    as often as they do on average: mean-field marginals stay at :math:`π` without evidence.
    :math:`Z = 1` without couplings. It is known only up to 16 latents, by enumeration, and taken as
    1 beyond: with fixed couplings the ELBO is then off by that constant, and rates fitted by
    :class:`vsae.FittedSpikeSlabPrior` match moments rather than maximise it.

    Args:
        logits: :math:`b` ``(K,)``.
        starts, columns, values: The couplings' symmetric matrix ``J`` in CSR, as
            :func:`priors.symmetric_product.symmetric_product` takes it.

    Example:
        >>> prior = IsingGatesPrior(Graph.from_edges([[0], [1]], [2.0], num_nodes=2), rate=0.5)
        >>> gates = prior()
        >>> together, apart = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
        >>> round((gates.log_prob(together) - gates.log_prob(apart)).item(), 5)  # J (½·½ + ½·½)
        1.0

    Source:
        Ising couplings between gates as in Garrigues & Olshausen (2007), *Learning horizontal
        connections in a sparse coding model of natural images*, NeurIPS.
    """

    def __init__(
        self,
        logits: Float[Tensor, " K"],
        starts: Tensor,
        columns: Tensor,
        values: Float[Tensor, " N"],
        batch_shape: Size = Size(),
        validate_args: bool | None = None,
    ) -> None:
        self.logits, self._csr = logits, (starts, columns, values)
        super().__init__(batch_shape, logits.shape, validate_args=validate_args)

    def expand(self, batch_shape, _instance=None) -> "IsingGates":
        return IsingGates(self.logits, *self._csr, Size(batch_shape), self._validate_args)

    @property
    def mean(self) -> Float[Tensor, "*batch K"]:
        r"""The rates :math:`π`: the exact marginals without couplings, their mean field with."""
        return self.logits.sigmoid().expand(self._extended_shape())

    def couple(self, gates: Float[Tensor, "*rows K"]) -> Float[Tensor, "*rows K"]:
        """``J (g - π)`` per row."""
        return symmetric_product(gates - self.logits.sigmoid(), *self._csr)

    def field(self, gates: Float[Tensor, "*rows K"]) -> Float[Tensor, "*rows K"]:
        return self.logits + self.couple(gates)

    def multilinear(self, gates: Float[Tensor, "*rows K"]) -> Float[Tensor, "*out"]:
        return self._unnormalised(gates) - self.log_partition()

    def _unnormalised(self, gates: Tensor) -> Tensor:
        alone = gates * self.logits - nn.functional.softplus(self.logits)
        return (alone + 0.5 * self.couple(gates) * (gates - self.logits.sigmoid())).sum(-1)

    def log_partition(self) -> Float[Tensor, ""]:
        r""":math:`\log Z` up to 16 latents, 0 beyond."""
        if self.event_shape[0] > ENUMERATED:
            return self.logits.new_zeros(())
        return self._unnormalised(_states(self.logits)).logsumexp(0)

    @torch.no_grad()
    def sample(self, sample_shape=Size()) -> Tensor:
        """By enumeration up to 16 latents, else by Gibbs sweeps from independent gates."""
        shape, latents = self._extended_shape(sample_shape), self.event_shape[0]
        if latents <= ENUMERATED:
            states = _states(self.logits)
            weights = self._unnormalised(states).softmax(0)
            drawn = weights.multinomial(shape[:-1].numel(), replacement=True)
            return states[drawn].reshape(shape)
        gates = torch.bernoulli(self.mean.expand(shape)).reshape(-1, latents)
        starts, columns, values = self._csr
        bounds, rates = [*starts.tolist(), len(columns)], self.logits.sigmoid()
        for _ in range(SWEEPS):
            for k, (first, last) in enumerate(pairwise(bounds)):
                if first < last:  # a latent without couplings is drawn already
                    near = columns[first:last]
                    pull = (gates[:, near] - rates[near]) @ values[first:last]
                    gates[:, k] = torch.bernoulli((self.logits[k] + pull).sigmoid())
        return gates.reshape(shape)


def _states(like: Float[Tensor, " K"]) -> Float[Tensor, "S K"]:
    """All ``2^K`` states."""
    latents = len(like)
    numbers = torch.arange(2**latents, device=like.device)
    return ((numbers[:, None] >> torch.arange(latents, device=like.device)) & 1).to(like.dtype)


class IsingGatesPrior(nn.Module):
    r"""Gates with pairwise couplings: which latents go together, as the edges of a signed graph.

    .. math:: \log p(g) = \sum_k b_k g_k + \sum_{(i,j)} J_{ij} (g_i - π_i)(g_j - π_j) + \text{const}

    A positive weight ties two latents, a negative one lets them exclude each other. Blocks, graphs
    and learned pairs are all edge lists: see :meth:`blocks`, and
    :class:`vsae.CoFiringGatesPrior`, which estimates couplings while a model trains. A graph
    Laplacian over gates, :math:`-\frac s2 g^\top L g`, is this family with :math:`J = s W`: zeros
    and ones are their own squares, so that what its diagonal adds is a change of rates.

    Args:
        couplings: A graph over the latents, signed where weights are negative; nats.
        rate: :math:`π`, all prior probabilities of firing to begin with.
        learnable: Whether the logits of the rates are trained by gradients.

    Raises:
        ConfigError: ``prior.bad_rate`` unless ``0 < rate < 1``; ``gates.scaled`` for a normalised
            graph.

    Example:
        >>> prior = IsingGatesPrior.blocks((2, 2), coupling=1.0, rate=0.1)
        >>> [round(f, 2) for f in prior().field(torch.tensor([1.0, 0.0, 0.0, 0.0])).tolist()]
        [-2.3, -1.3, -2.3, -2.3]

    Source:
        Garrigues & Olshausen (2007), NeurIPS.
    """

    logits: Tensor

    def __init__(self, couplings: Graph, *, rate: float = 0.01, learnable: bool = False) -> None:
        super().__init__()
        if not 0 < rate < 1:
            raise ConfigError(
                f"a rate is a probability of being active: got {rate!r}, expected 0 < rate < 1.",
                code="prior.bad_rate",
                context={"rate": rate},
            )
        self.dim, self.learnable = check_dim(couplings.num_nodes), learnable
        logits = torch.full((self.dim,), float(torch.tensor(rate, dtype=torch.float64).logit()))
        register(self, "logits", logits, learnable=learnable)
        for name in ("starts", "columns", "values"):
            self.register_buffer(name, torch.empty(0), persistent=False)
        self.couple(couplings)

    @classmethod
    def blocks(
        cls, sizes: Sequence[int], *, coupling: float, rate: float = 0.01
    ) -> "IsingGatesPrior":
        """Every pair inside a block coupled alike: negative, and its latents exclude each other."""
        edges = Graph.blocks(sizes).edges
        weights = torch.full((edges.shape[1],), float(coupling), dtype=torch.float64)
        graph = Graph(edges, weights, sum(sizes), signed=coupling < 0)
        return cls(graph, rate=rate)

    def couple(self, couplings: Graph) -> None:
        """Replace the couplings, in place; the rates stay.

        Raises:
            ConfigError: ``gates.scaled`` for a normalised graph, ``gates.size`` for a graph over
                another number of latents.
        """
        if couplings.num_nodes != self.dim:
            raise ConfigError(
                f"couplings are over other latents: got a graph of {couplings.num_nodes} nodes, "
                f"expected {self.dim}.",
                code="gates.size",
                context={"got": couplings.num_nodes, "expected": self.dim},
            )
        if not bool((couplings.scaling == 1).all()):
            raise ConfigError(
                "couplings are the weights of a graph as they are: got a normalised one. Give the "
                "graph before .normalized().",
                code="gates.scaled",
            )
        self.couplings = couplings
        matrix = couplings.adjacency()
        found = {
            "starts": torch.from_numpy(matrix.indptr[:-1].astype("int64")),
            "columns": torch.from_numpy(matrix.indices.astype("int64")),
            "values": torch.from_numpy(matrix.data),
        }
        for name, value in found.items():
            setattr(self, name, value.to(self.logits.device))

    @torch.no_grad()
    def match(self, rate: Tensor) -> None:
        """Set the rates ``(K,)``, each within (0, 1)."""
        self.logits.copy_(rate.logit())

    @property
    def rate(self) -> float:
        """The mean probability of firing."""
        return float(self.logits.detach().double().sigmoid().mean())

    def forward(self) -> IsingGates:
        values = self.values.to(self.logits.dtype)  # kept exactly: they are not in the state dict
        return IsingGates(self.logits, self.starts, self.columns, values)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, couplings={self.couplings.num_edges}"


stack_like.register(IsingGatesPrior, refuse_replicas)
