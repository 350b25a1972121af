"""Structure learned from how latents fire together, while the model trains."""

import torch
from torch import Tensor
from torch.distributions import Distribution

from priors.errors import ConfigError
from priors.graph import Graph
from priors.ising_gates import IsingGates, IsingGatesPrior
from vsae.observer import PosteriorObserver

MOST = 8192  # latents: counts of pairs are a dense matrix


class CoFiringGatesPrior(PosteriorObserver):
    r"""Couplings of gates from how much more often than by chance two latents fire together.

    .. math:: J_{ij} = c\, \mathrm{clip}\Big(\log \frac{n_{ij}\, N}{n_i n_j},\ \pm 3\Big)
        \quad\text{where}\quad 2\Big(n_{ij} \log \frac{n_{ij}}{e_{ij}} - n_{ij} + e_{ij}\Big) > z^2,
        \quad e_{ij} = \frac{n_i n_j}{N}

    :math:`n_i` and :math:`n_{ij}` count rows on which one and both of two latents are more likely
    on than off, over about the last ``memory`` updates, N rows. They are counted from ``start`` on,
    when atoms have become features, and turned into couplings ``every`` so many updates, on the
    host. Pairs that are not significant get none: of independent ones at most a share
    :math:`2 e^{-z^2/2}` is, by Chernoff's bound, however rarely they fire.

    As gates of a :class:`priors.SpikeSlabPrior` it is the :class:`priors.IsingGatesPrior` of its
    last estimate.

    Args:
        gates: Whose couplings are replaced.
        start: Updates before counting begins; couplings follow ``every`` later.
        every: Updates between two estimates.
        memory: Updates after which a count has faded to 1/e.
        strength: :math:`c`. Counts are of a posterior that the couplings have had their part in:
            the stronger they are, the more of what they count is their own doing.
        significance: :math:`z`; of frequent pairs, standard deviations under independence.
        relabelling: A permutation ``(K,)`` by which couplings are given to other latents than they
            were estimated for: the control that has as many couplings, but not those.

    Raises:
        ConfigError: ``cofiring.setting``, also for a relabelling that is no permutation;
            ``cofiring.size`` for more than 8192 latents.

    Example:
        >>> gates = IsingGatesPrior(Graph.blocks((1, 1, 1)), rate=0.1)
        >>> CoFiringGatesPrior(gates, start=100)().mean[0].item()
        0.1...

    Source:
        Log-lift is pointwise mutual information, Church & Hanks (1990); as couplings of a sparse
        code's gates cf. Garrigues & Olshausen (2007).
    """

    updates: Tensor
    counts: Tensor
    rows: Tensor

    def __init__(
        self,
        gates: IsingGatesPrior,
        *,
        start: int,
        every: int = 50,
        memory: int = 1000,
        strength: float = 0.35,
        significance: float = 5.0,
        relabelling: Tensor | None = None,
    ) -> None:
        super().__init__()
        whole = relabelling is None or is_permutation(relabelling, gates.dim)
        positive = every >= 1 and memory >= 1 and strength > 0 and significance >= 0
        if start < 0 or not positive or not whole:
            raise ConfigError(
                "couplings are estimated every so often from counts: got "
                f"{start=}, {every=}, {memory=}, {strength=}, {significance=}, {relabelling=}.",
                code="cofiring.setting",
            )
        if gates.dim > MOST:
            raise ConfigError(
                f"counts of pairs are a dense matrix: got {gates.dim} latents, expected at most "
                f"{MOST}. Estimate couplings from a first run and give them as a graph.",
                code="cofiring.size",
                context={"latents": gates.dim},
            )
        self.gates, self.start, self.every = gates, int(start), int(every)
        self.memory, self.strength = int(memory), float(strength)
        self.significance = float(significance)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.register_buffer("rows", torch.zeros(()))
        self.register_buffer("counts", torch.zeros(gates.dim, gates.dim))
        self.relabelling = relabelling
        self._step: int | None = None  # updates, as the host knows them

    @property
    def dim(self) -> int:
        """Number of latents."""
        return self.gates.dim

    def forward(self) -> IsingGates:
        return self.gates()

    def match(self, rate: Tensor) -> None:
        """Set the rates ``(K,)``; see :meth:`priors.IsingGatesPrior.match`."""
        self.gates.match(rate)

    @torch.no_grad()
    def observe_posterior(self, posterior: dict[str, Distribution]) -> None:
        if self._step is None:
            self._step = int(self.updates)  # read once: it may have been loaded
        self.updates += 1
        self._step += 1
        if self._step <= self.start:
            return
        fires = (posterior["z"].probability > 0.5).to(self.counts.dtype).flatten(0, -2)
        keep = 1 - 1 / self.memory
        self.counts.mul_(keep).addmm_(fires.mT, fires)
        self.rows.mul_(keep).add_(len(fires))
        if (self._step - self.start) % self.every == 0:
            self.gates.couple(self.couplings())

    @torch.no_grad()
    def couplings(self) -> Graph:
        """The couplings of the counts so far, as a signed graph."""
        counts = self.counts
        if self.relabelling is not None:
            counts = counts[self.relabelling][:, self.relabelling]
        return lift_graph(counts, self.rows, strength=self.strength, significance=self.significance)

    def extra_repr(self) -> str:
        return f"start={self.start}, every={self.every}, strength={self.strength}"


def is_permutation(order: Tensor, size: int) -> bool:
    """Whether every latent is named once."""
    return order.shape == (size,) and torch.equal(order.sort().values.cpu(), torch.arange(size))


def lift_graph(
    counts: Tensor, rows: Tensor, *, strength: float, significance: float, clip: float = 3.0
) -> Graph:
    """The signed graph of significant log-lifts of counts ``(K, K)`` over ``rows`` rows.

    Example:
        >>> counts = torch.tensor([[100.0, 100.0, 1.0], [100.0, 100.0, 1.0], [1.0, 1.0, 100.0]])
        >>> graph = lift_graph(counts, torch.tensor(10000.0), strength=1.0, significance=5.0)
        >>> graph.edges.tolist(), graph.weights.tolist()
        ([[0], [1]], [3.0])
    """
    single = counts.diagonal().double()
    expected = single * single[:, None] / rows.double().clamp(min=1.0)
    both = counts.double()
    gain = torch.xlogy(both, both / expected.clamp(min=1e-12)) - both + expected
    lift = ((both + 0.5) / (expected + 0.5)).log().clamp(-clip, clip)
    kept = (2 * gain > significance**2) & (expected > 0) & (lift != 0)
    low, high = kept.triu(1).nonzero().mT.cpu()
    weights = strength * lift[low, high].cpu()
    return Graph(torch.stack([low, high]), weights, len(single), signed=True)
