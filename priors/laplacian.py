"""A Gaussian over latents that live on a graph: neighbours are believed to be alike."""

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from priors._gaussian import AbstractPrecision, read
from priors._prior import AbstractGaussianPrior, check_positive, register
from priors.component_lu import ComponentLU
from priors.errors import ConfigError, GraphError, GraphWarning, NotPositiveDefiniteError
from priors.graph import Graph
from priors.laplacian_operator import LaplacianOperator
from priors.log_determinant import AbstractLogDeterminant
from priors.neighbours import neighbour_forms
from priors.spectrum import Spectrum

WIDE = 10.0  # an isolated node this many times wider than its fellows is reported


@dataclass(frozen=True)
class LaplacianPrecision(AbstractPrecision):
    """The operator ``γI + λL``, in ``O(B (K + E))`` time and ``B K`` numbers."""

    laplacian: LaplacianOperator
    log_determinant: AbstractLogDeterminant
    ridge: Float[Tensor, "*batch"]
    strength: Float[Tensor, "*batch"]

    def quadratic(self, z: Float[Tensor, "*rows K"]) -> Float[Tensor, "*out"]:
        square, smooth, _ = self.laplacian.forms(z)
        return self.ridge * square + self.strength * smooth

    def quadratic_at(
        self,
        support: Int[Tensor, "*rows W"],
        values: Float[Tensor, "*rows W"],
        loc: Float[Tensor, " K"] | None = None,
    ) -> Float[Tensor, "*rows"]:
        graph = self.laplacian
        if graph.stacked:
            return super().quadratic_at(support, values, loc)
        flat = (support.reshape(-1, support.shape[-1]), values.reshape(-1, values.shape[-1]))
        smooth, _ = neighbour_forms(*flat, graph.starts, graph.ends, graph.weights.to(values.dtype))
        smooth, square = smooth.view(values.shape[:-1]), values.square().sum(-1)
        if loc is not None:
            own_square, own_smooth, pull = graph.forms(loc)
            square = square - 2 * (values * read(loc, support)).sum(-1) + own_square
            smooth = smooth - 2 * (values * read(pull, support)).sum(-1) + own_smooth
        return self.ridge * square + self.strength * smooth

    @property
    def num_latents(self) -> int:
        return self.laplacian.num_nodes

    def diagonal(self) -> Float[Tensor, "*batch K"]:
        return self.ridge.unsqueeze(-1) + self.strength.unsqueeze(-1) * self.laplacian.degree

    def logdet(self) -> Float[Tensor, "*batch"]:
        return self.log_determinant(self.ridge, self.strength)

    @property
    def noise_size(self) -> int:
        return self.laplacian.num_nodes + self.laplacian.num_noise

    def unwhiten(self, noise: Float[Tensor, "*rows N"]) -> Float[Tensor, "*rows K"]:
        # Perturb and solve: b ~ Normal(0, Λ) from a normal per latent and one per edge; then Λ⁻¹b.
        at_nodes, at_edges = noise.tensor_split([self.laplacian.num_nodes], dim=-1)
        ridge, strength = self.ridge.unsqueeze(-1), self.strength.unsqueeze(-1)
        pushed = ridge.sqrt() * at_nodes + strength.sqrt() * self.laplacian.spread(at_edges)
        with torch.no_grad():
            draw = self.laplacian.solve(pushed, self.ridge, self.strength)
        # One step of refinement, whose residual carries the gradient in γ, λ and the noise.
        residual = pushed - ridge * draw - strength * self.laplacian.forms(draw)[2]
        return draw + self.laplacian.solve(residual, self.ridge, self.strength)


