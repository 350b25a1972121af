"""``log det(γI + λL)`` estimated by stochastic Lanczos quadrature, for graphs of any size."""

import numpy as np
import torch
from torch import Tensor

from priors.errors import ConfigError
from priors.graph import Graph
from priors.log_determinant import AbstractLogDeterminant


class LanczosSpectrum(AbstractLogDeterminant):
    r"""A quadrature of the spectrum of ``L`` by fixed probes; the null space is exact.

    .. math:: \log\det(γI + λL) ≈ n_0 \log γ +
        \frac{K - n_0}{P} \sum_{p=1}^P \sum_l τ_{pl}^2 \log(γ + λθ_{pl})

    :math:`θ_{pl}, τ_{pl}^2` are the Gauss nodes and weights of probe ``p``, a random sign vector
    made orthogonal to the null space of dimension :math:`n_0`. Probes are drawn once, so this is a
    deterministic, differentiable function of ``(γ, λ)``. It is an *estimate*: never a default, its
    error is :meth:`standard_error`, and ``exact`` is false.

    Args:
        probes: Number of random vectors :math:`P`; the standard error falls as :math:`P^{-1/2}`.
        steps: Lanczos steps, the degree of each quadrature.
        seed: Of the probes.

    Raises:
        ConfigError: ``logdet.bad_probes`` if ``probes < 2`` or ``steps < 1``.

    Example:
        >>> from priors.spectrum import Spectrum
        >>> lanczos = LanczosSpectrum(probes=8).of(Graph.ring(200))
        >>> gamma, lam = torch.tensor(0.1), torch.tensor(1.0)
        >>> exact = Spectrum().of(Graph.ring(200))(gamma, lam)
        >>> bool((lanczos(gamma, lam) - exact).abs() < 4 * lanczos.standard_error(gamma, lam))
        True

    Source:
        Ubaru, Chen & Saad (2017), Fast estimation of tr(f(A)) via stochastic Lanczos quadrature,
        SIAM J. Matrix Anal. Appl. 38:1075.
    """

    exact = False

    def __init__(self, *, probes: int = 32, steps: int = 50, seed: int = 0) -> None:
        super().__init__()
        if probes < 2 or steps < 1:
            raise ConfigError(
                f"a standard error needs two probes: got probes={probes}, steps={steps}, expected "
                "probes >= 2 and steps >= 1.",
                code="logdet.bad_probes",
                context={"probes": probes, "steps": steps},
            )
        self.probes, self.steps, self.seed = probes, steps, seed

    def of(self, graph: Graph) -> "LanczosSpectrum":
        if self._graph is graph:
            return self
        new = LanczosSpectrum(probes=self.probes, steps=self.steps, seed=self.seed)
        new._graph = graph
        nodes, weights = _quadratures(graph, self.probes, self.steps, self.seed)
        new.register_buffer("nodes", torch.from_numpy(nodes), persistent=False)
        new.register_buffer("weights", torch.from_numpy(weights), persistent=False)
        nullity = torch.tensor(float(graph.num_null), dtype=torch.float64)
        rank = graph.num_nodes - nullity
        new.register_buffer("nullity", nullity, persistent=False)
        new.register_buffer("rank", rank, persistent=False)
        return new

    def _per_probe(self, ridge: Tensor, strength: Tensor) -> Tensor:
        gamma, lam = ridge.double()[..., None, None], strength.double()[..., None, None]
        means = (self.weights * (gamma + lam * self.nodes).log()).sum(-1)
        return self.rank.unsqueeze(-1) * means

    def forward(self, ridge: Tensor, strength: Tensor) -> Tensor:
        return self.nullity * ridge.double().log() + self._per_probe(ridge, strength).mean(-1)

    def standard_error(self, ridge: Tensor, strength: Tensor) -> Tensor:
        """Standard deviation of the estimate over draws of the probes, same shape as ``ridge``."""
        return self._per_probe(ridge, strength).std(-1) / self.probes**0.5


def _quadratures(graph: Graph, probes: int, steps: int, seed: int):
    """Gauss nodes and weights ``(probes, steps)``; unused places have weight 0."""
    nodes, weights = np.zeros((probes, steps)), np.zeros((probes, steps))
    if graph.num_null == graph.num_nodes:
        return nodes, weights
    laplacian, labels = graph.laplacian(), np.asarray(graph.components)
    null = np.asarray(graph.null_vector)
    norms = np.bincount(labels, null**2)[labels]
    unit = np.divide(null, norms, out=np.zeros_like(null), where=norms > 0)
    draw = np.random.default_rng(seed)
    for probe in range(probes):
        start = np.zeros(graph.num_nodes)
        while not np.linalg.norm(start) > 1e-6:  # a small graph may have a probe in its null space
            start = draw.choice([-1.0, 1.0], graph.num_nodes)
            start -= unit * np.bincount(labels, null * start)[labels]
        theta, tau = _lanczos(laplacian, start, min(steps, graph.num_nodes - graph.num_null))
        nodes[probe, : len(theta)], weights[probe, : len(theta)] = theta, tau
    return nodes, weights


def _lanczos(matrix, start: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss nodes and weights of ``start``'s spectral measure, fully reorthogonalised."""
    basis = np.zeros((steps, len(start)))
    basis[0] = start / np.linalg.norm(start)
    alpha, beta, scale = [], [], abs(matrix).sum(1).max()
    for step in range(steps):
        moved = matrix @ basis[step]
        alpha.append(basis[step] @ moved)
        for _ in range(2):  # twice is enough
            moved -= basis[: step + 1].T @ (basis[: step + 1] @ moved)
        size = np.linalg.norm(moved)
        if step + 1 == steps or size <= 1e-12 * scale:
            break
        beta.append(size)
        basis[step + 1] = moved / size
    tridiagonal = np.diag(alpha) + np.diag(beta, 1) + np.diag(beta, -1)
    theta, vectors = np.linalg.eigh(tridiagonal)
    return theta.clip(min=0.0), vectors[0] ** 2