class GraphLaplacianPrior(AbstractGaussianPrior):
    r"""A Gaussian Markov random field over codes: latents joined by an edge are believed alike.

    .. math:: z \sim \mathcal N(m, (γI + λL)^{-1}), \qquad
        z^\top L z = \sum_{(i,j)} |w_{ij}| (z_i - \operatorname{sign}(w_{ij}) z_j)^2

    Positive weights can only express positive correlation; a graph made with ``signed=True`` may
    also tie ``z_i`` to ``-z_j``. ``graph.normalized()`` gives the symmetric normalisation, and
    several graphs are combined with fixed relative weights by ``Graph.combine``. ``L`` alone is
    singular, once per balanced component, so the ridge ``γ`` is what makes this a distribution.
    Several components are welcome: they are independent blocks of latents.

    Args:
        graph: Over the ``K`` latents.
        ridge: :math:`γ > 0`, in inverse squared units of the codes.
        strength: :math:`λ > 0`, likewise, per unit of edge weight.
        learnable: Whether :math:`\log γ` and :math:`\log λ` are trained.
        loc: Mean :math:`m`: a number or ``(K,)`` tensor, fixed, or an ``nn.Parameter``, learned.
        logdet: How :math:`\log\det(γI + λL)` is computed: ``ComponentLU()`` (the default if fixed),
            ``Spectrum()`` (the default if learnable), ``LanczosSpectrum()``, ``Omitted()``.

    Raises:
        NotPositiveDefiniteError: ``graph.improper`` if the ridge is not positive in float32.
        ConfigError: ``prior.bad_strength``, ``prior.bad_loc``; ``graph.constant_logdet`` for a
            learnable prior with a normaliser that is a constant.
        GraphError: ``graph.too_large`` if the normaliser cannot be computed.

    Warns:
        GraphWarning: If isolated nodes, whose precision is the ridge alone, have a prior standard
            deviation over ten times that of a typical other node.

    Example:
        >>> prior = GraphLaplacianPrior(Graph.ring(4), ridge=0.5)
        >>> prior().quadratic(torch.tensor([1.0, 0.0, 0.0, 0.0])).item()  # 0.5 + two edges
        2.5

    Source:
        Rue & Held (2005), *Gaussian Markov Random Fields*, ch. 2-3; Papandreou & Yuille (2010),
        Gaussian sampling by local perturbations, NeurIPS (the sampler).
    """

    def __init__(
        self,
        graph: Graph,
        *,
        ridge: float = 1.0,
        strength: float = 1.0,
        learnable: bool = False,
        loc: float | Tensor = 0.0,
        logdet: AbstractLogDeterminant | None = None,
    ) -> None:
        super().__init__(graph.num_nodes, loc)
        _check_proper(graph, ridge)
        check_positive("strength", strength)
        _warn_isolated(graph, ridge, strength)
        if logdet is None:
            logdet = Spectrum() if learnable else ComponentLU()
        if learnable and not logdet.differentiable:
            raise ConfigError(
                f"γ and λ cannot be learned with a constant log-determinant: got {logdet}, "
                "expected Spectrum() or LanczosSpectrum().",
                code="graph.constant_logdet",
            )
        self.learnable, self._versions = learnable, None
        for name, value in (("log_ridge", ridge), ("log_strength", strength)):
            register(self, name, torch.tensor(float(value)).log(), learnable=learnable)
        self.laplacian, self.log_determinant = LaplacianOperator([graph]), logdet.of(graph)

    @property
    def logdet(self) -> AbstractLogDeterminant:
        """What the log-determinant is computed by."""
        return self.log_determinant

    @property
    def graph(self) -> Graph:
        """The graph; of replicas, the first one's."""
        return self.laplacian.graphs[0]

    def replace_graph(self, graph: Graph) -> None:
        """Tie other latents to each other, in place; ``γ``, ``λ`` and the mean stay.

        Raises:
            GraphError: ``graph.num_nodes`` for a graph that is not over these latents.
            ConfigError: ``replicas.graph`` for a stack of replicas.
        """
        if self.laplacian.stacked:
            raise ConfigError(
                "a stack has a graph per replica: got one. Unstack, replace, stack again.",
                code="replicas.graph",
            )
        if graph.num_nodes != self.dim:
            raise GraphError(
                f"the graph is not over the prior's latents: got {graph.num_nodes} nodes, expected "
                f"{self.dim}. A graph over rows is lifted first (lifted_graph).",
                code="graph.num_nodes",
                context={"num_nodes": graph.num_nodes, "latents": self.dim},
            )
        weights = self.laplacian.weights
        self.laplacian = LaplacianOperator([graph]).to(weights.device, weights.dtype)
        self.log_determinant = self.log_determinant.of(graph).to(weights.device)

    def precision(self) -> LaplacianPrecision:
        if not (self.learnable or torch.compiler.is_compiling()):
            self._notice_edits()
        ridge, strength = self.log_ridge.exp(), self.log_strength.exp()
        return LaplacianPrecision(self.laplacian, self.log_determinant, ridge, strength)

    def _notice_edits(self) -> None:
        """A kept log-determinant is forgotten when ``γ`` or ``λ`` were loaded, set or replaced."""
        now = [(x, x._version) for x in (self.log_ridge, self.log_strength)]
        before = self._versions
        if before is None or any(
            a is not b or m != n for (a, m), (b, n) in zip(now, before, strict=True)
        ):
            self._versions = now
            self.log_determinant.forget()

    def __getstate__(self) -> dict:
        return super().__getstate__() | {"_versions": None}


def _check_proper(graph: Graph, ridge: float) -> None:
    """Decided by counting balanced components, never by trying a factorisation."""
    ridge = float(ridge)
    if torch.finfo(torch.float32).tiny <= ridge <= torch.finfo(torch.float32).max:
        return
    raise NotPositiveDefiniteError(
        f"ridge·I + strength·L is not positive-definite: got ridge={ridge!r}, and L has a "
        f"{graph.num_null}-dimensional null space (one per balanced component), on which the prior "
        "is the ridge alone and would be improper. Expected a finite ridge of at least "
        f"{torch.finfo(torch.float32).tiny:.3g}, the smallest normal float32.",
        code="graph.improper",
        context={"ridge": ridge, "num_null": graph.num_null},
    )


def _warn_isolated(graph: Graph, ridge: float, strength: float) -> None:
    isolated = graph.isolated
    joined = graph.num_nodes - len(isolated)
    if not len(isolated) or not joined:
        return
    typical = ridge + strength * graph.laplacian().diagonal().sum() / joined
    if typical > WIDE**2 * ridge:
        names = ", ".join(map(str, isolated[:5])) + (", …" if len(isolated) > 5 else "")
        warnings.warn(
            f"{len(isolated)} isolated nodes ({names}) have the ridge for precision: a prior "
            f"standard deviation of {ridge**-0.5:.3g}, where a typical node has about "
            f"{typical**-0.5:.3g}. Give them edges, or raise the ridge.",
            GraphWarning,
            stacklevel=3,
        )
